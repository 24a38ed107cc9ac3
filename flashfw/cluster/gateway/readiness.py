"""Whether a server should be sent requests now, and if not, why: what load balancers and people ask for."""

from __future__ import annotations

import anyio

from flashfw.cluster.clock import Clock
from flashfw.cluster.events import Event
from flashfw.cluster.jobs.store import JobStore, StoreError

STORE_FAILED_FOR_S = 5.0
"""How long one failure of the store counts, if nobody says before that it works again."""

ASK_STORE_S = 2.0
"""A database that takes longer to tell of a job is none to send requests to."""


class Readiness:
    """Why a server is not ready. `take` is an `Emit`: events tell how the job store does.

    >>> readiness = Readiness(clock, "starting")
    >>> readiness.phase = None
    """

    def __init__(self, clock: Clock, phase: str | None = None) -> None:
        self.phase = phase
        """What the server does instead of serving (`starting`, `draining`); None while it serves."""
        self._clock = clock
        self._store_failed: tuple[float, str] | None = None

    def take(self, event: Event) -> None:
        """Note how the store does."""
        if event.name == "store_failed":
            self._store_failed = (self._clock.monotonic(), str(event.fields["error"]))
        elif event.name == "store_back":
            self._store_failed = None

    async def reason(self, store: JobStore) -> str | None:
        """Why it is not ready, or None. The store is asked for a job that nobody has, so that it has to answer."""
        if self.phase is not None:
            return self.phase
        if self._store_failed is not None:
            since, error = self._store_failed
            if self._clock.monotonic() - since < STORE_FAILED_FOR_S:
                return f"the job store fails: {error}"
            self._store_failed = None
        try:
            with anyio.move_on_after(ASK_STORE_S) as asking:
                await store.peek("ready")
        except StoreError as error:
            return f"the job store fails: {error}"
        return f"the job store does not answer within {ASK_STORE_S:g} s" if asking.cancelled_caught else None
