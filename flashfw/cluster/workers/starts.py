"""How starts went: when the next may be tried, and why nobody should wait for one."""

from __future__ import annotations

from flashfw.cluster.clock import Clock
from flashfw.worker.frames import Failure

MAX_BACKOFF_S = 300.0


class Starts:
    """The failed starts of a release that has not been ready since. Lives as long as its pool.

    The first `patience` of them make the endpoint unhealthy, and `failure` says why; from then on each start waits
    twice as long as the one before.
    """

    def __init__(self, clock: Clock, *, patience: int) -> None:
        self.failures = 0
        self.failure: Failure | None = None
        self.blocked_until = 0.0
        self._clock = clock
        self._patience = patience

    @property
    def retry_in_s(self) -> float:
        """How long until a worker may be started again; 0 if that is now."""
        return max(0.0, self.blocked_until - self._clock.monotonic())

    @property
    def is_held_back(self) -> bool:
        """Whether nothing may be started now."""
        return self._clock.monotonic() < self.blocked_until

    def failed(self, failure: Failure) -> bool:
        """Count a failed start; whether the endpoint is unhealthy now."""
        self.failures += 1
        excess = self.failures - self._patience
        pause_s = min(2.0 ** min(excess, 16), MAX_BACKOFF_S) if excess >= 0 else 0.0
        self.blocked_until = self._clock.monotonic() + pause_s
        if excess >= 0:
            self.failure = failure
        return excess >= 0

    def reset(self) -> None:
        """A worker is ready, or another release came: what failed before says nothing any more."""
        self.failures = 0
        self.try_now()

    def try_now(self) -> None:
        """Somebody may have mended it."""
        self.blocked_until = 0.0
        self.failure = None
