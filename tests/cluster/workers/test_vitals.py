"""When a pool looks at its workers again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.workers.vitals import next_look_s
from flashfw.cluster.workers.worker import Worker
from tests.cluster.bench import an_endpoint

pytestmark = pytest.mark.anyio


def a_worker(*, is_ready: bool, calls: int) -> Worker:
    worker = Worker("w-1", an_endpoint(), 1, 0.0, root=Path())
    if is_ready:
        worker.ready = {"files": [], "import_s": 0.0, "fixtures_s": 0.0}
    worker.reserved = calls
    return worker


@pytest.mark.parametrize(
    ("workers", "is_urgent", "tick_s"),
    [
        ([(True, 0), (True, 0)], False, 1.0),
        ([], True, 0.5),
        ([(True, 0)], True, 0.5),
        ([(True, 0), (False, 0)], False, 0.5),
        ([(True, 0), (True, 1)], False, 0.5),
    ],
)
async def test_pools_look_at_the_same_moments_and_idle_ones_at_every_second(
    workers: list[tuple[bool, int]], is_urgent: bool, tick_s: float
) -> None:
    made = [a_worker(is_ready=is_ready, calls=calls) for is_ready, calls in workers]
    for began in (100.0, 100.2, 100.49):
        clock = ManualClock(began)
        assert clock.monotonic() + next_look_s(clock, made, is_urgent=is_urgent) == pytest.approx(100.0 + tick_s)
