"""Where synchronous user code runs: one thread at concurrency 1, else as many as calls at once."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[], None]


class Threads:
    """Threads that start when they are first needed, take work in order, and are not waited for at exit."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._unclaimed = 0
        """Threads that wait for work, less the work that waits for them."""

    def submit(self, work: Work) -> None:
        """Runs `work` soon. It must not raise."""
        with self._lock:
            self._unclaimed -= 1
            if self._unclaimed < 0 and self._started < self._size:
                self._begin()
        self._queue.put(work)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """What `function(*args)` returns or raises, in the context of the caller.

        A cancelled caller waits until the function has ended: user code is never left running unseen.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        self.submit(lambda: _settle(loop, done, lambda: context.run(function, *args)))
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await _ended(done)
            raise

    def close(self) -> None:
        """Lets the threads end once they have done what was submitted."""
        with self._lock:
            for _ in range(self._started):
                self._queue.put(None)

    def _begin(self) -> None:
        self._started += 1
        self._unclaimed += 1
        threading.Thread(target=self._work, name=f"flashfw-user-{self._started}", daemon=True).start()

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            del work  # keeps no result of a finished call alive
            with self._lock:
                self._unclaimed += 1


def carried(error: BaseException) -> BaseException:
    """What user code raised, as a future or a coroutine can carry it."""
    if not isinstance(error, StopIteration):
        return error
    failure = RuntimeError(f"user code raised StopIteration({error.value!r})")
    failure.__cause__ = error
    return failure


def _settle(loop: asyncio.AbstractEventLoop, done: asyncio.Future[T], run: Callable[[], T]) -> None:
    try:
        result = run()
    except BaseException as error:  # carried to the caller, who tells it
        loop.call_soon_threadsafe(_set_exception, done, carried(error))
    else:
        loop.call_soon_threadsafe(_set_result, done, result)


def _set_result(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _set_exception(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


async def _ended(done: asyncio.Future[Any]) -> None:
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:  # asked again; the thread still runs
            continue
    if not done.cancelled():
        done.exception()  # seen: the cancel is what the caller hears of
