"""What happened, kept for whoever asks why: events of the cluster in, entries of the job store out."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections import deque
from typing import Any

import anyio

from flashfw.cluster.clock import Clock, sleep
from flashfw.cluster.events import Emit, Event, internal
from flashfw.cluster.jobs.store import Entry, JobStore, StoreError

OF_A_JOB = frozenset({"job_requeued", "job_retry", "job_again", "webhook"})
OF_AN_ENDPOINT = frozenset(
    {"scale", "worker", "start_failed", "rolled", "renewed", "store_failed", "recovered", "schedule"}
)
SERVER = ""
"""The endpoint of entries that are of the whole server."""

MOST = 10_000
"""How many entries wait to be kept; a store that fails for long costs the oldest of them."""

MOST_RUNNING = 100_000
FLUSH_S = 0.2
RETRY_S = 2.0
REPEAT_S = 30.0
"""Of a failure that repeats, one entry in so many seconds is kept."""

BATCH = 500
LONGEST_TEXT = 8_000


class Journal:
    """Keeps what an explanation needs, off the path of the jobs. Lives as long as the store is open.

    `take` is an `Emit`. A job that just runs leaves nothing here: its story is in its own record. Of a job that is
    tried again the attempts before are kept, which the record does not have.
    """

    def __init__(self, store: JobStore, clock: Clock, emit: Emit) -> None:
        self._store = store
        self._clock = clock
        self._emit = emit
        self._waiting: deque[Entry] = deque()
        self._lost = 0
        self._started: dict[str, tuple[float, Event]] = {}
        self._scaled: dict[str | None, Entry] = {}
        self._failed_at = -REPEAT_S
        self._writing = asyncio.Lock()
        self._news = asyncio.Event()

    def take(self, event: Event) -> None:
        """Note an event, if it is one that explains something."""
        name = event.name
        if name == "job":
            self._started.pop(event.fields.get("id", ""), None)
        elif name == "job_started":  # most are forgotten at the job's end: an entry is made of those that are not
            if len(self._started) >= MOST_RUNNING:
                self._started.pop(next(iter(self._started)))
            self._started[event.fields["id"]] = (self._clock.now(), event)
        elif name in OF_A_JOB:
            self._of_a_job(event)
        elif name in OF_AN_ENDPOINT and self._is_news(event):
            entry = self._entry(event, job=event.fields.get("job"), worker=event.fields.get("worker"))
            if name == "scale" and event.fields.get("wanted") != event.fields.get("have"):
                self._scaled[event.endpoint] = entry
            self._keep(entry)

    def note(self, name: str, **fields: Any) -> None:
        """Keep something of the server itself."""
        self._keep(self._entry(Event(name, None, fields)))

    def scaled(self, endpoint: str) -> Entry | None:
        """The last decision of this server that changed how many workers the endpoint has."""
        return self._scaled.get(endpoint)

    async def run(self) -> None:
        """Write what was taken, many entries at once, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await sleep(self._clock, FLUSH_S)
            if not await self.flush():
                await sleep(self._clock, RETRY_S)
                self._news.set()

    async def flush(self) -> bool:
        """Write what was taken so far; False if the store cannot now, and it is kept for the next time."""
        with anyio.CancelScope(shield=True):  # a batch whose answer nobody takes would be lost, or written twice
            async with self._writing:
                while batch := self._batch():
                    if not await self._write(batch):
                        return False
        return True

    def _of_a_job(self, event: Event) -> None:
        job = event.fields.get("id")
        started = self._started.pop(str(job), None) if event.name in ("job_requeued", "job_retry") else None
        worker = None
        if started is not None:
            at, begun = started
            worker = begun.fields.get("worker")
            self._keep(dataclasses.replace(self._entry(begun, job=job, worker=worker), at=at))
        self._keep(self._entry(event, job=job, worker=worker))

    def _is_news(self, event: Event) -> bool:
        if event.name != "store_failed":
            return True
        now = self._clock.monotonic()
        is_news = now - self._failed_at >= REPEAT_S
        self._failed_at = now if is_news else self._failed_at
        return is_news

    def _entry(self, event: Event, *, job: Any = None, worker: Any = None) -> Entry:
        kept = {key: short(value) for key, value in event.fields.items() if key not in ("id", "job", "worker")}
        return Entry(
            at=self._clock.now(),
            endpoint=event.endpoint or SERVER,
            name=event.name,
            fields=kept,
            job=None if job is None else str(job),
            worker=None if worker is None else str(worker),
        )

    def _keep(self, entry: Entry) -> None:
        self._waiting.append(entry)
        self._trim()
        self._news.set()

    def _trim(self) -> None:
        while len(self._waiting) > MOST:
            self._waiting.popleft()
            self._lost += 1

    def _batch(self) -> list[Entry]:
        return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    async def _write(self, batch: list[Entry]) -> bool:
        lost, self._lost = self._lost, 0
        gap = [Entry(self._clock.now(), SERVER, "journal_lost", {"entries": lost})] if lost else []
        try:
            await self._store.record([*gap, *batch])
        except StoreError:  # those who write jobs to it tell of that
            self._lost += lost
            self._waiting.extendleft(reversed(batch))
            self._trim()
            return False
        except Exception as error:  # a journal that fails must not keep a server from serving
            self._emit(internal("keeping the journal", error))
        return True


def short(value: Any) -> Any:
    """A field as it is kept: JSON in a text as what it says, long texts cut.

    >>> short('{"message": "no"}'), len(short("x" * 9_000))
    ({'message': 'no'}, 8000)
    """
    if isinstance(value, str):
        if value.startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):
                return short(json.loads(value))
        return value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 1] + "…"
    if isinstance(value, dict):
        return {str(key): short(item) for key, item in value.items()}
    return [short(item) for item in value] if isinstance(value, (list, tuple)) else value
