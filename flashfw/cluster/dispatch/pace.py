"""How fast work is done, measured, and from that when it is worth to come again."""

from __future__ import annotations

from collections import deque

from flashfw.cluster.clock import Clock

SHARE = 0.1
"""How much of a full queue is to have drained when a caller that was refused comes again."""
LEAST_S, MOST_S = 1.0, 300.0
UNKNOWN_S = 10.0
"""The answer before anything was measured."""
_REMEMBERED = 256
_SHORTEST_S = 0.1


class Pace:
    """The rate of what was done last: `note` each, ask `retry_after_s`.

    It is measured over the last 256, up to now: it falls while nothing is done.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self) -> None:
        """One more is done."""
        self._done.append(self._clock.monotonic())

    def per_s(self) -> float | None:
        """How many are done in a second; None before there are two to measure between."""
        if len(self._done) < 2:
            return None
        return (len(self._done) - 1) / max(_SHORTEST_S, self._clock.monotonic() - self._done[0])

    def retry_after_s(self, waiting: int) -> float:
        """Seconds until about a tenth of what waits has been done: from 1 to 300, whole."""
        rate = self.per_s()
        if rate is None:
            return UNKNOWN_S
        return clamped(waiting * SHARE / rate)


def clamped(seconds: float) -> float:
    """A pause that is worth to be told to a caller: whole seconds, from 1 to 300.

    >>> clamped(0.0), clamped(12.4), clamped(9000.0)
    (1.0, 12.0, 300.0)
    """
    return float(round(min(max(seconds, LEAST_S), MOST_S)))
