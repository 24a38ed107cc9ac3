"""One worker as the gateway sees it: its state, the calls it holds, and the frames that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import anyio

from flashfw.cluster.jobs.model import Reason
from flashfw.cluster.placement.base import Process
from flashfw.cluster.workers.autoscaler import WorkerState, WorkerView
from flashfw.cluster.workers.gpus import Gpu
from flashfw.cluster.workers.link import Link
from flashfw.cluster.workers.stage import Stage
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Frame, Kind, Ready


class Call(Protocol):
    """Something that runs on a worker and hears what the worker says of it."""

    def on_frame(self, frame: Frame) -> bool:
        """Take a frame of this call; True when it was the last one."""
        ...

    def on_lost(self, why: str) -> None:
        """The worker is gone; no frame follows."""
        ...

    def on_outdated(self, after_s: float) -> None:
        """It still runs on code that its worker replaced `after_s` ago, which is `drain_timeout`."""
        ...


class Renewal(NamedTuple):
    """What a running worker is to become: of this record, and of this generation of its pool."""

    endpoint: Endpoint
    generation: int


class Worker:
    """A process that takes calls. Lives as long as its process; the pool changes its state.

    `functions` are those of the release that it was started for, whose files lie at `root`, and `batch_sizes` how many
    jobs at most those of them take that take several at once. It is deaf once its link has ended, and gone once its
    process has: only then is what it held handed on. While it `is_lone` it takes no second call: it has,
    or waits to be empty for, one that must be its only one. While it is of a `stage` it takes none at all.
    `lost_calls` is how many it had when it was lost. `stale` are files that were saved since it read them; while it
    `is_catching_up` with those, before its first call, it takes none.
    """

    def __init__(self, worker_id: str, endpoint: Endpoint, generation: int, now: float, *, root: Path) -> None:
        self.id = worker_id
        self.endpoint = endpoint
        self.root = root
        self.generation = generation
        self.created_at = now
        self.environment_s = 0.0
        self.ready: Ready | None = None
        self.process: Process | None = None
        self.link: Link | None = None
        self.calls: dict[int, Call] = {}
        self.reserved = 0
        self.is_lone = False
        self.lost_calls = 0
        self._batches: dict[int, str] = {}
        self.idle_since = now
        self.last_beat = now
        self.blocked_s = 0.0
        self.files: set[str] = set()
        self.renewal: Renewal | None = None
        self.stale: set[str] = set()
        self.is_catching_up = False
        self._serve(endpoint)
        self.stage: Stage | None = None
        self.gpus: tuple[Gpu, ...] = ()
        self.starting = anyio.CancelScope()
        self.gone = anyio.Event()
        self.is_deaf = False
        self.is_silent = False
        self.is_outdated = False
        self.is_unhealthy = False
        self.is_throttled = False
        self.is_stopping = False
        self.is_gone = False
        self.why_stopped = ""
        self.why_throttled = ""
        self.killed_for: tuple[Reason, str] | None = None
        self._next_call = 1

    @property
    def state(self) -> WorkerState:
        """What to show: the first of these that holds."""
        if self.is_unhealthy or self.is_silent:
            return WorkerState.UNHEALTHY
        if self.is_outdated:
            return WorkerState.OUTDATED
        if self.is_throttled:
            return WorkerState.THROTTLED
        if self.ready is None or self.stage is not None or self.is_catching_up:
            return WorkerState.INITIALIZING
        return WorkerState.RUNNING if self.slots_used else WorkerState.IDLE

    @property
    def target(self) -> int:
        """The generation that it is of, or is to become of where it stands."""
        return self.renewal.generation if self.renewal else self.generation

    @property
    def reads(self) -> set[str]:
        """The project files that it has imported; until it is ready, also those that it may yet."""
        return self.files if self.ready else self.files.union(source.path for source in self.endpoint.sources)

    @property
    def view(self) -> WorkerView:
        """It as the autoscaler sees it."""
        used = self.slots_used
        return WorkerView(id=self.id, state=self.state, slots_used=used, idle_since=None if used else self.idle_since)

    @property
    def slots_used(self) -> int:
        """Calls it holds, a batch being one, with those that are on their way to it."""
        used = len(self.calls) + self.reserved
        if self._batches:
            used -= len(self._batches) - len(set(self._batches.values()))
        return used

    @property
    def takes_calls(self) -> bool:
        """Whether it serves and has a free slot."""
        return self.serves and not self.is_lone and self.slots_used < self.endpoint.concurrency

    @property
    def serves(self) -> bool:
        """Whether a call that is handed to it now will be done, as far as is known."""
        return self.ready is not None and not (
            self.stage is not None
            or self.is_catching_up
            or self.is_stopping
            or self.is_unhealthy
            or self.is_silent
            or self.is_deaf
            or self.is_gone
        )

    def begin(self, call: Call, head: bytes, body: bytes, *, batch: str | None = None) -> int:
        """Hand a job to the worker in the slot that was reserved for it, or for the first of its batch; its number.

        `head` is the packed meta of its CALL.
        """
        number = self._next_call
        self._next_call = number + 1
        if batch is None or batch not in self._batches.values():
            self.reserved -= 1
        if batch is not None:
            self._batches[number] = batch
        self.calls[number] = call
        self._send_call(Kind.CALL, number, head, body)
        return number

    def begin_request(self, call: Call, head: bytes, body: bytes) -> int:
        """Hand an HTTP request to the worker in the slot that was reserved for it; its number."""
        number = self._next_call
        self._next_call = number + 1
        self.reserved -= 1
        self.calls[number] = call
        self._send_call(Kind.REQUEST, number, head, body)
        return number

    def _send_call(self, kind: Kind, number: int, head: bytes, body: bytes) -> None:
        if self.link is None:
            return
        if len(self.calls) == 1:  # more of them in one turn is unlikely
            self.link.send_now(kind, number, body, head)
        else:
            self.link.send(kind, number, None, body, head)

    def send(self, kind: Kind, call: int = 0, meta: Any = None, body: bytes | memoryview = b"") -> None:
        """Send a frame; nothing happens once the link is gone."""
        if self.link is not None:
            self.link.send(kind, call, meta, body)

    def start_took(self, now: float) -> dict[str, object]:
        """What the start of a ready worker took, part by part, and how its process came to be."""
        assert self.ready is not None
        return {
            "start_s": now - self.created_at,
            "environment_s": self.environment_s,
            "process": self.process.origin if self.process else "",
            "import_s": self.ready["import_s"],
            "fixtures_s": self.ready["fixtures_s"],
        }

    def renew(self, renewal: Renewal, files: Iterable[str]) -> None:
        """It has become what it was to become, and has these files loaded now."""
        self.endpoint, self.generation = renewal
        self.renewal = None
        self.is_catching_up = False
        self.files = set(files)
        self.stale.clear()
        self._serve(renewal.endpoint)

    def _serve(self, endpoint: Endpoint) -> None:
        self.functions = frozenset(function.id for function in endpoint.functions)
        self.batch_sizes = {
            function.id: function.batch.max_size for function in endpoint.functions if function.batch is not None
        }

    def deliver(self, frame: Frame, on_end: Callable[[Worker], None]) -> None:
        """Give a frame to its call; `on_end` is told when that freed a slot."""
        call = self.calls.get(frame.call)
        if call is not None and call.on_frame(frame):
            del self.calls[frame.call]
            self._batches.pop(frame.call, None)
            if not self.slots_used:
                self.is_lone = False
            on_end(self)

    def lose(self, why: str) -> None:
        """Tell every call that the worker is gone; once."""
        self.is_gone = True
        self.lost_calls = len(self.calls)
        self._batches.clear()
        calls, self.calls = list(self.calls.values()), {}
        for call in calls:
            call.on_lost(why)
