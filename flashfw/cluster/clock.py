"""Time as a value that is passed in: what it is, and waiting for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Do not call; nothing happens if that was done already."""
        ...


class Clock(Protocol):
    """Tells the time; tests pass one that stands still until told otherwise."""

    def now(self) -> float:
        """Seconds since the epoch, for records."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for durations."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back on the running loop once so much time has passed."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


class ManualClock:
    """A clock that moves when told: `advance(seconds)`, which calls back what is due on the way."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self.time = start
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self.time + seconds, next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        until = self.time + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self.time = max(self.time, when)
            timer.fire()
        self.time = until


class _ManualTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


@contextmanager
def limit(clock: Clock, seconds: float | None) -> Iterator[anyio.CancelScope]:
    """Give the block so much time, or any if None; `cancelled_caught` of the scope tells that it was too little."""
    with anyio.CancelScope() as scope:
        timer = None if seconds is None else clock.call_later(seconds, scope.cancel)
        try:
            yield scope
        finally:
            if timer is not None:
                timer.cancel()


async def sleep(clock: Clock, seconds: float) -> None:
    """Return once so much time has passed."""
    with limit(clock, seconds):
        await anyio.sleep_forever()
