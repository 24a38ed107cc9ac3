"""What waits for the workers of one endpoint: how much, how long, and when there is something to claim next."""

from __future__ import annotations

import math

from flashfw.cluster.clock import Clock
from flashfw.cluster.dispatch.batching import Batching
from flashfw.cluster.jobs.store import JobStore, Pending
from flashfw.cluster.workers.customer import Demand
from flashfw.manifest import Endpoint

POLL_S = 0.5
OLDEST_REFRESH_S = 0.1


class Backlog:
    """The queues of one endpoint's functions. `batching` says which of them go together."""

    def __init__(self, endpoint: Endpoint, store: JobStore, clock: Clock) -> None:
        self.batching = Batching(store, clock)
        self._store = store
        self._clock = clock
        self._oldest: float | None = None
        self._oldest_at = -math.inf
        self._unpark_at = math.inf
        self.apply(endpoint)

    def apply(self, endpoint: Endpoint) -> None:
        """Go by a new release."""
        self.functions = frozenset(function.id for function in endpoint.functions)
        self.batching.apply(endpoint)

    def pending(self) -> Pending:
        """How many jobs wait now."""
        return self._store.pending(self.functions)

    def ready(self) -> frozenset[str]:
        """The functions whose jobs may be claimed now."""
        return self.batching.ready(self.functions)

    def demand(self) -> Demand:
        """What waits, as the autoscaler sees it."""
        oldest_wait_s = 0.0 if self._oldest is None else max(0.0, self._clock.now() - self._oldest)
        pending = self.pending()
        queued = pending.claimable - pending.low
        slots = self.batching.slots(self.functions) if self.batching else queued
        return Demand(queued=queued, oldest_wait_s=oldest_wait_s, slots=slots, low=pending.low, parked=pending.parked)

    def patience_s(self) -> float | None:
        """How long nothing has to be looked at, if nobody wakes us: None for ever."""
        pending = self.pending()
        pauses = [POLL_S] if pending.claimable else []
        if pending.parked and self._unpark_at < math.inf:
            pauses.append(max(0.0, self._unpark_at - self._clock.now()))
        if (due_s := self.batching.next_due_s()) is not None:
            pauses.append(due_s)
        return min(pauses, default=None)

    def parked(self, until: float) -> None:
        """A job waits for a retry until then (epoch seconds)."""
        self._unpark_at = min(self._unpark_at, until)

    async def unpark(self) -> bool:
        """Let those be claimed whose wait for a retry is over, and learn when the next one's is; False if none."""
        is_known = self._clock.now() < self._unpark_at < math.inf
        if is_known or not self.pending().parked:
            return False
        self._unpark_at = math.inf
        self._unpark_at = min(self._unpark_at, await self._store.unpark() or math.inf)
        return True

    async def look(self) -> None:
        """How long the first job waits, for the autoscaler; not after each claim, since it asks the database."""
        now = self._clock.monotonic()
        if not self.pending().claimable:
            self._oldest, self._oldest_at = None, -math.inf
        elif now - self._oldest_at >= OLDEST_REFRESH_S:
            self._oldest_at = now
            self._oldest = await self._store.oldest_waiting(self.functions)
