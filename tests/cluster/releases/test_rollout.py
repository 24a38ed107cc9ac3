"""The rollout as a state machine: whatever is heard in whatever order, traffic moves only when all are ready."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flashfw.cluster.releases import rollout
from flashfw.cluster.releases.rollout import Failed, Phase, Rollout

NAMES = ["a", "b", "c", "d"]
BROKEN = Failed(endpoint="a", message="no weights")
names = st.sampled_from(NAMES)


@pytest.mark.parametrize(
    ("surge", "replace", "phases"),
    [
        ([], [], [Phase.COMMITTING]),
        (["a"], [], [Phase.SURGING, Phase.COMMITTING]),
        ([], ["a"], [Phase.CLEARING, Phase.REPLACING, Phase.COMMITTING]),
        (["a"], ["b"], [Phase.SURGING, Phase.CLEARING, Phase.REPLACING, Phase.COMMITTING]),
    ],
)
def test_phases_in_their_order(surge: list[str], replace: list[str], phases: list[Phase]) -> None:
    at = rollout.begin(surge=surge, replace=replace)
    seen = [at.phase]
    while at.awaited:
        at = rollout.settled(at, min(at.awaited))
        seen += [at.phase] if at.phase is not seen[-1] else []

    assert seen == phases
    assert rollout.committed(at).phase is Phase.DONE


@given(st.sets(names), st.sets(names), names)
def test_what_nobody_waits_for_changes_nothing(surge: set[str], replace: set[str], name: str) -> None:
    at = rollout.begin(surge=surge, replace=replace - surge)

    assert name in at.awaited or rollout.settled(at, name) == at


def test_the_first_failure_counts() -> None:
    at = rollout.failed(rollout.begin(surge=["a", "b"]), BROKEN)

    assert rollout.failed(at, Failed(endpoint="b", message="later")) is at
    assert rollout.settled(at, "b") is at
    assert (at.phase, at.failure) == (Phase.FAILED, BROKEN)


def test_only_what_is_all_ready_is_committed() -> None:
    with pytest.raises(AssertionError):
        rollout.committed(rollout.begin(surge=["a"]))


class Server(RuleBasedStateMachine):
    """A server that rolls out one release after another, with workers that get ready, end, fail and die as they like.

    `serving` is the release of each endpoint's workers that take calls; None while they are cleared away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.number = 0
        self.at: Rollout | None = None
        self.serving: dict[str, int | None] = dict.fromkeys(NAMES, 0)
        self.ready: set[str] = set()

    @precondition(lambda self: self.at is None)
    @rule(surge=st.sets(names), replace=st.sets(names))
    def begin(self, surge: set[str], replace: set[str]) -> None:
        self.number += 1
        self.ready = set()
        self.at = rollout.begin(surge=surge, replace=replace - surge)

    @precondition(lambda self: self.at is not None and self.at.awaited)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        assert self.at is not None
        name = data.draw(st.sampled_from(sorted(self.at.awaited)))
        if self.at.phase is Phase.CLEARING:
            assert self.at.surge <= self.ready  # nobody is disturbed before all that may surge is ready
            self.serving[name] = None
        else:
            self.ready.add(name)
        self.at = rollout.settled(self.at, name)

    @precondition(lambda self: self.at is not None)
    @rule(name=names)
    def hear_late(self, name: str) -> None:
        assert self.at is not None
        if name not in self.at.awaited:
            assert rollout.settled(self.at, name) is self.at

    @precondition(lambda self: self.at is not None)
    @rule(name=names)
    def fail_or_die(self, name: str) -> None:
        assert self.at is not None
        self.at = rollout.failed(self.at, Failed(endpoint=name, message="died"))
        assert self.at.phase is Phase.FAILED
        self.serving = dict.fromkeys(NAMES, self.current)  # all of it is abandoned
        self.at = None

    @precondition(lambda self: self.at is not None and self.at.phase is Phase.COMMITTING)
    @rule()
    def commit(self) -> None:
        assert self.at is not None
        assert self.at.surge | self.at.replace <= self.ready
        self.at = rollout.committed(self.at)
        self.current = self.number
        self.serving = dict.fromkeys(NAMES, self.current)
        self.at = None

    @precondition(lambda self: self.at is not None)
    @rule()
    def server_is_killed(self) -> None:
        """The next one serves what is written down."""
        self.serving = dict.fromkeys(NAMES, self.current)
        self.at = None

    @invariant()
    def what_serves_is_of_the_current_release(self) -> None:
        assert {release for release in self.serving.values() if release is not None} <= {self.current}

    @invariant()
    def only_what_is_replaced_waits_for_workers(self) -> None:
        away = {name for name, release in self.serving.items() if release is None}
        assert away <= (self.at.replace if self.at else frozenset())


def test_in_whatever_order_workers_get_ready_fail_and_die_nothing_half_is_served() -> None:
    run_state_machine_as_test(Server, settings=settings(max_examples=60, stateful_step_count=25))
