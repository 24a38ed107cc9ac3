"""How many workers an endpoint should have: a pure function of what is observed, without clock or state of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from flashfw.manifest import Endpoint, Scaler


class WorkerState(str, Enum):
    """What a worker is doing, as `health` shows it."""

    INITIALIZING = "INITIALIZING"  # started, not ready yet
    IDLE = "IDLE"
    RUNNING = "RUNNING"
    THROTTLED = "THROTTLED"  # wanted, but there is no device for it
    OUTDATED = "OUTDATED"  # of an older release: finishes what it has
    UNHEALTHY = "UNHEALTHY"  # silent or broken: takes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker as the autoscaler sees it. `idle_since` is monotonic, None unless it is idle."""

    id: str
    state: WorkerState
    slots_used: int = 0
    idle_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The part of an endpoint's configuration that decides its number of workers."""

    workers_min: int
    workers_max: int
    idle_timeout_s: float
    concurrency: int
    scaler: Scaler

    @classmethod
    def of(cls, endpoint: Endpoint) -> Scaling:
        return cls(
            workers_min=endpoint.workers_min,
            workers_max=endpoint.workers_max,
            idle_timeout_s=endpoint.idle_timeout_s,
            concurrency=endpoint.concurrency,
            scaler=endpoint.scaler,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """An endpoint at one moment. `now` and `backoff_until` are monotonic seconds.

    `queued` counts the calls that ask for workers, `slots` what they take of them if that is less (several calls
    may be handed over at once), `oldest_wait_s` is how long the first of them has waited. `low` ones of low priority
    run on workers that others need, `parked` ones wait for a retry: neither asks for a worker. While `paused` or
    before `backoff_until` (after failed starts) nothing is started.
    """

    now: float
    scaling: Scaling
    workers: tuple[WorkerView, ...] = ()
    queued: int = 0
    slots: int | None = None
    low: int = 0
    parked: int = 0
    oldest_wait_s: float = 0.0
    paused: bool = False
    failed_starts: int = 0
    backoff_until: float | None = None

    def count(self, *states: WorkerState) -> int:
        """How many workers are in one of these states."""
        return sum(worker.state in states for worker in self.workers)

    @property
    def held(self) -> int:
        """Workers that take one of the endpoint's places; outdated ones are beyond them."""
        return len(self.workers) - self.count(WorkerState.OUTDATED)

    @property
    def healthy(self) -> int:
        """Workers that serve, or will once they have started."""
        return self.held - self.count(WorkerState.UNHEALTHY)

    @property
    def starting(self) -> int:
        return self.count(WorkerState.INITIALIZING, WorkerState.THROTTLED)

    @property
    def calls(self) -> int:
        """Slots that healthy workers fill or must fill; what outdated ones finish needs no room."""
        serving = (WorkerState.IDLE, WorkerState.RUNNING)
        waiting = self.queued if self.slots is None else self.slots
        return waiting + sum(worker.slots_used for worker in self.workers if worker.state in serving)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`wanted` workers (outdated ones not counted), which to retire to get there, and why, in a user's words.

    Start `wanted` minus held ones if that is above zero; stop those in `retire` and no others.
    """

    wanted: int
    reason: str
    retire: tuple[str, ...] = ()


def decide(observed: Observed) -> Decision:
    """The number of workers to have now.

    From zero the first waiting call starts one at once. Growth is limited by what the waiting calls can
    use; only idle workers above `workers_min` go, the longest idle first, after the idle timeout.

    >>> scaling = Scaling(workers_min=0, workers_max=3, idle_timeout_s=60.0, concurrency=1,
    ...                   scaler=Scaler(type="queue_delay", value=4.0))
    >>> decide(Observed(now=0.0, scaling=scaling, queued=1)).reason
    '1 waiting, no worker: 0 -> 1'
    """
    held, scaling = observed.held, observed.scaling
    if blocked := _why_blocked(observed):
        return Decision(wanted=min(held, scaling.workers_max), reason=blocked)
    target, why = _target(observed)
    if target > held:
        return Decision(wanted=target, reason=f"{why}: {held} -> {target}")
    if retire := _retired(observed):
        left = held - len(retire)
        return Decision(wanted=min(left, scaling.workers_max), reason=_why_fewer(observed, retire), retire=retire)
    return Decision(wanted=min(held, scaling.workers_max), reason=f"{why}: stays at {held}")


def _why_blocked(observed: Observed) -> str:
    if observed.paused:
        return f"paused: stays at {observed.held}"
    if observed.backoff_until is not None and observed.now < observed.backoff_until:
        left = math.ceil(observed.backoff_until - observed.now)
        return f"{_plural(observed.failed_starts, 'start')} failed: the next try is in {left} s"
    return ""


def _target(observed: Observed) -> tuple[int, str]:
    """What to grow to, with the reason up to the colon; at most `workers_max`."""
    scaling = observed.scaling
    grown, why = _by_load(observed)
    if scaling.workers_min > grown:
        grown, why = scaling.workers_min, f"{scaling.workers_min} kept warm"
    # An unhealthy worker keeps its place until it is gone, but nobody is served by it.
    target = grown + observed.held - observed.healthy
    if target > scaling.workers_max and observed.held >= scaling.workers_max:
        why += f", {scaling.workers_max} is the maximum"
    return min(target, scaling.workers_max), why


def _by_load(observed: Observed) -> tuple[int, str]:
    """How many healthy workers the calls ask for now, `workers_max` not yet applied."""
    queued, healthy = observed.queued, observed.healthy
    if observed.scaling.scaler.type == "request_count":
        return _needed(observed), _request_count_reason(observed)
    if not queued:
        return 0, _why_none_asks(observed)
    value, oldest = observed.scaling.scaler.value, observed.oldest_wait_s
    missing = min(_needed(observed) - healthy, _starts_allowed(observed) - observed.starting)
    if not healthy:
        return max(1, missing), f"{queued} waiting, no worker"
    if oldest <= value:
        return 0, f"{queued} waiting, oldest {oldest:.1f} s <= {value:g} s"
    why = f"{queued} waiting, oldest {oldest:.1f} s > {value:g} s"
    if missing <= 0 and observed.starting:
        why += f", {observed.starting} starting"
    return healthy + max(0, missing), why


def _why_none_asks(observed: Observed) -> str:
    reasons = []
    if observed.low:
        what = "a free worker" if observed.healthy else "a worker that others start"
        reasons.append(f"{observed.low} of low priority {_verb(observed.low)} for {what}")
    if observed.parked:
        reasons.append(f"{observed.parked} {_verb(observed.parked)} for a retry")
    return ", ".join(reasons) or "nothing waits"


def _verb(count: int) -> str:
    return "waits" if count == 1 else "wait"


def _starts_allowed(observed: Observed) -> int:
    """How many may be starting at once: one more for each further delay that the oldest call has waited.

    Workers that start fast thus come one after another within moments, and a burst of short calls does
    not start `workers_max` slow ones that find the queue empty when they are ready.
    """
    value = observed.scaling.scaler.value
    return _needed(observed) if value <= 0 else int(observed.oldest_wait_s / value)


def _needed(observed: Observed) -> int:
    """How many workers the present calls can use."""
    calls, scaling = observed.calls, observed.scaling
    if scaling.scaler.type == "queue_delay":
        return math.ceil(calls / scaling.concurrency)
    return min(calls, math.ceil(calls / scaling.scaler.value)) if scaling.scaler.value > 0 else calls


def _request_count_reason(observed: Observed) -> str:
    if not observed.calls:
        return _why_none_asks(observed) if observed.low or observed.parked else "no calls"
    return f"{_plural(observed.calls, 'call')} at {observed.scaling.scaler.value:g} per worker"


def _retired(observed: Observed) -> tuple[str, ...]:
    """Whom to stop: those that wait for a device in vain, then the longest idle past their time.

    Beyond the maximum those go first that are still starting: one that serves may be all that does.
    """
    scaling = observed.scaling
    floor = max(scaling.workers_min, min(_needed(observed), scaling.workers_max))
    surplus = max(0, observed.healthy - floor)
    waiting = [worker.id for worker in observed.workers if worker.state == WorkerState.THROTTLED][:surplus]
    idle = sorted(
        (worker.idle_since, worker.id)
        for worker in observed.workers
        if worker.state == WorkerState.IDLE and not worker.slots_used and worker.idle_since is not None
    )
    due = [name for since, name in idle if observed.now - since >= scaling.idle_timeout_s]
    # Those that are still starting may never be ready, so they do not replace one that is.
    spare = max(0, observed.count(WorkerState.IDLE, WorkerState.RUNNING) - floor)
    beyond = max(0, observed.healthy - scaling.workers_max - len(waiting))
    starting = [worker.id for worker in observed.workers if worker.state == WorkerState.INITIALIZING][:beyond]
    beyond -= len(starting)
    leaving = due[:spare] if len(due[:spare]) >= beyond else [name for _, name in idle][:beyond]
    return (*waiting, *starting, *leaving)


def _why_fewer(observed: Observed, retire: tuple[str, ...]) -> str:
    move = f"{observed.held} -> {observed.held - len(retire)}"
    gone = [worker for worker in observed.workers if worker.id in retire]
    if all(worker.state == WorkerState.THROTTLED for worker in gone):
        return f"no call needs a device any more: {move}"
    timeout_s = observed.scaling.idle_timeout_s
    idle_s = [observed.now - worker.idle_since for worker in gone if worker.idle_since is not None]
    if min(idle_s, default=0.0) < timeout_s or any(worker.state == WorkerState.INITIALIZING for worker in gone):
        return f"{observed.scaling.workers_max} is the maximum: {move}"
    return f"{len(gone)} idle for {timeout_s:g} s: {move}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
