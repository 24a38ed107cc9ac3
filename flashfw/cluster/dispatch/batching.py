"""When the waiting jobs of a function that takes several at once are handed over: a full batch, or after `max_wait`."""

from __future__ import annotations

from collections.abc import Mapping

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs.store import JobStore
from flashfw.manifest import Batch, Endpoint


class Batching:
    """The functions of one endpoint that take several jobs at once, and since when the first of each waits.

    `max_wait` counts from the submission of the first job that waits: what has waited longer for a worker already
    goes with the first one that is free.
    """

    def __init__(self, store: JobStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._batches: Mapping[str, Batch] = {}
        self._due: dict[str, float] = {}

    def apply(self, endpoint: Endpoint) -> None:
        """Go by a new release."""
        self._batches = {function.id: function.batch for function in endpoint.functions if function.batch is not None}
        self._due.clear()

    def of(self, function: str) -> Batch | None:
        """How jobs of a function are handed over together, or None if each is a call of its own."""
        return self._batches.get(function)

    async def look(self) -> None:
        """Ask since when the first job of each function waits, where that decides when they go."""
        for name, batch in self._batches.items():
            if not self._waiting(name):
                self._due.pop(name, None)
            elif name not in self._due and not self._is_full(name):
                asked, now = self._clock.monotonic(), self._clock.now()  # what the store takes to answer is no wait
                oldest = await self._store.oldest_waiting((name,))
                waited_s = 0.0 if oldest is None else max(0.0, now - oldest)
                self._due[name] = asked + max(0.0, batch.max_wait_s - waited_s)

    def ready(self, functions: frozenset[str]) -> frozenset[str]:
        """Those of the functions whose jobs may be claimed now."""
        if not self._batches:
            return functions
        return frozenset(name for name in functions if name not in self._batches or self._is_due(name))

    def claimed(self, function: str) -> None:
        """A batch of it was claimed: what is left waits for others anew."""
        self._due.pop(function, None)

    def next_due_s(self) -> float | None:
        """In how many seconds the next function is ready, of those that wait for more jobs."""
        now = self._clock.monotonic()
        return min((due - now for due in self._due.values() if due > now), default=None)

    def slots(self, functions: frozenset[str]) -> int:
        """How many slots of workers the jobs that ask for workers take: a batch is one."""
        slots = 0
        for name in functions:
            pending = self._store.pending((name,))
            asking = pending.claimable - pending.low
            slots += -(-asking // self._batches[name].max_size) if name in self._batches else asking
        return slots

    def __bool__(self) -> bool:
        return bool(self._batches)

    def _is_due(self, name: str) -> bool:
        due = self._due.get(name)
        return self._is_full(name) or (due is not None and due <= self._clock.monotonic())

    def _is_full(self, name: str) -> bool:
        return self._waiting(name) >= self._batches[name].max_size

    def _waiting(self, name: str) -> int:
        return self._store.pending((name,)).claimable
