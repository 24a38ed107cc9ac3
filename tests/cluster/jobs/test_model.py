"""The life of a job as pure functions: which transitions there are, and what each leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs import model
from flashfw.cluster.jobs.model import QUARANTINE_DEATHS, Job, Reason, State
from tests.cluster.jobs.conformance import BROKEN, BY, DONE, a_job

CLOCK = ManualClock()
NOW = CLOCK.now()
TERMINAL = [state for state in State if state.is_terminal]

Transition = Callable[[Job], "Job | None"]

TRANSITIONS: dict[str, tuple[Transition, set[State]]] = {
    "claimed": (lambda job: model.claimed(job, BY, NOW), {State.IN_QUEUE}),
    "finished": (lambda job: model.finished(job, job.fence, DONE, NOW), {State.IN_PROGRESS}),
    "released": (lambda job: model.released(job, job.fence), {State.IN_PROGRESS}),
    "orphaned": (lambda job: model.orphaned(job, "another boot"), {State.IN_PROGRESS}),
    "lost": (lambda job: model.lost(job, job.fence, b'"x"', NOW), {State.IN_PROGRESS}),
    "rescheduled": (lambda job: model.rescheduled(job, job.fence, b'"x"', NOW), {State.IN_PROGRESS}),
    "cancelled": (lambda job: model.cancelled(job, NOW), {State.IN_QUEUE, State.IN_PROGRESS}),
    "refused": (lambda job: model.refused(job, BROKEN, NOW), {State.IN_QUEUE}),
    "expired": (lambda job: model.expired(dataclasses.replace(job, expires_at=NOW), NOW), {State.IN_QUEUE}),
    "retried": (lambda job: model.retried(job, NOW), {State.FAILED, State.CANCELLED, State.TIMED_OUT}),
}


def in_state(state: State) -> Job:
    job = a_job(CLOCK)
    if state is State.IN_QUEUE:
        return job
    claimed = model.claimed(job, BY, NOW)
    assert claimed is not None
    if state is State.IN_PROGRESS:
        return claimed
    ended = model.finished(claimed, 1, BROKEN._replace(state=state), NOW)
    assert ended is not None
    return ended


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_transition_is_possible_from_its_states_and_no_others(name: str, state: State) -> None:
    transition, possible = TRANSITIONS[name]

    assert (transition(in_state(state)) is not None) == (state in possible)


@given(fence=st.integers(-5, 5).filter(lambda fence: fence != 1))
def test_only_the_claim_itself_may_write(fence: int) -> None:
    job = in_state(State.IN_PROGRESS)

    assert model.holds(job, 1)
    assert model.finished(job, fence, DONE, NOW) is None
    assert model.released(job, fence) is None
    assert model.lost(job, fence, b"", NOW) is None
    assert model.rescheduled(job, fence, b"", NOW) is None


@given(steps=st.lists(st.sampled_from(["released", "orphaned", "lost", "rescheduled"]), max_size=12))
def test_only_deaths_and_errors_count_against_a_job(steps: list[str]) -> None:
    job, claims, deaths, errors = in_state(State.IN_PROGRESS), 1, 0, 0
    for step in steps:
        after = TRANSITIONS[step][0](job)
        assert after is not None
        deaths += step == "lost"
        errors += step == "rescheduled"
        assert after.attempt - after.deaths == errors
        if deaths == QUARANTINE_DEATHS:
            assert (after.state, after.reason) == (State.FAILED, Reason.WORKER_LOST)
            assert after.is_dead_letter
            return
        assert (after.state, after.boot, after.worker, after.started_at) == (State.IN_QUEUE, None, None, None)
        again = model.claimed(after, BY, NOW)
        assert again is not None
        job, claims = again, claims + 1
        assert (job.fence, job.attempt, job.deaths) == (claims, deaths + errors + 1, deaths)


def test_a_job_is_claimed_neither_before_it_is_due_nor_after_its_ttl() -> None:
    job = a_job(CLOCK, available_at=NOW + 5)

    assert model.claimed(job, BY, NOW + 4.9) is None
    assert model.claimed(job, BY, NOW + 5) is not None
    assert model.claimed(job, BY, job.expires_at) is None
    assert model.expired(job, job.expires_at - 0.1) is None


@pytest.mark.parametrize("state", TERMINAL)
def test_an_end_has_its_time_and_no_progress(state: State) -> None:
    job = dataclasses.replace(in_state(State.IN_PROGRESS), progress=b"0.5")
    ended = model.finished(job, 1, DONE._replace(state=state), NOW + 3)

    assert ended is not None
    assert (ended.state, ended.finished_at, ended.progress, ended.output) == (state, NOW + 3, None, DONE.output)
    assert (ended.id, ended.input, ended.started_at, ended.attempt) == (job.id, job.input, NOW, 1)


@pytest.mark.parametrize("alone", [False, True])
def test_a_job_stays_alone_until_a_worker_outlived_it(alone: bool) -> None:
    job = dataclasses.replace(in_state(State.IN_PROGRESS), alone=alone)

    def after(transition: Transition) -> bool:
        changed = transition(job)
        assert changed is not None
        return changed.alone

    assert after(lambda job: model.lost(job, 1, b"", NOW, alone=True))
    assert after(lambda job: model.lost(job, 1, b"", NOW)) is alone
    assert after(lambda job: model.released(job, 1)) is alone
    assert after(lambda job: model.orphaned(job, "another boot")) is alone
    assert not after(lambda job: model.rescheduled(job, 1, b"", NOW))
    assert not after(lambda job: model.finished(job, 1, BROKEN, NOW))
    assert not after(lambda job: model.cancelled(job, NOW))


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("attempt", [0, 1, 2, 3])
def test_a_dead_letter_failed_after_more_than_one_attempt(state: State, attempt: int) -> None:
    job = dataclasses.replace(in_state(state), attempt=attempt)

    assert job.is_dead_letter is (state is State.FAILED and attempt > 1)
