"""A thread that answers a loop: order, batches, errors, and an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from flashfw.cluster.jobs.lane import BATCH, Call, Lane, Outcome

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Recorder:
    """Does calls and keeps the sizes of the batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.began = threading.Event()

    def __call__(self, calls: Sequence[Call]) -> list[Outcome]:
        self.batches.append(len(calls))
        self.began.set()
        return [Outcome(call.do(*call.arguments)) for call in calls]


async def test_what_arrives_while_the_thread_is_busy_is_done_together_and_in_order() -> None:
    execute, busy, done = Recorder(), threading.Event(), []
    lane = Lane(execute, name="lane")
    first = lane.call(busy.wait)
    await asyncio.to_thread(execute.began.wait)
    rest = [lane.call(done.append, number) for number in range(BATCH + 3)]
    busy.set()
    await asyncio.gather(first, *rest)
    await lane.close()

    assert done == list(range(BATCH + 3))
    assert execute.batches == [1, BATCH, 3]


async def test_a_batch_that_breaks_down_is_an_error_for_each_and_the_thread_goes_on() -> None:
    broken = [True]

    def execute(calls: Sequence[Call]) -> list[Outcome]:
        if broken.pop():
            raise MemoryError("no more")
        return [Outcome("fine") for _ in calls]

    lane = Lane(execute, name="lane")
    with pytest.raises(MemoryError):
        await lane.call(print)
    broken.append(False)
    assert await lane.call(print) == "fine"
    await lane.close()


async def test_closing_does_what_waits_and_ends_the_thread() -> None:
    lane = Lane(Recorder(), name="lane that ends")
    answers = [lane.call(int, number) for number in range(10)]
    await lane.close()

    assert [await answer for answer in answers] == list(range(10))
    assert "lane that ends" not in {thread.name for thread in threading.enumerate()}


def test_a_lane_outlives_its_loop_quietly() -> None:
    async def leave() -> Lane:
        lane = Lane(execute, name="lane")
        lane.call(gone.wait)
        return lane

    execute, gone = Recorder(), threading.Event()
    lane = asyncio.run(leave())
    gone.set()
    lane._waiting.put(None)
    lane._thread.join()
    assert execute.batches == [1]
