"""The ends of many runs' time, of which nearly none comes: one timer for all that have as much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from flashfw.cluster.clock import Clock, Timer

T = TypeVar("T")

EMPTY_LINES = 64
"""With more lines than this an empty one does not wait for whoever comes next: callers may ask for any time."""


class Deadlines(Generic[T]):
    """Calls `on_due` with what was added once its time is over, unless it was removed before.

    Those with as much time are due in the order in which they were added, so that only the first of them has a timer;
    one that is removed leaves it as it is. To set and to cancel a timer for each costs more than to begin a run.
    """

    def __init__(self, clock: Clock, on_due: Callable[[T], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._lines: dict[float, _Line[T]] = {}

    def add(self, item: T, seconds: float) -> None:
        """Its time begins now."""
        line = self._lines.get(seconds)
        if line is None:
            line = self._lines[seconds] = _Line(seconds)
        line.due[item] = self._clock.monotonic() + seconds
        if line.timer is None:
            self._set(line, seconds)

    def remove(self, item: T, seconds: float) -> None:
        """It needs no more time; nothing happens if it is not there (any more)."""
        line = self._lines.get(seconds)
        if line is None:
            return
        line.due.pop(item, None)
        if not line.due and len(self._lines) > EMPTY_LINES and line.timer is not None:
            line.timer.cancel()
            del self._lines[seconds]

    def _set(self, line: _Line[T], seconds: float) -> None:
        line.timer = self._clock.call_later(seconds, lambda: self._look(line))

    def _look(self, line: _Line[T]) -> None:
        """Call for those whose time is over, and look again when that of the next one is."""
        line.timer = None
        now = self._clock.monotonic()
        late = []
        for item, due in line.due.items():
            if due > now:
                self._set(line, due - now)
                break
            late.append(item)
        else:
            del self._lines[line.seconds]
        for item in late:
            del line.due[item]
        for item in late:
            self._on_due(item)


class _Line(Generic[T]):
    """Those with as many seconds, first come first due."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.due: dict[T, float] = {}
        self.timer: Timer | None = None
