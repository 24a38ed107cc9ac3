from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from flashfw.cluster.clock import Clock, ManualClock, SystemClock, limit, sleep

pytestmark = pytest.mark.anyio


def test_a_manual_clock_calls_back_in_order_of_time_and_at_that_time() -> None:
    clock = ManualClock(100.0)
    heard: list[tuple[str, float]] = []
    clock.call_later(3.0, lambda: heard.append(("third", clock.now())))
    clock.call_later(1.0, lambda: clock.call_later(1.0, lambda: heard.append(("second", clock.now()))))
    clock.call_later(1.0, lambda: heard.append(("first", clock.monotonic())))
    clock.call_later(2.0, lambda: heard.append(("never", clock.now()))).cancel()

    clock.advance(2.5)
    assert heard == [("first", 101.0), ("second", 102.0)]
    clock.advance(2.5)

    assert heard[2:] == [("third", 103.0)]
    assert clock.now() == 105.0


async def test_a_block_is_limited_by_the_clock_that_is_passed_in() -> None:
    clock = ManualClock()
    with limit(clock, 5.0) as scope:
        clock.advance(4.9)
        await anyio.lowlevel.checkpoint()
        clock.advance(0.2)
        await anyio.sleep_forever()

    assert scope.cancelled_caught


@pytest.mark.parametrize("clock", [ManualClock(), SystemClock()])
async def test_a_block_that_ends_in_time_leaves_no_timer(clock: Clock) -> None:
    with limit(clock, 0.001) as scope:
        pass
    if isinstance(clock, ManualClock):
        clock.advance(1)
    await sleep(SystemClock(), 0.002)

    assert not scope.cancel_called
    with limit(clock, None) as scope:
        await anyio.lowlevel.checkpoint()
    assert not scope.cancel_called


async def test_sleep_ends_by_the_clock() -> None:
    clock = ManualClock()
    woke = anyio.Event()

    async def nap() -> None:
        await sleep(clock, 10.0)
        woke.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(nap)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        clock.advance(9.0)
        await anyio.lowlevel.checkpoint()
        assert not woke.is_set()
        clock.advance(1.0)
        await woke.wait()
