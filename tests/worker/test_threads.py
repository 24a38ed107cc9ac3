from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from flashfw.worker.threads import Threads

WAIT_S = 10.0
VALUE: contextvars.ContextVar[int] = contextvars.ContextVar("value")


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, WAIT_S))


def test_one_thread_does_all_in_order() -> None:
    threads, done = Threads(1), []

    async def work() -> None:
        for n in range(100):
            threads.submit(lambda n=n: done.append((n, threading.current_thread().name)))  # type: ignore[misc]
        await threads.run(lambda: None)

    run(work())
    threads.close()
    assert done == [(n, "flashfw-user-1") for n in range(100)]


def test_threads_start_when_needed_and_no_more_than_asked() -> None:
    threads, barrier = Threads(3), threading.Barrier(3)

    async def work() -> set[str]:
        for _ in range(3):
            assert await threads.run(lambda: threading.current_thread().name) == "flashfw-user-1"
            while not threads._unclaimed:  # noqa: ASYNC110 - its answer is here before it waits for work again
                await asyncio.sleep(0)

        def meet() -> str:
            barrier.wait(WAIT_S)
            return threading.current_thread().name

        return set(await asyncio.gather(*(threads.run(meet) for _ in range(6))))

    assert run(work()) == {"flashfw-user-1", "flashfw-user-2", "flashfw-user-3"}
    threads.close()


def test_errors_and_context_travel() -> None:
    threads = Threads(1)

    async def work() -> None:
        VALUE.set(5)
        assert await threads.run(VALUE.get) == 5
        assert await threads.run(divmod, 7, 2) == (3, 1)
        for error in (ValueError("x"), SystemExit(3), StopIteration(1)):
            with pytest.raises((ValueError, SystemExit, RuntimeError)) as raised:
                await threads.run(_raise, error)
            assert error in (raised.value, raised.value.__cause__)

    run(work())
    threads.close()


def test_a_cancelled_caller_waits_for_the_end() -> None:
    threads, begun, release, ended = Threads(1), threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        release.wait(WAIT_S)
        ended.set()
        raise ValueError("nobody hears this")

    async def work() -> None:
        task = asyncio.ensure_future(threads.run(slow))
        await asyncio.to_thread(begun.wait, WAIT_S)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    run(work())
    threads.close()


def _raise(error: BaseException) -> None:
    raise error
