"""What a write came to, told in the turn of the loop in which it is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from flashfw.cluster.jobs.lane import Outcome

T = TypeVar("T")


class Answer(Generic[T]):
    """A future that nobody can cancel, and whose callbacks are called by `settle` itself, in their order.

    A real one has each called in the loop's next turn, and every turn asks the system for news. It may be awaited by
    any number of tasks; one that is cancelled meanwhile changes nothing for the others.
    """

    __slots__ = ("_callbacks", "_outcome")

    def __init__(self) -> None:
        self._outcome: Outcome | None = None
        self._callbacks: list[Callable[[Answer[T]], object]] = []

    def add_done_callback(self, callback: Callable[[Answer[T]], object]) -> None:
        """Have it called with this answer once that is settled; at once if it is."""
        if self._outcome is None:
            self._callbacks.append(callback)
        else:
            self._call(callback)

    def settle(self, outcome: Outcome) -> None:
        """This is what it came to; once."""
        self._outcome = outcome
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._call(callback)

    def done(self) -> bool:
        """Whether it is settled."""
        return self._outcome is not None

    def cancelled(self) -> bool:
        """Never."""
        return False

    def exception(self) -> Exception | None:
        """The error that it ended with, if it did."""
        return self._settled().error

    def result(self) -> T:
        """What was written, or its error raised."""
        value, error = self._settled()
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def __await__(self) -> Generator[Any, None, T]:
        if self._outcome is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._callbacks.append(lambda _: _wake(waiter))
            yield from waiter
        return self.result()

    def _settled(self) -> Outcome:
        if self._outcome is None:
            raise asyncio.InvalidStateError("it is not settled")
        return self._outcome

    def _call(self, callback: Callable[[Answer[T]], object]) -> None:
        try:
            callback(self)
        except Exception as error:  # as of a future: it is told, and keeps nobody else from hearing
            context = {"message": f"an answer could not be told to {callback!r}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # its task may have been cancelled
        waiter.set_result(None)


def told(asked: Awaitable[T]) -> asyncio.Future[T] | Answer[T]:
    """What a store was asked for as something with callbacks, whatever the store makes of it."""
    return asked if isinstance(asked, Answer) else asyncio.ensure_future(asked)
