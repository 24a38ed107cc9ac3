"""Brings HTTP calls of one endpoint to its workers: in memory, first come first served, held while none is ready."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from anyio.abc import TaskGroup

from flashfw.cluster.clock import Clock
from flashfw.cluster.site import Site
from flashfw.cluster.workers.customer import NOT_SERVED, SERVER_STOPS, Demand, NoWorker
from flashfw.cluster.workers.pool import Pool
from flashfw.cluster.workers.renewing import Saved
from flashfw.cluster.workers.stage import Stage
from flashfw.cluster.workers.worker import Worker
from flashfw.errors import FlashfwError
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Failure


class HoldingFull(FlashfwError):
    """As many calls as `max_queue` allows are held already."""


class HeldTooLong(FlashfwError):
    """No worker was ready within `start_timeout`."""


class NotServed(FlashfwError):
    """The function is not served any more; it was when the call came."""


@dataclass(frozen=True, slots=True)
class _Held:
    function: str
    since: float


class HttpDispatcher:
    """The HTTP calls of one endpoint. Its workers are in `pool`; lives as long as the endpoint is served."""

    def __init__(self, endpoint: Endpoint, *, root: Path, site: Site, tasks: TaskGroup) -> None:
        self.pool = Pool(endpoint, site, self, tasks, root=root)
        self.functions = _function_ids(endpoint)
        self._site = site
        self._held: OrderedDict[asyncio.Future[Worker], _Held] = OrderedDict()

    @property
    def endpoint(self) -> Endpoint:
        return self.pool.endpoint

    @property
    def clock(self) -> Clock:
        return self._site.clock

    async def run(self) -> None:
        """Keep workers, until cancelled."""
        await self.pool.run()

    def apply(self, endpoint: Endpoint, root: Path, stage: Stage | None = None, saved: Saved = None) -> None:
        """Serve a new release, whose files lie at `root`, by the workers of `stage` if there are some already."""
        self.functions = _function_ids(endpoint)
        self.pool.apply(endpoint, root, saved) if stage is None else self.pool.switch(stage)
        self._fail({answer: held for answer, held in self._held.items() if held.function not in self.functions})

    async def retire(self) -> None:
        """Serve no more: whoever is held is told so, what runs gets `drain_timeout`."""
        await self.close(self.endpoint.drain_timeout_s, NOT_SERVED)

    async def close(self, grace_s: float, why: str = SERVER_STOPS) -> None:
        """Serve no more, and give what runs so much time."""
        self.functions = frozenset()
        self._fail(self._held)
        await self.pool.close(grace_s, why)

    async def take(self, function: str) -> Worker:
        """A worker with a slot reserved for a call of this function, at once or after holding the call.

        Raises:
            HoldingFull: `max_queue` calls are held already.
            HeldTooLong: none was ready within `start_timeout`.
            NoWorker: workers fail to start.
            NotServed: the function is gone.
        """
        if (worker := self.take_now(function)) is not None:
            return worker
        while not (worker := await self._wait(function)).serves:
            self.give_back(worker)  # it was stopped between the answer and now
        return worker

    def take_now(self, function: str) -> Worker | None:
        """A worker with a slot reserved, if there is one and nobody waits for it; else None."""
        return None if self._held else self.pool.slots.take(function)

    def give_back(self, worker: Worker) -> None:
        """Undo `take`."""
        self.pool.slots.give_back(worker)
        self.on_free()

    async def _wait(self, function: str) -> Worker:
        if function not in self.functions:
            raise _not_served(function)
        self.pool.expect_worker()
        if len(self._held) >= self.endpoint.max_queue:
            raise HoldingFull(f"{len(self._held)} calls of {self.endpoint.id} wait already")
        return await self._hold(function)

    async def _hold(self, function: str) -> Worker:
        clock = self._site.clock
        answer: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        timer = clock.call_later(self.endpoint.start_timeout_s, lambda: self._too_long(answer))
        self._held[answer] = _Held(function, clock.monotonic())
        self.pool.nudge()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self.give_back(answer.result())
            raise
        finally:
            timer.cancel()
            self._held.pop(answer, None)

    def demand(self) -> Demand:
        if not self._held:
            return Demand(queued=0, oldest_wait_s=0.0, slots=0)
        oldest = next(iter(self._held.values()))
        waiting = len(self._held)
        return Demand(queued=waiting, oldest_wait_s=self._site.clock.monotonic() - oldest.since, slots=waiting)

    def retry_after_s(self) -> float:
        """When a caller who is refused now may come again, from how fast calls are answered."""
        return self.pool.retry_after_s(len(self._held))

    def on_free(self) -> None:
        while self._held:
            answer, held = next(iter(self._held.items()))
            if answer.done():  # its client left a moment ago
                del self._held[answer]
            elif (worker := self.pool.slots.take(held.function)) is not None:
                del self._held[answer]
                answer.set_result(worker)
            else:
                return

    def on_start_failed(self, failure: Failure) -> None:
        if self.pool.refusal is None:
            return
        for answer in list(self._held):
            self._refuse(answer, NoWorker(failure))

    def _fail(self, gone: dict[asyncio.Future[Worker], _Held]) -> None:
        for answer, held in list(gone.items()):
            self._refuse(answer, _not_served(held.function))

    def _too_long(self, answer: asyncio.Future[Worker]) -> None:
        if self.pool.is_paused and not answer.done():  # a release takes over: it ends in one way or another
            self._site.clock.call_later(self.endpoint.start_timeout_s, lambda: self._too_long(answer))
            return
        self._refuse(answer, HeldTooLong(f"no worker of {self.endpoint.id} was ready in time"))

    def _refuse(self, answer: asyncio.Future[Worker], error: FlashfwError) -> None:
        self._held.pop(answer, None)
        if not answer.done():
            answer.set_exception(error)


def _not_served(function: str) -> NotServed:
    return NotServed(f"{function} is not served any more")


def _function_ids(endpoint: Endpoint) -> frozenset[str]:
    return frozenset(function.id for function in endpoint.functions)
