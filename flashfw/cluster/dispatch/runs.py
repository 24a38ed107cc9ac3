"""One attempt of a job on a worker: what its frames mean for the record, from claim to terminal state."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as _quoted
from typing import Protocol

from flashfw.cluster.clock import Clock, Timer
from flashfw.cluster.dispatch.deadlines import Deadlines
from flashfw.cluster.jobs.model import End, Job, Reason, State
from flashfw.cluster.workers.worker import Worker
from flashfw.worker.frames import Failure, Frame, Kind

CANCEL_GRACE_S = 10.0
"""How long cancelled work may take to stop before its worker is given up; design section 3."""


class Attendant(Protocol):
    """Who keeps the records of runs: the dispatcher. None of these may block."""

    def on_end(self, run: Run, end: End) -> None:
        """The attempt is over."""
        ...

    def on_chunk(self, run: Run, data: bytes) -> None:
        """One yielded item."""
        ...

    def on_progress(self, run: Run, data: bytes) -> None:
        """The latest progress."""
        ...

    def on_run_lost(self, run: Run, why: str) -> None:
        """The worker died with the job in its hands."""
        ...

    def on_overstay(self, run: Run) -> None:
        """Work that was told to stop did not within the grace."""
        ...


class Run:
    """A claimed job on a worker, from its claim to its end; `number` is that of its CALL, 0 before.

    `was_heard`: an item of it was kept, where readers may have found it. `types` are those of its handler's error.
    It `overstays` once it was told to stop and did not in time.
    """

    def __init__(
        self, job: Job, worker: Worker, attendant: Attendant, *, timeouts: Deadlines[Run], clock: Clock
    ) -> None:
        self.job = job
        self.worker = worker
        self.number = 0
        self.is_over = False
        self.overstays = False
        self.broke_worker = False
        self.was_heard = False
        self.types: tuple[str, ...] = ()
        self._attendant = attendant
        self._timeouts = timeouts
        self._clock = clock
        self._timer: Timer | None = None

    def start(self, *, batch: str | None = None, of: int = 1) -> None:
        """Hand the job to its worker, as one of so many in a batch if that is named."""
        job = self.job
        self.number = self.worker.begin(self, call_head(job, batch, of), job.input, batch=batch)
        self._timeouts.add(self, job.timeout_s)

    def stop(self, reason: str) -> None:
        """The record has its end; ask the worker to stop working on it."""
        self.is_over = True
        self._settle()
        if not self.number:
            return  # claimed, and not begun: it will not be
        self.worker.send(Kind.CANCEL, self.number, {"reason": reason})
        self._timer = self._clock.call_later(CANCEL_GRACE_S, self._overstay)

    def credit(self, size: int) -> None:
        """A chunk is kept: the worker may send as much again."""
        self.worker.send(Kind.CREDIT, self.number, {"bytes": size})

    def on_frame(self, frame: Frame) -> bool:
        kind = frame.kind
        if kind is Kind.CHUNK:
            self.was_heard = True
            self._attendant.on_chunk(self, frame.body)
        elif kind is Kind.PROGRESS:
            self._attendant.on_progress(self, frame.body)
        elif kind is Kind.RESULT:
            self._over(End(state=State.COMPLETED, output=frame.body))
        elif kind is Kind.FAILURE:
            self.broke_worker = bool(frame.meta.get("broken"))
            self.types = tuple(frame.meta.pop("types", ())) or (str(frame.meta.get("type", "")),)
            self._over(failed(frame.meta))  # type: ignore[arg-type]
        elif kind is Kind.GONE:
            self._over(End(state=State.CANCELLED, reason=Reason.CANCELLED))
        return kind in (Kind.RESULT, Kind.FAILURE, Kind.GONE)

    def on_lost(self, why: str) -> None:
        self._settle()
        if not self.is_over:
            self.is_over = True
            self._attendant.on_run_lost(self, why)

    def on_outdated(self, after_s: float) -> None:
        """It ends on the code that it began with, however long that takes."""

    def _over(self, end: End) -> None:
        self._settle()
        if not self.is_over:
            self.is_over = True
            self._attendant.on_end(self, end)

    def _overstay(self) -> None:
        self.overstays = True
        self._attendant.on_overstay(self)

    def _settle(self) -> None:
        self._timeouts.remove(self, self.job.timeout_s)
        if self._timer is not None:
            self._timer.cancel()


def call_head(job: Job, batch: str | None = None, of: int = 1) -> bytes:
    """The meta of a job's CALL (`JobCall`), packed by hand: each job has one, and the encoder takes twice as long.

    >>> call_head(Job(id="a", function="gpu", endpoint="gpu", input=b"", submitted_at=1.0, expires_at=9.0,
    ...     timeout_s=0.5, result_ttl_s=9.0, started_at=2.0, attempt=1))
    b'{"function":"gpu","id":"a","attempt":1,"deadline":2.5}'
    """
    deadline = (job.started_at or 0.0) + job.timeout_s
    part = "" if batch is None else f',"batch":{_quoted(batch)},"of":{of}'
    names = f'"function":{_quoted(job.function)},"id":{_quoted(job.id)}'
    return f'{{{names},"attempt":{job.attempt},"deadline":{deadline!r}{part}}}'.encode()


def failed(failure: Failure) -> End:
    """The terminal record of a failure that the worker reported."""
    try:
        reason = Reason(failure.get("reason", ""))
    except ValueError:
        reason = Reason.HANDLER_ERROR
    return End(state=State.FAILED, reason=reason, error=json.dumps(failure).encode())


def error_json(type: str, message: str) -> bytes:
    """An error record of flashfw's own, as JSON."""
    return json.dumps({"type": type, "message": message}).encode()
