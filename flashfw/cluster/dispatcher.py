"""Brings the jobs of one endpoint to its workers: claims for free slots, keeps what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from flashfw.cluster.events import Event
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.store import JobStore, StoreError, TooLarge
from flashfw.cluster.pool import Demand, NoWorker, Pool
from flashfw.cluster.runs import Run, error_json
from flashfw.cluster.site import Site
from flashfw.cluster.watch import Seat, Watch
from flashfw.cluster.workers import Worker
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Failure

T = TypeVar("T")

STORE_RETRY_S = 1.0
OLDEST_REFRESH_S = 0.5


class JobDispatcher:
    """The jobs of one endpoint. Its workers are in `pool`; lives as long as the endpoint is served."""

    def __init__(self, endpoint: Endpoint, *, site: Site, store: JobStore, watch: Watch, tasks: TaskGroup) -> None:
        self.pool = Pool(endpoint, site, self, tasks)
        self._site = site
        self._store = store
        self._watch = watch
        self._tasks = tasks
        self._runs: dict[str, Run] = {}
        self._callers: set[str] = set()
        self._oldest: float | None = None
        self._woken = asyncio.Event()
        self._functions = _function_ids(endpoint)

    @property
    def endpoint(self) -> Endpoint:
        return self.pool.endpoint

    async def run(self) -> None:
        """Claim whenever a slot or a job may have become free, until cancelled."""
        self._tasks.start_soon(self.pool.run)
        while True:
            with anyio.move_on_after(OLDEST_REFRESH_S if self._pending() else None):
                await self._woken.wait()
            self._woken.clear()
            try:
                await self._fill()
                self._oldest = await self._store.oldest_waiting(self._functions) if self._pending() else None
            except StoreError as error:
                self._emit("store_failed", error=str(error))
                await anyio.sleep(STORE_RETRY_S)

    def apply(self, endpoint: Endpoint) -> None:
        """Serve a new release."""
        self._functions = _function_ids(endpoint)
        self.pool.apply(endpoint)
        self.wake()

    def wake(self) -> None:
        """There may be something to claim, or more workers to start."""
        self._woken.set()
        self.pool.nudge()

    async def submit(self, job: Job) -> Job:
        """Keep a job, and hand it to a worker in the same transaction if one is free and nobody waits.

        Raises:
            QueueFull, IdempotencyConflict, StoreError: as the store does; nothing was accepted.
        """
        limit = self.endpoint.max_queue
        worker = None if self._pending() else self.pool.take()
        if worker is None:
            kept = await self._store.submit(job, max_queue=limit)
            self.wake()
            return kept
        by = Claimer(boot=self._site.boot, worker=worker.id)
        try:
            kept = await self._store.submit(job, max_queue=limit, claim=by)
        except BaseException:
            self.pool.give_back(worker)
            raise
        if kept.id == job.id and kept.state is State.IN_PROGRESS:
            self._start(kept, worker)
        else:
            self.pool.give_back(worker)
            self.wake()
        return kept

    async def end_of(self, job: Job, seat: Seat, timeout_s: float) -> Job | None:
        """The terminal record of a job that somebody waits for; None when the time is over first.

        Raises:
            NoWorker: workers fail to start; the job stays in the queue.
        """
        if self.pool.failure is not None and self._site.retries_at_call:
            self.pool.try_again()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._callers.add(job.id)
        try:
            while seat.job is None:
                if self.pool.failure is not None and not self.pool.serves:
                    raise NoWorker(self.pool.failure)
                if not await seat.wait(max(0.0, deadline - loop.time())):
                    break
        finally:
            self._callers.discard(job.id)
        return seat.job

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel a job: its record at once, its work as soon as it lets itself be stopped."""
        job = await self._store.cancel(job_id)
        if job is not None:
            if run := self._runs.pop(job_id, None):
                run.stop("cancelled")
            self._ended(job)
        return job

    def demand(self) -> Demand:
        oldest_wait_s = 0.0 if self._oldest is None else max(0.0, self._site.clock.now() - self._oldest)
        return Demand(queued=self._pending(), oldest_wait_s=oldest_wait_s)

    def on_free(self) -> None:
        self._woken.set()

    def on_start_failed(self, failure: Failure) -> None:
        for job_id in self._callers:
            self._watch.ring(job_id)

    def on_end(self, run: Run, end: End) -> None:
        self._runs.pop(run.job.id, None)
        if end.error is not None and run.broke_worker:
            self.pool.mark_broken(run.worker, "its call said that the worker is broken")
            self._tasks.start_soon(self._lost, run, end.error, Reason.WORKER_LOST)
        else:
            self._tasks.start_soon(self._finish, run, end)

    def on_chunk(self, run: Run, data: bytes) -> None:
        self._tasks.start_soon(self._add_chunk, run, data)

    def on_progress(self, run: Run, data: bytes) -> None:
        self._tasks.start_soon(self._set_progress, run, data)

    def on_run_lost(self, run: Run, why: str) -> None:
        self._runs.pop(run.job.id, None)
        if run.worker.is_stopping:
            self._tasks.start_soon(self._release, run.job, why)
        else:
            reason, _ = run.worker.killed_for or (Reason.WORKER_LOST, "")
            kind = "OutOfMemory" if reason is Reason.OOM else "WorkerLost"
            self._tasks.start_soon(self._lost, run, error_json(kind, f"worker {run.worker.id} {why}"), reason)

    def on_overstay(self, run: Run) -> None:
        why = f"job {run.job.id} did not stop when it was told to"
        neighbours = [call for call in run.worker.calls.values() if isinstance(call, Run) and not call.is_over]
        if neighbours:
            self.pool.mark_broken(run.worker, why)
        else:
            self.pool.kill(run.worker, why)

    def _pending(self) -> int:
        return self._store.pending(self._functions)

    async def _fill(self) -> None:
        while self._pending() and (worker := self.pool.take()):
            by = Claimer(boot=self._site.boot, worker=worker.id)
            try:
                jobs = await self._store.claim(self._functions, by, limit=1)
            except BaseException:
                self.pool.give_back(worker)
                raise
            if not jobs:
                self.pool.give_back(worker)
                return
            self._start(jobs[0], worker)

    def _start(self, job: Job, worker: Worker) -> None:
        if worker.is_gone or worker.is_stopping:
            self.pool.give_back(worker)
            self._tasks.start_soon(self._release, job, "its worker went before it began")
            return
        run = Run(job, worker, self, self._on_timeout)
        self._runs[job.id] = run
        run.start()
        self._watch.ring(job.id)

    def _on_timeout(self, run: Run) -> None:
        self._runs.pop(run.job.id, None)
        run.stop("timeout")
        message = f"not done within its timeout ({run.job.timeout_s:g} s)"
        end = End(state=State.TIMED_OUT, reason=Reason.TIMEOUT, error=error_json("Timeout", message))
        self._tasks.start_soon(self._finish, run, end)

    async def _finish(self, run: Run, end: End) -> None:
        job = await self._insist(lambda: self._store.finish(run.job.id, run.job.fence, end))
        if job is not None:
            self._ended(job)

    async def _lost(self, run: Run, error: bytes, reason: Reason) -> None:
        job = await self._insist(lambda: self._store.lose(run.job.id, run.job.fence, error, reason=reason))
        if job is None:
            return
        if job.state.is_terminal:
            self._ended(job)
        else:
            self._requeued(job, error.decode())

    async def _release(self, job: Job, why: str) -> None:
        released = await self._insist(lambda: self._store.release(job.id, job.fence))
        if released is not None:
            self._requeued(released, why)

    async def _add_chunk(self, run: Run, data: bytes) -> None:
        job = run.job
        try:
            if await self._insist(lambda: self._store.add_chunks(job.id, job.fence, [data])):
                self._watch.ring(job.id)
                run.credit(len(data))
        except TooLarge as error:
            if not run.is_over:
                self._runs.pop(job.id, None)
                run.stop("too_large")
                failure = error_json("TooLarge", str(error))
                await self._finish(run, End(state=State.FAILED, reason=Reason.TOO_LARGE, error=failure))

    async def _set_progress(self, run: Run, data: bytes) -> None:
        await self._insist(lambda: self._store.set_progress(run.job.id, run.job.fence, data))
        self._watch.ring(run.job.id)

    async def _insist(self, change: Callable[[], Awaitable[T]]) -> T:
        """Make a change that must not be lost: try until the store keeps it."""
        while True:
            try:
                return await change()
            except TooLarge:
                raise
            except StoreError as error:
                self._emit("store_failed", error=str(error))
                await anyio.sleep(STORE_RETRY_S)

    def _requeued(self, job: Job, why: str) -> None:
        self._emit("job_requeued", id=job.id, function=job.function, why=why, deaths=job.deaths)
        self._watch.ring(job.id)
        self.wake()

    def _ended(self, job: Job) -> None:
        self._watch.ring(job.id, job)
        started = job.started_at or job.finished_at or job.submitted_at
        self._emit(
            "job",
            id=job.id,
            function=job.function,
            state=job.state.value,
            reason=None if job.reason is None else job.reason.value,
            delay_s=started - job.submitted_at,
            run_s=(job.finished_at or started) - started,
            error=None if job.error is None else job.error.decode(),
        )

    def _emit(self, name: str, **fields: object) -> None:
        self._site.emit(Event(name, self.endpoint.id, fields))


def _function_ids(endpoint: Endpoint) -> frozenset[str]:
    return frozenset(function.id for function in endpoint.functions)
