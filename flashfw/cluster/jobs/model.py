"""A job's record and its life as pure functions: no clock, no disk, no other module decides a transition."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

QUARANTINE_DEATHS = 3
"""The worker's death that ends a job: the third, as design section 3 ("A job's life") has it."""


class State(str, Enum):
    """Where a job is. The last four are terminal and written once."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_terminal(self) -> bool:
        return self is not State.IN_QUEUE and self is not State.IN_PROGRESS


class Reason(str, Enum):
    """Why a job ended as it did, when it did not complete."""

    VALIDATION = "validation"
    HANDLER_ERROR = "handler_error"
    WORKER_LOST = "worker_lost"
    OOM = "oom"
    TIMEOUT = "timeout"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    ENCODE = "encode"
    TOO_LARGE = "too_large"
    STARTUP = "startup"
    FUNCTION_GONE = "function_gone"


@dataclass(frozen=True, kw_only=True)  # with slots it could not be copied at once, and each transition copies it
class Job:
    """One submitted call. Times are seconds since the epoch; `input`, `output` and `error` are JSON.

    `fence` grows with each claim: a writer that holds an older one is discarded. `boot` names the
    server process whose worker holds the claim. `deaths` counts workers that died holding it.
    `available_at` is when it may be claimed: later than now while it waits for a retry, 0 once it was. A job that
    is `alone` must be its worker's only call: it was in flight beside others when their worker died.
    The errors of its handler so far are `attempt - deaths`. `home` names the folder that holds the files which came
    with it: of several servers only those with that folder may claim it.
    """

    id: str
    function: str
    endpoint: str
    input: bytes
    submitted_at: float
    expires_at: float
    timeout_s: float
    result_ttl_s: float
    priority: int = 0
    state: State = State.IN_QUEUE
    reason: Reason | None = None
    available_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 0
    fence: int = 0
    deaths: int = 0
    boot: str | None = None
    worker: str | None = None
    output: bytes | None = None
    error: bytes | None = None
    progress: bytes | None = None
    idempotency_key: str | None = None
    principal: str = ""
    input_digest: str = ""
    webhook: str | None = None
    alone: bool = False
    home: str | None = None

    @property
    def is_dead_letter(self) -> bool:
        """Whether it failed after more than one attempt: its workers died, or its retries are used up."""
        return self.state is State.FAILED and self.attempt > 1


class Claimer(NamedTuple):
    """Who takes jobs: one worker of one server process. A tuple, as `End` is, since each job has one."""

    boot: str
    worker: str


class End(NamedTuple):
    """How an attempt ended: a terminal state with its reason and its output or error as JSON."""

    state: State
    reason: Reason | None = None
    output: bytes | None = None
    error: bytes | None = None


def claimed(job: Job, by: Claimer, now: float) -> Job | None:
    """The job in the hands of a worker, or None if it is not to be had now."""
    if job.state is not State.IN_QUEUE or job.available_at > now or job.expires_at <= now:
        return None
    return _with(
        job,
        state=State.IN_PROGRESS,
        available_at=0.0,
        started_at=now,
        attempt=job.attempt + 1,
        fence=job.fence + 1,
        boot=by.boot,
        worker=by.worker,
        progress=None,
    )


def finished(job: Job, fence: int, end: End, now: float) -> Job | None:
    """The job with its terminal record, or None if `fence` is no longer the claim."""
    if not holds(job, fence):
        return None
    return _ended(job, end, now)


def released(job: Job, fence: int) -> Job | None:
    """The job back in the queue through no fault of its own (drain, roll, restart), or None."""
    if not holds(job, fence):
        return None
    return _requeued(job, attempt=job.attempt - 1)


def orphaned(job: Job, boot: str) -> Job | None:
    """The job back in the queue if another server process than `boot` had claimed it, or None."""
    if job.state is not State.IN_PROGRESS or job.boot == boot:
        return None
    return _requeued(job, attempt=job.attempt - 1)


def lost(
    job: Job, fence: int, error: bytes, now: float, *, reason: Reason = Reason.WORKER_LOST, alone: bool = False
) -> Job | None:
    """The job after the death of its worker: requeued at once, or quarantined at the third; None if not held.

    `reason` is what a quarantined job ends with: `worker_lost` or `oom`. With `alone` it runs beside no
    other job from now on (any of several may have killed the worker); one that had to stays so.
    """
    if not holds(job, fence):
        return None
    deaths = job.deaths + 1
    if deaths >= QUARANTINE_DEATHS:
        end = End(state=State.FAILED, reason=reason, error=error)
        return _with(_ended(job, end, now), deaths=deaths)
    return _with(_requeued(job, attempt=job.attempt), deaths=deaths, error=error, alone=alone or job.alone)


def rescheduled(job: Job, fence: int, error: bytes, at: float) -> Job | None:
    """The job back in the queue after an error of its handler, to be claimed from `at`; None if not held.

    The attempt counts. Its worker outlived it, so it need not be alone any more.
    """
    if not holds(job, fence):
        return None
    return _with(_requeued(job, attempt=job.attempt), error=error, available_at=at, alone=False)


def cancelled(job: Job, now: float) -> Job | None:
    """The job cancelled, queued or running, or None if it has already ended."""
    if job.state.is_terminal:
        return None
    return _ended(job, End(state=State.CANCELLED, reason=Reason.CANCELLED), now)


def refused(job: Job, end: End, now: float) -> Job | None:
    """A queued job ended before any worker had it, because its caller waits in vain; None if it does not wait."""
    if job.state is not State.IN_QUEUE:
        return None
    return _ended(job, end, now)


def retried(job: Job, now: float) -> Job | None:
    """A job that ended without completing, asked for anew: a fresh time to live, attempts and deaths from zero.

    None if it completed or has not ended.
    """
    if not job.state.is_terminal or job.state is State.COMPLETED:
        return None
    fresh = _with(
        job,
        reason=None,
        expires_at=now + (job.expires_at - job.submitted_at),
        available_at=0.0,
        finished_at=None,
        deaths=0,
        output=None,
        error=None,
        alone=False,
    )
    return _requeued(fresh, attempt=0)


def expired(job: Job, now: float) -> Job | None:
    """The job past its time to live in the queue, or None if it is not."""
    if job.state is not State.IN_QUEUE or job.expires_at > now:
        return None
    return _ended(job, End(state=State.TIMED_OUT, reason=Reason.EXPIRED), now)


def holds(job: Job, fence: int) -> bool:
    """Whether `fence` is the claim that the job is in the hands of."""
    return job.state is State.IN_PROGRESS and job.fence == fence


def _ended(job: Job, end: End, now: float) -> Job:
    return _with(
        job,
        state=end.state,
        reason=end.reason,
        output=end.output,
        error=end.error,
        progress=None,
        finished_at=now,
        alone=False,
    )


def _requeued(job: Job, *, attempt: int) -> Job:
    return _with(job, state=State.IN_QUEUE, attempt=attempt, started_at=None, boot=None, worker=None, progress=None)


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Job) if field.default is not dataclasses.MISSING}


def fresh(fields: Mapping[str, Any]) -> Job:
    """A job of these fields, all that have no default among them: `Job(**fields)` in a fifth of the time."""
    job = object.__new__(Job)
    known = job.__dict__
    known.update(_DEFAULTS)
    known.update(fields)
    return job


def _with(job: Job, **changes: Any) -> Job:
    # `dataclasses.replace` takes ten times as long, and a store's throughput is mostly this and SQL.
    after = object.__new__(Job)
    fields = after.__dict__
    fields.update(job.__dict__)
    fields.update(changes)
    return after
