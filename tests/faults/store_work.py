"""Callers and workers of a store that may refuse, as a dispatcher would treat it, and what became of every job."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.model import Claimer, Job, State
from flashfw.cluster.jobs.store import JobStore, StoreError
from tests.cluster.jobs.conformance import BROKEN, DONE, ROOM, a_job
from tests.faults.books import Books

T = TypeVar("T")

BY = Claimer(boot="boot-1", worker="w")
HOOK = "https://example.com/hook"
PAUSE_S = 0.001
KEPT_S = 1e9


class Work:
    """Jobs submitted and done until all have ended. What a store refuses must have changed nothing."""

    def __init__(self, store: JobStore, clock: ManualClock, books: Books, *, seed: int) -> None:
        self.refusals = 0
        self._store = store
        self._clock = clock
        self._books = books
        self._random = random.Random(seed)
        self._accepted: dict[str, Job] = {}
        self._refused: set[str] = set()

    async def play(self, *, jobs: int, fault: Callable[[], Awaitable[None]], step: float = 0.0) -> None:
        """Submit jobs and do them while `fault` is struck again and again; the clock goes `step` on at each try."""
        self._books.watch()
        calling = [asyncio.ensure_future(self._call(jobs // 4)) for _ in range(4)]
        done = asyncio.gather(*calling)
        working = [asyncio.ensure_future(self._do(done)) for _ in range(3)]
        while not done.done():
            await fault()
        await done
        await asyncio.gather(*working)
        await self._settle(step)

    def check(self) -> None:
        """Every accepted job is there and has ended once, and nothing else is."""
        states, ends = self._books.states(), self._books.ends()
        assert set(states) == set(self._accepted)
        assert not self._refused & set(states)
        assert {state for state in states.values() if not State(state).is_terminal} == set()
        assert ends == dict.fromkeys(self._accepted, 1)

    async def check_deliveries(self) -> None:
        """Each end of a job with a webhook is there to be delivered, once."""
        found = await self._store.deliveries(limit=ROOM, lease_s=1e6)
        owed = [job.id for job in self._accepted.values() if job.webhook]
        assert sorted(delivery.job.id for delivery in found) == sorted(owed)
        assert {delivery.job.state.is_terminal for delivery in found} <= {True}

    async def _call(self, jobs: int) -> None:
        for _ in range(jobs):
            hook, delay = self._random.choice([None, HOOK]), self._random.choice([0.0, 0.0, 2.0])
            size = self._random.choice([10, 10, 20_000])
            times = {"available_at": self._clock.now() + delay, "result_ttl_s": KEPT_S}
            job = a_job(self._clock, input=bytes(size), webhook=hook, **times)
            claim = self._random.choice([None, BY])
            try:
                kept = await self._store.submit(job, max_queue=ROOM, claim=claim)
            except StoreError:
                self.refusals += 1
                self._refused.add(job.id)
                await asyncio.sleep(PAUSE_S)
                continue
            self._accepted[kept.id] = kept
            if kept.state is State.IN_PROGRESS:
                await self._end(kept)

    async def _do(self, calling: asyncio.Future[object]) -> None:
        while not calling.done():
            await self._insist(self._store.unpark)
            for job in await self._insist(lambda: self._store.claim(["gpu"], BY, limit=2)):
                await self._end(job)
            await self._insist(self._store.expire)
            await asyncio.sleep(PAUSE_S)

    async def _end(self, job: Job) -> None:
        """Nobody else has this claim: whatever is written with it, in however many tries, is written."""
        store, again_at = self._store, self._clock.now() + self._random.choice([0.0, 1.0, 5.0])
        ways: list[Callable[[], Awaitable[Job | None]]] = [
            lambda: store.finish(job.id, job.fence, DONE),
            lambda: store.finish(job.id, job.fence, BROKEN),
            lambda: store.cancel(job.id),
            lambda: store.lose(job.id, job.fence, b"{}", alone=True),
            lambda: store.release(job.id, job.fence),
            lambda: store.reschedule(job.id, job.fence, b"{}", again_at),
        ]
        assert await self._insist(self._random.choice(ways)) is not None

    async def _settle(self, step: float) -> None:
        """The fault is over: everything that waits can be done, and nothing is in anybody's hands."""
        for _ in range(200):
            self._clock.advance(step)
            await self._store.unpark()
            await self._store.expire()
            while jobs := await self._store.claim(["gpu"], BY, limit=50):
                for job in jobs:
                    assert await self._store.finish(job.id, job.fence, DONE) is not None
            counts = {count.state for count in await self._store.counts()}
            if not counts & {State.IN_QUEUE, State.IN_PROGRESS}:
                return
        raise AssertionError(f"jobs are stuck: {await self._store.counts()}")

    async def _insist(self, change: Callable[[], Awaitable[T]]) -> T:
        while True:
            with suppress(StoreError):
                return await change()
            self.refusals += 1
            await asyncio.sleep(PAUSE_S)
