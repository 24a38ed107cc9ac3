"""When to come again, from how fast work is done."""

from __future__ import annotations

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.dispatch.pace import MOST_S, UNKNOWN_S, Pace


def test_before_anything_was_done_nobody_knows() -> None:
    pace = Pace(ManualClock())
    assert pace.per_s() is None
    assert pace.retry_after_s(10_000) == UNKNOWN_S
    pace.note()
    assert pace.retry_after_s(10_000) == UNKNOWN_S


def test_a_tenth_of_the_queue_at_the_measured_rate() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    for _ in range(21):
        pace.note()
        clock.advance(0.5)

    assert round(pace.per_s() or 0, 1) == 1.9
    assert pace.retry_after_s(1000) == 52.0
    assert pace.retry_after_s(1) == 1.0
    assert pace.retry_after_s(100_000) == MOST_S


def test_only_what_was_done_last_counts() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    for _ in range(10):
        pace.note()
        clock.advance(60.0)
    for _ in range(300):
        pace.note()
        clock.advance(0.01)

    assert 99 < (pace.per_s() or 0) < 101


def test_the_pace_falls_while_nothing_is_done_and_a_burst_is_no_division_by_zero() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    for _ in range(100):
        pace.note()
    burst = pace.per_s()
    clock.advance(100.0)

    assert burst == 990.0
    assert pace.per_s() == 0.99
    assert pace.retry_after_s(1000) == 101.0
