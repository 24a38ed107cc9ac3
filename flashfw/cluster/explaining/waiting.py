"""Why a job that has not ended is where it is now, and what must happen for it to go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flashfw.cluster.explaining.moments import Moment, duration, error_of, failure_line, plural
from flashfw.cluster.explaining.why import Ahead
from flashfw.cluster.jobs.model import Job, State


@dataclass(frozen=True, slots=True)
class Absence:
    """What is known of a function that this server does not serve.

    `is_here` where its code is there, or nobody can tell since files do not parse; `is_elsewhere` where another server
    on the same store has it, None where one may. If neither, its jobs end `ends_in_s` from now.
    """

    is_here: bool = False
    is_elsewhere: bool | None = False
    ends_in_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What holds at `now` (seconds since the epoch) where a job's function is, or is not, served.

    `absence` says of one that is not what is known of it, `workers` counts workers by state, `waits_for` is what the
    scaler says, `failure` why workers do not start.
    """

    now: float
    is_served: bool = False
    absence: Absence = Absence()
    workers: Mapping[str, int] = field(default_factory=dict)
    workers_max: int = 0
    scaling: str = ""
    failure: Mapping[str, Any] | None = None
    retry_in_s: float = 0.0
    ahead: Ahead | None = None

    def count(self, *states: str) -> int:
        """How many workers are in one of these states."""
        return sum(self.workers.get(state, 0) for state in states)


def present(job: Job, situation: Situation) -> Moment | None:
    """Why the job waits now, or for how long it runs; None for one that has ended."""
    if job.state.is_terminal:
        return None
    if job.state is State.IN_PROGRESS:
        return _running(job, situation)
    why, must = next((found for look in _LOOKS if (found := look(job, situation)) is not None), _soon(situation))
    left_s = job.expires_at - situation.now
    expires = f" It expires in {duration(left_s)}." if left_s > 0 else " Its ttl is over: it ends any moment."
    details = {"must": must, "expires_in_s": left_s, "workers": dict(situation.workers), "scaling": situation.scaling}
    return Moment(situation.now, "waits", f"waits: {why}. {must}{expires}", details, rank=9)


def _running(job: Job, situation: Situation) -> Moment:
    for_s = max(0.0, situation.now - (job.started_at or situation.now))
    left = f"its timeout ends it in {duration(max(0.0, job.timeout_s - for_s))}"
    said = f"runs for {duration(for_s)} on worker {job.worker or 'unknown'}; {left}"
    return Moment(situation.now, "runs", said, {"worker": job.worker, "for_s": for_s}, rank=9)


Found = tuple[str, str]


def _not_served(job: Job, situation: Situation) -> Found | None:
    if situation.is_served:
        return None
    absence, name = situation.absence, job.function
    cancel = f"Or: flashfw jobs cancel {job.id[-8:]}."
    if absence.is_elsewhere:
        return f"{name} is served by another server on the same store, not by this one", f"Ask that server. {cancel}"
    if absence.is_here:
        return f"this server does not serve {name} now", f"Mend its code, or take it into the selection. {cancel}"
    if absence.is_elsewhere is None:
        why = f"this server does not serve {name}; another one on the same store may"
        return why, f"Ask that server, or bring {name} back. {cancel}"
    ends = f"the job ends in {duration(absence.ends_in_s)}" if absence.ends_in_s > 0 else "the job ends any moment"
    return f"no server serves {name} any more: it was removed or renamed", f"Bring it back, or {ends}. {cancel}"


def _parked(job: Job, situation: Situation) -> Found | None:
    left_s = job.available_at - situation.now
    if left_s <= 0:
        return None
    why = failure_line(error_of(job.error))
    said = f"for its retry, which is due in {duration(left_s)}"
    return said + (f"; attempt {job.attempt} failed: {why}" if why else ""), "Nothing is to be done."


def _no_places(job: Job, situation: Situation) -> Found | None:
    if situation.workers_max > 0 or situation.workers:
        return None
    return f"{job.endpoint} may have no worker (workers = 0)", "Set workers in its endpoint.toml."


def _does_not_start(job: Job, situation: Situation) -> Found | None:
    if situation.failure is None or situation.count("IDLE", "RUNNING"):
        return None
    said = f"workers of {job.endpoint} do not start: {failure_line(situation.failure)}"
    again = f"the next try is in {duration(situation.retry_in_s)}" if situation.retry_in_s > 0 else "it is tried again"
    return said, f"Mend that; {again}."


def _throttled(job: Job, situation: Situation) -> Found | None:
    if not situation.count("THROTTLED") or situation.count("IDLE", "RUNNING"):
        return None
    return "no device is free for a worker", "A worker that holds one must go or grow idle."


def _starting(job: Job, situation: Situation) -> Found | None:
    starting = situation.count("INITIALIZING")
    if not starting or situation.count("IDLE", "RUNNING"):
        return None
    return f"{plural(starting, 'worker')} of {job.endpoint} starting", "It must be ready."


def _alone(job: Job, situation: Situation) -> Found | None:
    if not job.alone or not situation.count("RUNNING"):
        return None
    why = "it runs alone, since its worker died with others in flight, and every worker has calls"
    return why, "A worker must have done all it has."


def _no_worker(job: Job, situation: Situation) -> Found | None:
    if situation.count("IDLE", "RUNNING", "INITIALIZING"):
        return None
    if job.priority < 0:
        return "a job with low priority starts no worker, and there is none", "Another call must start one."
    return "there is no worker" + (f" ({situation.scaling})" if situation.scaling else ""), "One must start."


def _busy(job: Job, situation: Situation) -> Found | None:
    running = situation.count("RUNNING")
    if not running or situation.count("IDLE"):
        return None
    said = f"{plural(running, 'worker')} of at most {situation.workers_max} busy"
    said += f", {situation.ahead}" if situation.ahead is not None and situation.ahead.jobs else ""
    said += f" (scaler: {situation.scaling})" if situation.scaling else ""
    return said, "A call must end, or a further worker be ready."


def _soon(situation: Situation) -> Found:
    ahead = f", {situation.ahead}" if situation.ahead is not None and situation.ahead.jobs else ""
    return f"a worker is about to take it{ahead}", "Nothing is to be done."


_LOOKS: tuple[Callable[[Job, Situation], Found | None], ...] = (
    _not_served,
    _parked,
    _no_places,
    _does_not_start,
    _throttled,
    _starting,
    _alone,
    _no_worker,
    _busy,
)
"""What a job may wait for; the first that holds is told."""
