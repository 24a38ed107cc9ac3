"""Whose time is over is told so, at its time, and nobody else: against a timer for each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.dispatch.deadlines import EMPTY_LINES, Deadlines

SECONDS = st.sampled_from([1.0, 2.5, 60.0])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), SECONDS),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 1.5, 40.0])),
    ),
    max_size=40,
)


@given(STEPS)
def test_what_is_added_is_due_when_its_time_is_over_unless_it_was_removed(steps: list[tuple[str, float]]) -> None:
    clock = ManualClock()
    told: list[tuple[int, float]] = []
    deadlines: Deadlines[int] = Deadlines(clock, lambda item: told.append((item, clock.monotonic())))
    seconds: list[float] = []
    due: dict[int, float] = {}
    expected: list[tuple[int, float]] = []
    for step, value in steps:
        if step == "add":
            due[len(seconds)] = clock.monotonic() + value
            deadlines.add(len(seconds), value)
            seconds.append(value)
        elif step == "remove" and value < len(seconds):
            due.pop(int(value), None)
            deadlines.remove(int(value), seconds[int(value)])
        elif step == "wait":
            clock.advance(value)
            over = sorted((at, item) for item, at in due.items() if at <= clock.monotonic())
            expected += [(item, at) for at, item in over]
            for _, item in over:
                del due[item]
        assert sorted(told) == sorted(expected)


def test_times_that_nobody_asks_for_again_are_not_kept_until_they_are_over() -> None:
    clock = ManualClock()
    told: list[int] = []
    deadlines: Deadlines[int] = Deadlines(clock, told.append)
    for number in range(1000):
        deadlines.add(number, 60.0 + number)
        if number % 100:
            deadlines.remove(number, 60.0 + number)

    assert len(deadlines._lines) <= EMPTY_LINES + 10
    clock.advance(2000.0)
    assert told == list(range(0, 1000, 100))


def test_whoever_is_told_may_add_and_remove_others() -> None:
    clock = ManualClock()
    told: list[str] = []

    def on_due(item: str) -> None:
        told.append(item)
        if item == "first":
            deadlines.remove("second", 1.0)
            deadlines.add("third", 1.0)

    deadlines: Deadlines[str] = Deadlines(clock, on_due)
    deadlines.add("first", 1.0)
    clock.advance(0.5)
    deadlines.add("second", 1.0)
    clock.advance(10.0)

    assert told == ["first", "third"]
