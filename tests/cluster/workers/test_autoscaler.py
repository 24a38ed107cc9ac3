from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.workers.autoscaler import Decision, Observed, Scaling, WorkerState, WorkerView, decide
from flashfw.manifest import Endpoint, Scaler

DELAY = Scaling(
    workers_min=0,
    workers_max=3,
    idle_timeout_s=60.0,
    concurrency=1,
    scaler=Scaler(type="queue_delay", value=4.0),
)
COUNT = dataclasses.replace(DELAY, concurrency=10, scaler=Scaler(type="request_count", value=7.0))


def running(*ids: str, slots: int = 1) -> tuple[WorkerView, ...]:
    return tuple(WorkerView(id=name, state=WorkerState.RUNNING, slots_used=slots) for name in ids)


def idle(name: str, since: float) -> WorkerView:
    return WorkerView(id=name, state=WorkerState.IDLE, idle_since=since)


def in_state(state: WorkerState, *ids: str) -> tuple[WorkerView, ...]:
    return tuple(WorkerView(id=name, state=state) for name in ids)


def observe(scaling: Scaling = DELAY, **changes: object) -> Observed:
    return dataclasses.replace(Observed(now=1000.0, scaling=scaling), **changes)  # type: ignore[arg-type]


STARTING = in_state(WorkerState.INITIALIZING, "a")
LOST = in_state(WorkerState.UNHEALTHY, "x")
OLD = (WorkerView(id="old", state=WorkerState.OUTDATED, slots_used=1),)
WAITING = in_state(WorkerState.THROTTLED, "t")


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (observe(), Decision(wanted=0, reason="nothing waits: stays at 0")),
        (observe(queued=1), Decision(wanted=1, reason="1 waiting, no worker: 0 -> 1")),
        (observe(parked=2), Decision(wanted=0, reason="2 wait for a retry: stays at 0")),
        (
            observe(low=1, parked=1),
            Decision(
                wanted=0,
                reason="1 of low priority waits for a worker that others start, 1 waits for a retry: stays at 0",
            ),
        ),
        (
            observe(low=3, workers=running("a")),
            Decision(wanted=1, reason="3 of low priority wait for a free worker: stays at 1"),
        ),
        (observe(queued=1, low=9), Decision(wanted=1, reason="1 waiting, no worker: 0 -> 1")),
        (
            observe(queued=20, slots=2, oldest_wait_s=60.0, workers=running("a")),
            Decision(wanted=3, reason="20 waiting, oldest 60.0 s > 4 s: 1 -> 3"),
        ),
        (
            observe(queued=20, slots=1, oldest_wait_s=60.0, workers=running("a")),
            Decision(wanted=2, reason="20 waiting, oldest 60.0 s > 4 s: 1 -> 2"),
        ),
        (
            observe(dataclasses.replace(COUNT, concurrency=1), low=2, parked=0),
            Decision(wanted=0, reason="2 of low priority wait for a worker that others start: stays at 0"),
        ),
        (observe(queued=9), Decision(wanted=1, reason="9 waiting, no worker: 0 -> 1")),
        (
            observe(queued=9, oldest_wait_s=1.0, workers=STARTING),
            Decision(wanted=1, reason="9 waiting, oldest 1.0 s <= 4 s: stays at 1"),
        ),
        (
            observe(queued=3, oldest_wait_s=5.2, workers=running("a")),
            Decision(wanted=2, reason="3 waiting, oldest 5.2 s > 4 s: 1 -> 2"),
        ),
        (
            observe(queued=3, oldest_wait_s=5.2, workers=running("a") + in_state(WorkerState.INITIALIZING, "b")),
            Decision(wanted=2, reason="3 waiting, oldest 5.2 s > 4 s, 1 starting: stays at 2"),
        ),
        (
            observe(queued=3, oldest_wait_s=8.1, workers=running("a") + in_state(WorkerState.INITIALIZING, "b")),
            Decision(wanted=3, reason="3 waiting, oldest 8.1 s > 4 s: 2 -> 3"),
        ),
        (
            observe(queued=1, oldest_wait_s=90.0, workers=STARTING),
            Decision(wanted=1, reason="1 waiting, oldest 90.0 s > 4 s, 1 starting: stays at 1"),
        ),
        (
            observe(queued=9, oldest_wait_s=90.0, workers=running("a", "b", "c")),
            Decision(wanted=3, reason="9 waiting, oldest 90.0 s > 4 s, 3 is the maximum: stays at 3"),
        ),
        (
            observe(dataclasses.replace(DELAY, workers_max=0), queued=1),
            Decision(wanted=0, reason="1 waiting, no worker, 0 is the maximum: stays at 0"),
        ),
        (
            observe(dataclasses.replace(DELAY, workers_min=2), workers=running("a")),
            Decision(wanted=2, reason="2 kept warm: 1 -> 2"),
        ),
        (observe(queued=1, workers=LOST), Decision(wanted=2, reason="1 waiting, no worker: 1 -> 2")),
        (observe(queued=1, workers=OLD), Decision(wanted=1, reason="1 waiting, no worker: 0 -> 1")),
        (observe(COUNT, queued=8), Decision(wanted=2, reason="8 calls at 7 per worker: 0 -> 2")),
        (
            observe(COUNT, workers=running("a", slots=7)),
            Decision(wanted=1, reason="7 calls at 7 per worker: stays at 1"),
        ),
        (
            observe(COUNT, workers=running("a", slots=8)),
            Decision(wanted=2, reason="8 calls at 7 per worker: 1 -> 2"),
        ),
        (
            observe(dataclasses.replace(COUNT, scaler=Scaler(type="request_count", value=0.7)), queued=1),
            Decision(wanted=1, reason="1 call at 0.7 per worker: 0 -> 1"),
        ),
        (observe(COUNT, workers=OLD), Decision(wanted=0, reason="no calls: stays at 0")),
        (
            observe(queued=2, paused=True, workers=running("a")),
            Decision(wanted=1, reason="paused: stays at 1"),
        ),
        (
            observe(queued=2, failed_starts=3, backoff_until=1011.5),
            Decision(wanted=0, reason="3 starts failed: the next try is in 12 s"),
        ),
        (
            observe(queued=2, failed_starts=3, backoff_until=1000.0),
            Decision(wanted=1, reason="2 waiting, no worker: 0 -> 1"),
        ),
    ],
)
def test_growth(observed: Observed, expected: Decision) -> None:
    assert decide(observed) == expected


@pytest.mark.parametrize(
    ("observed", "retire", "reason"),
    [
        (observe(workers=(idle("a", 940.1),)), (), "nothing waits: stays at 1"),
        (observe(workers=(idle("a", 940.0),)), ("a",), "1 idle for 60 s: 1 -> 0"),
        (observe(workers=(idle("a", 939.0), idle("b", 900.0))), ("b", "a"), "2 idle for 60 s: 2 -> 0"),
        (
            observe(dataclasses.replace(DELAY, workers_min=1), workers=(idle("a", 939.0), idle("b", 900.0))),
            ("b",),
            "1 idle for 60 s: 2 -> 1",
        ),
        (observe(workers=(*running("a"), idle("b", 900.0))), ("b",), "1 idle for 60 s: 2 -> 1"),
        (observe(queued=1, workers=(idle("b", 900.0),)), (), "1 waiting, oldest 0.0 s <= 4 s: stays at 1"),
        (observe(workers=WAITING), ("t",), "no call needs a device any more: 1 -> 0"),
        (observe(queued=1, workers=WAITING), (), "1 waiting, oldest 0.0 s <= 4 s: stays at 1"),
        (
            observe(dataclasses.replace(DELAY, workers_max=1), workers=(idle("a", 999.0), idle("b", 998.0))),
            ("b",),
            "1 is the maximum: 2 -> 1",
        ),
        (
            observe(dataclasses.replace(DELAY, workers_max=1), workers=(idle("b", 999.0), *STARTING)),
            ("a",),
            "1 is the maximum: 2 -> 1",
        ),
        (
            observe(dataclasses.replace(DELAY, workers_min=1), workers=(idle("a", 900.0), *LOST)),
            (),
            "1 kept warm: stays at 2",
        ),
    ],
)
def test_retirement(observed: Observed, retire: tuple[str, ...], reason: str) -> None:
    decision = decide(observed)

    assert (decision.retire, decision.reason) == (retire, reason)


def test_scaling_of_an_endpoint_takes_its_own_values() -> None:
    endpoint = Endpoint(
        id="a", kind="job", directory="endpoints/a", functions=(), python="3.11", fingerprint="", workers_min=1
    )

    assert Scaling.of(endpoint) == Scaling(
        workers_min=1, workers_max=3, idle_timeout_s=60.0, concurrency=1, scaler=endpoint.scaler
    )


@st.composite
def scalings(draw: st.DrawFn) -> Scaling:
    low = draw(st.integers(0, 4))
    kind = draw(st.sampled_from(["queue_delay", "request_count"]))
    return Scaling(
        workers_min=low,
        workers_max=low + draw(st.integers(0, 6)),
        idle_timeout_s=draw(st.sampled_from([1.0, 60.0])),
        concurrency=draw(st.integers(1, 20)),
        scaler=Scaler(type=kind, value=draw(st.sampled_from([0.5, 1.0, 4.0, 14.0]))),  # type: ignore[arg-type]
    )


@st.composite
def observations(draw: st.DrawFn) -> Observed:
    scaling = draw(scalings())
    workers = []
    for index in range(draw(st.integers(0, scaling.workers_max))):
        state = draw(st.sampled_from(list(WorkerState)))
        busy = state in (WorkerState.RUNNING, WorkerState.OUTDATED)
        slots = draw(st.integers(1, scaling.concurrency)) if busy else 0
        since = draw(st.floats(0, 1000)) if state is WorkerState.IDLE else None
        workers.append(WorkerView(id=f"w{index}", state=state, slots_used=slots, idle_since=since))
    queued = draw(st.integers(0, 200))
    waited = draw(st.floats(0, 500)) if queued else 0.0
    return Observed(now=1000.0, scaling=scaling, workers=tuple(workers), queued=queued, oldest_wait_s=waited)


@given(observations())
def test_wanted_stays_between_min_and_max(observed: Observed) -> None:
    assert observed.scaling.workers_min <= decide(observed).wanted <= observed.scaling.workers_max


@given(observations())
def test_only_idle_or_throttled_workers_are_retired_and_never_while_growing(observed: Observed) -> None:
    decision = decide(observed)
    states = {worker.id: worker.state for worker in observed.workers}

    assert {states[name] for name in decision.retire} <= {WorkerState.IDLE, WorkerState.THROTTLED}
    assert len(set(decision.retire)) == len(decision.retire)
    assert not decision.retire or decision.wanted == observed.held - len(decision.retire)


@given(observations())
def test_retirement_leaves_the_minimum_and_what_the_calls_use(observed: Observed) -> None:
    decision = decide(observed)
    if not decision.retire:
        return
    left = [worker for worker in observed.workers if worker.id not in decision.retire]
    healthy = dataclasses.replace(observed, workers=tuple(left)).healthy

    assert healthy >= observed.scaling.workers_min
    assert healthy * observed.scaling.concurrency >= min(
        observed.calls, observed.scaling.concurrency * observed.scaling.workers_max
    ) or (observed.scaling.scaler.type == "request_count")


@given(scalings(), st.integers(1, 50))
def test_the_first_waiting_call_starts_a_worker(scaling: Scaling, queued: int) -> None:
    wanted = decide(Observed(now=0.0, scaling=scaling, queued=queued)).wanted

    assert wanted >= min(1, scaling.workers_max)


@given(scalings())
def test_from_zero_one_call_starts_no_more_than_one_above_the_minimum(scaling: Scaling) -> None:
    wanted = decide(Observed(now=0.0, scaling=scaling, queued=1)).wanted

    assert wanted == min(scaling.workers_max, max(scaling.workers_min, 1))


@given(observations())
def test_growth_is_not_beyond_what_the_calls_can_use(observed: Observed) -> None:
    decision = decide(observed)
    if decision.wanted > observed.held:
        lost = observed.held - observed.healthy
        useful = max(observed.calls, observed.scaling.workers_min)
        assert decision.wanted <= useful + lost


@given(observations())
def test_an_applied_decision_is_stable(observed: Observed) -> None:
    once = _apply(observed, decide(observed))
    again = decide(once)

    assert (again.wanted, again.retire) == (min(once.held, once.scaling.workers_max), ())


@given(observations())
def test_everything_goes_once_nothing_calls(observed: Observed) -> None:
    """However it starts, without calls the endpoint comes to rest at its minimum."""
    idle_now = tuple(
        WorkerView(id=worker.id, state=WorkerState.IDLE, idle_since=observed.now) for worker in observed.workers
    )
    quiet = dataclasses.replace(observed, workers=idle_now, queued=0, oldest_wait_s=0.0)
    later = dataclasses.replace(quiet, now=observed.now + 2 * observed.scaling.idle_timeout_s)

    assert decide(later).wanted == observed.scaling.workers_min


@given(scalings(), st.integers(1, 60), st.integers(0, 5))
def test_a_queue_is_worked_off_and_the_workers_leave(scaling: Scaling, queued: int, start_ticks: int) -> None:
    """A simulation: one call per slot and tick; it ends at the minimum with an empty queue."""
    scaling = dataclasses.replace(scaling, workers_max=max(1, scaling.workers_max))
    observed = Observed(now=0.0, scaling=scaling, queued=queued)
    ages: dict[str, int] = {}
    for _ in range(400):
        observed = _tick(_apply(observed, decide(observed)), ages, start_ticks)
        assert observed.held <= scaling.workers_max

    assert (observed.queued, observed.held) == (0, scaling.workers_min)


def _apply(observed: Observed, decision: Decision) -> Observed:
    stays = [worker for worker in observed.workers if worker.id not in decision.retire]
    fresh = (f"n{observed.now}-{index}" for index in range(max(0, decision.wanted - observed.held)))
    new = (WorkerView(id=name, state=WorkerState.INITIALIZING) for name in fresh)
    return dataclasses.replace(observed, workers=(*stays, *new))


def _tick(observed: Observed, ages: dict[str, int], start_ticks: int) -> Observed:
    queued, workers = observed.queued, []
    now = observed.now + 1.0
    for worker in observed.workers:
        ages[worker.id] = ages.get(worker.id, 0) + 1
        if ages[worker.id] <= start_ticks:
            workers.append(worker)
            continue
        taken = min(queued, observed.scaling.concurrency)
        queued -= taken
        since = worker.idle_since if worker.idle_since is not None else now
        workers.append(
            WorkerView(id=worker.id, state=WorkerState.RUNNING, slots_used=taken)
            if taken
            else WorkerView(id=worker.id, state=WorkerState.IDLE, idle_since=since)
        )
    waited = observed.oldest_wait_s + 1.0 if queued else 0.0
    return dataclasses.replace(observed, now=now, queued=queued, oldest_wait_s=waited, workers=tuple(workers))
