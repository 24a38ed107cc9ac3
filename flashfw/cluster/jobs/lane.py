"""A thread that does blocking calls for a loop, all that wait at once, and answers them together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

T = TypeVar("T")

BATCH = 256
"""Calls taken at once: bounds how long the first of them waits for the last."""


class Call(NamedTuple):
    """A function to be called in the lane's thread."""

    do: Callable[..., Any]
    arguments: tuple[Any, ...]


class Outcome(NamedTuple):
    """What a call returned, or the error that it ended with."""

    value: Any = None
    error: Exception | None = None


Execute = Callable[[Sequence[Call]], Sequence[Outcome]]
"""Does the calls of a batch: one outcome per call, in order."""


class Lane:
    """One thread, from its making to `close`, for the loop that is running when it is made.

    A thread per call (`asyncio.to_thread`) costs as much as the call; here a thread that is
    busy collects what arrives meanwhile, and the loop is woken once per batch.
    """

    def __init__(self, execute: Execute, *, name: str) -> None:
        self._execute = execute
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._waiting: SimpleQueue[tuple[Call, asyncio.Future[Any]] | None] = SimpleQueue()
        # A daemon, because a server that dies of an error must not hang on a thread that waits for calls.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(self, do: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Have `do(*arguments)` called in the thread, after all that was asked before."""
        answer = self._loop.create_future()
        self._waiting.put((Call(do, arguments), answer))
        return cast("asyncio.Future[T]", answer)

    def call_small(self, do: Callable[..., T], *arguments: Any, size: int = 0) -> asyncio.Future[T]:
        """As `call`: a thread minds no size."""
        return self.call(do, *arguments)

    async def close(self) -> None:
        """Do what waits and end the thread. Nothing may be called afterwards."""
        self._waiting.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _work(self) -> None:
        goes_on = True
        while goes_on:
            calls, answers, goes_on = self._take()
            self._answer(answers, self._outcomes(calls))
        self._answer([self._ended], [Outcome()])

    def _take(self) -> tuple[list[Call], list[asyncio.Future[Any]], bool]:
        calls: list[Call] = []
        answers: list[asyncio.Future[Any]] = []
        waiting = 1  # the first `get` waits for a call
        while waiting and len(calls) < BATCH:
            asked = self._waiting.get()
            if asked is None:
                return calls, answers, False
            calls.append(asked[0])
            answers.append(asked[1])
            waiting = self._waiting.qsize()
        return calls, answers, True

    def _outcomes(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        try:
            return self._execute(calls) if calls else ()
        except Exception as error:  # the thread survives, and every caller of the batch learns why
            return [Outcome(error=error)] * len(calls)

    def _answer(self, answers: Sequence[asyncio.Future[Any]], outcomes: Sequence[Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(settle, answers, outcomes)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits


def settle(answers: Sequence[asyncio.Future[Any]], outcomes: Sequence[Outcome]) -> None:
    """Give each of those who wait what its call came to, but for those who were cancelled. On their loop."""
    for answer, outcome in zip(answers, outcomes, strict=True):
        if answer.done():  # its caller was cancelled
            continue
        if outcome.error is None:
            answer.set_result(outcome.value)
        else:
            answer.set_exception(outcome.error)
