"""The logs of a server: events in, lines in files and to those who follow. The loop never waits for the disk."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio

from flashfw.cluster.clock import Clock
from flashfw.cluster.events import Event
from flashfw.cluster.logs.entries import LOGS, OUTPUT, Entry, entry_of, lines
from flashfw.cluster.logs.files import LogFile, Rotation, Segment, endpoints
from flashfw.cluster.logs.reading import Query, merged, newest

BUFFER_BYTES = 16_000_000
"""What waits for the disk; beyond that, entries are dropped and counted."""

SEAT_BYTES = 4_000_000
"""What waits for one who follows; beyond that, as above."""

GATHER_S = 0.05
"""How long entries are gathered before they are written together."""


def as_it_is(text: str) -> str:
    """A redaction that knows no secrets."""
    return text


class _Look:
    """A place in the queue of entries: what came before it is in the files when it is answered."""

    def __init__(self, names: Collection[str] | None) -> None:
        self.names = names
        self.answer: Future[dict[str, list[Segment]]] = Future()

    def give(self, opened: dict[str, list[Segment]]) -> None:
        """Answer, unless who asked has gone."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(opened)
        else:
            _close(opened)


class Seat:
    """One who follows: takes what came since it last did."""

    def __init__(self, names: Collection[str] | None) -> None:
        self.names = names
        self._entries: deque[Entry] = deque()
        self._size = 0
        self._dropped = 0
        self._came = anyio.Event()
        self.is_dismissed = False

    def dismiss(self) -> None:
        """For the logs: nothing more comes."""
        self.is_dismissed = True
        self._came.set()

    def put(self, entry: Entry) -> None:
        """For the logs: here is one more."""
        if self.names is not None and entry.endpoint not in self.names:
            return
        if self._size + entry.size > SEAT_BYTES:
            self._dropped += 1
        else:
            self._entries.append(entry)
            self._size += entry.size
        self._came.set()

    async def take(self) -> list[Entry]:
        """Wait until there is something, and take all of it; what was dropped because nobody took it is said last.

        Nothing once it is dismissed.
        """
        await self._came.wait()
        self._came = anyio.Event()
        found = list(self._entries)
        self._entries.clear()
        self._size = 0
        if self._dropped and found:
            last = found[-1]
            found.append(_dropped(last.endpoint, last.at, self._dropped, "the reader is too slow"))
            self._dropped = 0
        return found


class Logs:
    """The logs in one folder. `take` is for the loop and only notes; a thread of its own writes.

    `redact` takes the secrets out of what flashfw itself says of workers; their own output comes without them.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        rotation: Rotation = Rotation(),  # noqa: B008 (frozen)
        redact: Callable[[str], str] = as_it_is,
    ) -> None:
        self.folder = folder
        self.clock = clock
        self._rotation = rotation
        self._redact = redact
        self._waiting: deque[Entry | _Look] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._why_lost = "the disk is too slow"
        self._due = threading.Event()
        self._hurry = threading.Event()
        self._is_closing = self._is_closed = False
        self._seats: list[Seat] = []
        self._is_dismissed = False

    def take(self, event: Event) -> None:
        """Note what an event adds to a log, if anything; one of the listeners to what a server tells."""
        entry = entry_of(event, self.clock.now())
        if entry is None:
            return
        if event.name != OUTPUT:
            entry = replace(entry, text=self._redact(entry.text))
        for seat in self._seats:
            seat.put(entry)
        with self._lock:
            if self._size + entry.size > BUFFER_BYTES:
                self._lost[entry.endpoint] += 1
                return
            self._waiting.append(entry)
            self._size += entry.size
        self._due.set()

    async def run(self) -> None:
        """Write until cancelled; then all that is noted is written first.

        Raises:
            OSError: the folder cannot be made.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        writer = threading.Thread(target=self._work, name="flashfw-logs", daemon=True)
        writer.start()
        try:
            await anyio.sleep_forever()
        finally:
            self._is_closing = True
            self._hurry.set()
            self._due.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writer.join)

    def endpoints(self) -> list[str]:
        """The endpoints that have a log, by id; of those that are served no more, too."""
        return endpoints(self.folder)

    async def read(self, names: Collection[str] | None, query: Query) -> list[bytes]:
        """The newest lines of these endpoints' logs, or of all, oldest first, up to this moment."""
        look = _Look(names)
        with self._lock:
            if self._is_closed:
                return []
            self._waiting.append(look)
        self._hurry.set()
        self._due.set()
        opened = await asyncio.wrap_future(look.answer)
        return await anyio.to_thread.run_sync(_read, opened, query)

    @contextmanager
    def seat(self, names: Collection[str] | None) -> Iterator[Seat]:
        """Follow these endpoints, or all, while the block runs.

        Sit down before `read` without waiting in between: each entry is then in exactly one of the two.
        """
        seat = Seat(names)
        if self._is_dismissed:
            seat.dismiss()
        self._seats.append(seat)
        try:
            yield seat
        finally:
            self._seats.remove(seat)

    def dismiss(self) -> None:
        """The server ends: whoever follows would hold that up, and goes on with the next one."""
        self._is_dismissed = True
        for seat in self._seats:
            seat.dismiss()

    def _work(self) -> None:
        while True:
            self._due.wait()
            if not self._is_closing:
                self._hurry.wait(GATHER_S)
            self._hurry.clear()
            self._due.clear()
            closing = self._is_closing
            with self._lock:
                batch, self._waiting, self._size = self._waiting, deque(), 0
                lost, self._lost = self._lost, Counter()
            self._write(batch, lost)
            if closing:
                with self._lock:
                    if not self._waiting:
                        self._is_closed = True
                        return

    def _write(self, batch: Iterable[Entry | _Look], lost: Counter[str]) -> None:
        """Entries to their files and looks into them, in their order; what lies between two looks together."""
        pending: dict[str, list[Entry]] = {name: [] for name in lost}
        for item in batch:
            if isinstance(item, _Look):
                self._append(pending, lost)
                pending = {}
                names = endpoints(self.folder) if item.names is None else item.names
                item.give({name: self._file(name).open_all() for name in names})
            else:
                pending.setdefault(item.endpoint, []).append(item)
        self._append(pending, lost)

    def _append(self, entries: dict[str, list[Entry]], lost: Counter[str]) -> None:
        for name, found in entries.items():
            before = lost.pop(name, 0)
            told = [line for entry in found for line in lines(entry)]
            said = [] if not before else [*lines(_dropped(name, self.clock.now(), before, self._why_lost))]
            written = self._file(name).append([*said, *told])
            if written.error is not None:  # a full disk: the log goes on when there is room again, and says so
                self._why_lost = written.error.strerror or str(written.error)
                is_said = written.lines >= len(said)
                with self._lock:
                    self._lost[name] += len(told) - written.lines + len(said) if is_said else len(told) + before

    def _file(self, name: str) -> LogFile:
        return LogFile(self.folder, name, self._rotation)


def _dropped(endpoint: str, at: float, count: int, why: str) -> Entry:
    lost = f"{count} line{'' if count == 1 else 's'} of this log dropped: {why}"
    return Entry(at=at, endpoint=endpoint, stream=LOGS, text=lost, level="warning")


def _read(opened: dict[str, list[Segment]], query: Query) -> list[bytes]:
    try:
        return merged([newest(segments, query) for segments in opened.values()], query)
    finally:
        _close(opened)


def _close(opened: dict[str, list[Segment]]) -> None:
    for segments in opened.values():
        for segment in segments:
            segment.close()
