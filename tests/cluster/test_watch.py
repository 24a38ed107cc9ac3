from __future__ import annotations

import asyncio

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.watch import Watch
from tests.cluster.jobs.conformance import a_job

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def waiting(clock: ManualClock, task: asyncio.Task[object]) -> None:
    """Let the task run until it waits."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()


async def test_a_ring_is_heard_by_every_reader_of_the_job_and_by_no_other(clock: ManualClock) -> None:
    watch = Watch(clock)
    with watch.seat("a") as first, watch.seat("a") as second, watch.seat("b") as other:
        watch.ring("a")
        watch.ring("nobody's")

        assert [await first.wait(1.0), await second.wait(1.0)] == [True, True]
        task = asyncio.ensure_future(other.wait(1.0))
        await waiting(clock, task)
        clock.advance(1.0)
        assert await task is False


async def test_a_ring_before_the_wait_is_not_missed_and_counts_once(clock: ManualClock) -> None:
    with Watch(clock).seat("a") as seat:
        seat.ring(None)
        seat.ring(None)
        assert await seat.wait(1.0)
        task = asyncio.ensure_future(seat.wait(1.0))
        await waiting(clock, task)
        seat.ring(None)
        assert await task


async def test_who_only_follows_is_dismissed_before_those_who_wait_for_the_end(clock: ManualClock) -> None:
    watch = Watch(clock)
    with watch.seat("a", follows=True) as follower, watch.seat("a") as caller:
        watch.dismiss_followers()
        with watch.seat("b", follows=True) as late:
            assert [follower.is_dismissed, caller.is_dismissed, late.is_dismissed] == [True, False, True]
        watch.dismiss()
        assert caller.is_dismissed


async def test_the_end_is_awaited_through_other_changes_and_no_longer_than_asked(clock: ManualClock) -> None:
    with Watch(clock).seat("a") as seat:
        task: asyncio.Task[Job | None] = asyncio.ensure_future(seat.end(10.0))
        for pause in (4.0, 4.0, 1.9):
            await waiting(clock, task)
            clock.advance(pause)
            seat.ring(None)
        await waiting(clock, task)
        clock.advance(0.2)
        assert await task is None


async def test_the_terminal_record_is_handed_over(clock: ManualClock) -> None:
    watch, job = Watch(clock), a_job(clock)
    with watch.seat(job.id) as seat:
        task = asyncio.ensure_future(seat.end(10.0))
        await waiting(clock, task)
        watch.ring(job.id, job)
        assert await task is job
        assert await seat.end(0.0) is job


async def test_seats_are_given_back_however_their_reader_leaves(clock: ManualClock) -> None:
    watch = Watch(clock)

    async def read() -> None:
        with watch.seat("a") as seat:
            await seat.wait(100.0)

    task = asyncio.ensure_future(read())
    await waiting(clock, task)
    assert watch.watched() == ["a"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert watch.watched() == []


async def test_who_waits_for_an_end_is_sent_away_when_the_server_ends(clock: ManualClock) -> None:
    watch = Watch(clock)
    with watch.seat("early") as early:
        task = asyncio.create_task(early.end(3600.0))
        await waiting(clock, task)
        watch.dismiss()
        assert await task is None
    with watch.seat("late") as late:
        assert await late.end(3600.0) is None
