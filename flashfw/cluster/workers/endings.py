"""The end of workers: drained, ended at once, or killed for what they did."""

from __future__ import annotations

from collections.abc import Collection

from anyio.abc import TaskGroup

from flashfw.cluster.clock import Clock, limit
from flashfw.cluster.jobs.model import Reason
from flashfw.cluster.workers.worker import Worker
from flashfw.worker.frames import Kind


class Endings:
    """Ends the workers of one pool. Lives as long as the pool, whose `tasks` see to the time that they are given."""

    def __init__(self, clock: Clock, tasks: TaskGroup) -> None:
        self._clock = clock
        self._tasks = tasks

    def drain(self, worker: Worker, why: str) -> None:
        """Give a worker no further call, and end it once it has done what it has, or `drain_timeout` is over."""
        if worker.is_stopping:
            return
        worker.is_stopping = True
        worker.why_stopped = why
        if worker.ready is None:
            self.end(worker, why)
            return
        worker.send(Kind.DRAIN)
        self._tasks.start_soon(self._end_after, worker, worker.endpoint.drain_timeout_s, why)

    def end(self, worker: Worker, why: str) -> None:
        """End a worker now; what it holds goes back to the queue without a death counted."""
        worker.why_stopped = worker.why_stopped or why
        worker.is_stopping = True
        worker.starting.cancel()
        if worker.process is not None:
            worker.process.kill()

    def kill(self, worker: Worker, reason: Reason, why: str) -> None:
        """End a worker that is at fault: the deaths of its jobs count."""
        if worker.killed_for is None and worker.process is not None:
            worker.killed_for = (reason, why)
            worker.process.kill()

    async def all_gone(self, workers: Collection[Worker], grace_s: float | None, why: str) -> None:
        """Drain these, end what is left after `grace_s` if that is a time, and wait until their processes are gone."""
        for worker in workers:
            self.drain(worker, why)
        with limit(self._clock, grace_s):
            for worker in workers:
                await worker.gone.wait()
        for worker in workers:
            self.end(worker, why)
        for worker in workers:
            await worker.gone.wait()

    async def _end_after(self, worker: Worker, seconds: float, why: str) -> None:
        with limit(self._clock, seconds):
            await worker.gone.wait()
        self.end(worker, why)
