"""What a write came to: told at once, to all, whatever one of them makes of it."""

from __future__ import annotations

import asyncio

import pytest

from flashfw.cluster.jobs.answer import Answer, told
from flashfw.cluster.jobs.lane import Outcome

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def heard(answer: Answer[int], told: list[int]) -> None:
    answer.add_done_callback(lambda done: told.append(done.result()))


async def test_it_is_told_by_settle_itself_in_order_and_at_once_afterwards() -> None:
    answer: Answer[int] = Answer()
    told: list[int] = []
    heard(answer, told)
    answer.add_done_callback(lambda _: told.append(-1))

    assert not answer.done()
    answer.settle(Outcome(7))
    heard(answer, told)

    assert answer.done()
    assert told == [7, -1, 7]
    assert await answer == 7


async def test_its_error_is_raised_to_whoever_awaits_it() -> None:
    answer: Answer[int] = Answer()
    waiting = asyncio.ensure_future(asyncio.wait_for(answer, 5))
    await asyncio.sleep(0)

    answer.settle(Outcome(error=KeyError("mine")))

    with pytest.raises(KeyError, match="mine"):
        await waiting
    assert isinstance(answer.exception(), KeyError)


async def test_a_task_that_is_cancelled_takes_it_from_no_other() -> None:
    answer: Answer[int] = Answer()
    first, second = (asyncio.ensure_future(asyncio.shield(answer)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)

    answer.settle(Outcome(7))

    assert first.cancelled()
    assert await second == 7


async def test_a_listener_that_fails_is_told_of_and_keeps_nobody_else_from_hearing() -> None:
    failures: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    answer: Answer[int] = Answer()
    told: list[int] = []
    answer.add_done_callback(lambda _: 1 / 0)
    heard(answer, told)

    answer.settle(Outcome(7))

    loop.set_exception_handler(None)
    assert told == [7]
    assert [type(failure) for failure in failures] == [ZeroDivisionError]


async def test_before_it_is_settled_it_has_no_result() -> None:
    answer: Answer[int] = Answer()

    with pytest.raises(asyncio.InvalidStateError):
        answer.result()


async def test_what_a_store_only_makes_awaitable_is_told_too() -> None:
    async def seven() -> int:
        return 7

    answer: Answer[int] = Answer()

    assert told(answer) is answer
    assert await told(seven()) == 7
