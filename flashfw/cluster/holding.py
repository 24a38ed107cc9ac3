"""Brings HTTP calls of one endpoint to its workers: in memory, first come first served, held while none is ready."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from anyio.abc import TaskGroup

from flashfw.cluster.pool import Demand, NoWorker, Pool
from flashfw.cluster.site import Site
from flashfw.cluster.workers import Worker
from flashfw.errors import FlashfwError
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Failure


class HoldingFull(FlashfwError):
    """As many calls as `max_queue` allows are held already."""


class HeldTooLong(FlashfwError):
    """No worker was ready within `start_timeout`."""


@dataclass(frozen=True, slots=True)
class _Held:
    worker: asyncio.Future[Worker]
    since: float


class HttpDispatcher:
    """The HTTP calls of one endpoint. Its workers are in `pool`; lives as long as the endpoint is served."""

    def __init__(self, endpoint: Endpoint, *, site: Site, tasks: TaskGroup) -> None:
        self.pool = Pool(endpoint, site, self, tasks)
        self._site = site
        self._held: deque[_Held] = deque()

    @property
    def endpoint(self) -> Endpoint:
        return self.pool.endpoint

    async def run(self) -> None:
        """Keep workers, until cancelled."""
        await self.pool.run()

    def apply(self, endpoint: Endpoint) -> None:
        """Serve a new release."""
        self.pool.apply(endpoint)

    async def take(self) -> Worker:
        """A worker with a slot reserved for this call, at once or after holding it.

        Raises:
            HoldingFull: `max_queue` calls are held already.
            HeldTooLong: none was ready within `start_timeout`.
            NoWorker: workers fail to start.
        """
        if not self._held and (worker := self.pool.take()):
            return worker
        if self.pool.failure is not None and not self._site.retries_at_call:
            raise NoWorker(self.pool.failure)
        if len(self._held) >= self.endpoint.max_queue:
            raise HoldingFull(f"{len(self._held)} calls of {self.endpoint.id} wait already")
        held = _Held(asyncio.get_running_loop().create_future(), self._site.clock.monotonic())
        self._held.append(held)
        if self._site.retries_at_call:
            self.pool.try_again()
        self.pool.nudge()
        try:
            return await asyncio.wait_for(held.worker, self.endpoint.start_timeout_s)
        except asyncio.TimeoutError:
            raise HeldTooLong(f"no worker of {self.endpoint.id} was ready in time") from None
        except asyncio.CancelledError:
            if held.worker.done() and not held.worker.cancelled():
                self.pool.give_back(held.worker.result())
                self.on_free()
            raise
        finally:
            if held in self._held:
                self._held.remove(held)

    def demand(self) -> Demand:
        if not self._held:
            return Demand(queued=0, oldest_wait_s=0.0)
        waited = self._site.clock.monotonic() - self._held[0].since
        return Demand(queued=len(self._held), oldest_wait_s=waited)

    def on_free(self) -> None:
        while self._held and (worker := self.pool.take()):
            held = self._held.popleft().worker
            if held.done():
                self.pool.give_back(worker)
            else:
                held.set_result(worker)

    def on_start_failed(self, failure: Failure) -> None:
        if self.pool.serves:
            return
        while self._held:
            self._held.popleft().worker.set_exception(NoWorker(failure))
