"""Brings the jobs of one endpoint to its workers: claims for free slots, keeps what comes back."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskGroup

from flashfw.cluster.clock import limit, sleep
from flashfw.cluster.events import Event, internal
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.store import JobStore, StoreError
from flashfw.cluster.keeping import RETRY_S, Keeper
from flashfw.cluster.pool import Demand, NoWorker, Pool
from flashfw.cluster.runs import Run, error_json, failed
from flashfw.cluster.site import Site
from flashfw.cluster.watch import Watch
from flashfw.cluster.workers import Worker
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Failure

POLL_S = 0.5
OLDEST_REFRESH_S = 0.1


class JobDispatcher:
    """The jobs of one endpoint. Its workers are in `pool`; lives as long as the endpoint is served.

    `on_requeued` hears of jobs that are back in the queue, which another dispatcher may serve by now.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        site: Site,
        store: JobStore,
        watch: Watch,
        tasks: TaskGroup,
        on_requeued: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.pool = Pool(endpoint, site, self, tasks)
        self.functions = _function_ids(endpoint)
        self._site = site
        self._store = store
        self._watch = watch
        self._tasks = tasks
        self._keeper = Keeper(store, site=site, attended=self, tasks=tasks)
        self._on_requeued = on_requeued
        self._runs: dict[str, Run] = {}
        self._callers: set[str] = set()
        self._oldest: float | None = None
        self._oldest_at = -math.inf
        self._woken = asyncio.Event()
        self._woken.set()

    @property
    def endpoint(self) -> Endpoint:
        return self.pool.endpoint

    async def run(self) -> None:
        """Claim whenever a slot or a job may have become free, until cancelled."""
        self._tasks.start_soon(self.pool.run)
        clock = self._site.clock
        while True:
            with limit(clock, POLL_S if self._pending() else None):
                await self._woken.wait()
            self._woken.clear()
            try:
                await self._fill()
                await self._look_at_the_queue()
            except StoreError as error:
                self._emit("store_failed", error=str(error))
                await sleep(clock, RETRY_S)
            except Exception as error:  # the supervisor goes on, whatever one round met
                self._site.emit(internal("claiming jobs", error, self.endpoint.id))
                await sleep(clock, RETRY_S)

    def apply(self, endpoint: Endpoint) -> None:
        """Serve a new release."""
        removed = self.functions - _function_ids(endpoint)
        self.functions = _function_ids(endpoint)
        self.pool.apply(endpoint)
        if removed:
            self._refuse(_gone(self.endpoint.id), removed)
        self.wake()

    async def retire(self) -> None:
        """Serve no more: whoever waits is told so, what runs gets `drain_timeout`, what is queued stays."""
        failure = _gone(self.endpoint.id)
        self._refuse(failure)
        await self.close(self.endpoint.drain_timeout_s)
        self._refuse(failure)

    async def close(self, grace_s: float) -> None:
        """Give what runs so much time, put the rest back, and write all of it down."""
        await self.pool.close(grace_s)
        with limit(self._site.clock, grace_s):  # a store that cannot keep it lets the next server requeue it
            await self._keeper.settled()

    def wake(self) -> None:
        """There may be something to claim, or more workers to start."""
        self._woken.set()
        self.pool.nudge()

    async def submit(self, job: Job) -> Job:
        """Keep a job, and hand it to a worker in the same transaction if one is free and nobody waits.

        Raises:
            QueueFull, IdempotencyConflict, StoreError: as the store does; nothing was accepted.
        """
        worker = None if self._pending() else self.pool.take(job.function)
        if worker is None:
            kept = await self._store.submit(job, max_queue=self.endpoint.max_queue)
            self.wake()
            return kept
        try:
            kept = await self._store.submit(job, max_queue=self.endpoint.max_queue, claim=self._claimer(worker))
        except BaseException as error:
            self._return(worker)
            if not isinstance(error, Exception):  # its caller was cancelled, and it may be kept and claimed
                self._keeper.release(self._run_of(dataclasses.replace(job, fence=1), worker), "nobody took it")
            raise
        if kept.id == job.id and kept.state is State.IN_PROGRESS:
            self._start(kept, worker)
        else:
            self._return(worker)
        return kept

    def expect_worker(self) -> None:
        """Make sure that a caller does not wait in vain. In `dev` its call tries anew: it may come from who mended it.

        Raises:
            NoWorker: workers fail to start.
        """
        if self.pool.refusal is not None:
            if not self._site.retries_at_call:
                raise NoWorker(self.pool.refusal)
            self.pool.try_again()

    @contextmanager
    def called(self, job_id: str) -> Iterator[None]:
        """Somebody waits for the job while the block runs: it is refused when workers fail to start meanwhile."""
        self._callers.add(job_id)
        try:
            yield
        finally:
            self._callers.discard(job_id)

    def refuse_in_vain(self) -> None:
        """Refuse those who wait if that is in vain: for a caller whose job was not kept yet when it became so."""
        if self.pool.refusal is not None:
            self._refuse(self.pool.refusal)

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel a job: its record at once, its work as soon as it lets itself be stopped."""
        job = await self._store.cancel(job_id)
        if job is not None:
            if run := self._runs.pop(job_id, None):
                run.stop("cancelled")
            self.on_ended(job)
        return job

    async def finish(self, job: Job, end: End) -> Job | None:
        """Write the end of a job; if others wait and a slot is free, claim one of them in the same transaction."""
        worker = self.pool.take() if self._pending() else None
        if worker is None:
            return await self._store.finish(job.id, job.fence, end)
        functions = self.functions & worker.functions
        by = self._claimer(worker)
        with self._claiming(worker):
            ended, claimed = await self._store.finish_and_claim(job.id, job.fence, end, claim=by, functions=functions)
        if claimed is None:
            self.pool.give_back(worker)
        else:
            self._start(claimed, worker)
        return ended

    def demand(self) -> Demand:
        oldest_wait_s = 0.0 if self._oldest is None else max(0.0, self._site.clock.now() - self._oldest)
        return Demand(queued=self._pending(), oldest_wait_s=oldest_wait_s)

    def on_free(self) -> None:
        self._woken.set()

    def on_start_failed(self, failure: Failure) -> None:
        self.refuse_in_vain()

    def on_end(self, run: Run, end: End) -> None:
        self._runs.pop(run.job.id, None)
        if end.error is not None and run.broke_worker:
            self.pool.mark_broken(run.worker, "its call said that the worker is broken")
            self._keeper.lose(run, end.error, Reason.WORKER_LOST)
        else:
            self._keeper.finish(run, end)

    def on_chunk(self, run: Run, data: bytes) -> None:
        self._keeper.chunk(run, data)

    def on_progress(self, run: Run, data: bytes) -> None:
        self._keeper.progress(run, data)

    def on_run_lost(self, run: Run, why: str) -> None:
        self._runs.pop(run.job.id, None)
        if run.worker.is_stopping:
            self._keeper.release(run, why)
        else:
            reason, _ = run.worker.killed_for or (Reason.WORKER_LOST, "")
            kind = "OutOfMemory" if reason is Reason.OOM else "WorkerLost"
            self._keeper.lose(run, error_json(kind, f"worker {run.worker.id} {why}"), reason)

    def on_overstay(self, run: Run) -> None:
        why = f"job {run.job.id} did not stop when it was told to"
        neighbours = [call for call in run.worker.calls.values() if isinstance(call, Run) and not call.is_over]
        if neighbours:
            self.pool.mark_broken(run.worker, why)
        else:
            self.pool.kill(run.worker, why)

    def on_changed(self, job_id: str) -> None:
        self._watch.ring(job_id)

    def on_ended(self, job: Job) -> None:
        self._watch.ring(job.id, job)
        self._site.emit(ended(job))

    def on_requeued(self, job: Job, why: str) -> None:
        self._emit("job_requeued", id=job.id, function=job.function, why=why, deaths=job.deaths)
        self._watch.ring(job.id)
        self.wake()
        self._on_requeued(job)

    def on_too_large(self, run: Run) -> None:
        self._runs.pop(run.job.id, None)
        if not run.is_over:
            run.stop("too_large")

    def _pending(self) -> int:
        return self._store.pending(self.functions).total

    async def _fill(self) -> None:
        while self._pending() and (worker := self.pool.take()):
            with self._claiming(worker):
                jobs = await self._store.claim(self.functions & worker.functions, self._claimer(worker), limit=1)
            if not jobs:
                self.pool.give_back(worker)
                return
            self._start(jobs[0], worker)

    @contextmanager
    def _claiming(self, worker: Worker) -> Iterator[None]:
        """Shielded, since a claim whose answer nobody takes would be of a job that nobody does."""
        try:
            with anyio.CancelScope(shield=True):
                yield
        except BaseException:
            self.pool.give_back(worker)
            raise

    async def _look_at_the_queue(self) -> None:
        """How long the first job waits, for the autoscaler; not after each claim, since it asks the database."""
        now = self._site.clock.monotonic()
        if not self._pending():
            self._oldest, self._oldest_at = None, -math.inf
        elif now - self._oldest_at >= OLDEST_REFRESH_S:
            self._oldest_at = now
            self._oldest = await self._store.oldest_waiting(self.functions)

    def _start(self, job: Job, worker: Worker) -> None:
        run = self._run_of(job, worker)
        if not worker.serves:
            self._return(worker)
            self._keeper.release(run, "its worker went before it began")
            return
        self._runs[job.id] = run
        run.start()
        self._watch.ring(job.id)

    def _run_of(self, job: Job, worker: Worker) -> Run:
        return Run(job, worker, self, on_timeout=self._on_timeout, clock=self._site.clock)

    def _claimer(self, worker: Worker) -> Claimer:
        return Claimer(boot=self._site.boot, worker=worker.id)

    def _return(self, worker: Worker) -> None:
        """Give a slot back that others may have missed meanwhile."""
        self.pool.give_back(worker)
        self.wake()

    def _on_timeout(self, run: Run) -> None:
        self._runs.pop(run.job.id, None)
        run.stop("timeout")
        message = f"not done within its timeout ({run.job.timeout_s:g} s)"
        end = End(state=State.TIMED_OUT, reason=Reason.TIMEOUT, error=error_json("Timeout", message))
        self._keeper.finish(run, end)

    def _refuse(self, failure: Failure, functions: Collection[str] | None = None) -> None:
        for job_id in self._callers:
            self._tasks.start_soon(self._refuse_one, job_id, failed(failure), functions)

    async def _refuse_one(self, job_id: str, end: End, functions: Collection[str] | None) -> None:
        try:
            job = await self._store.get(job_id) if functions is not None else None
            if functions is None or (job is not None and job.function in functions):
                refused = await self._store.refuse(job_id, end)
                if refused is not None:
                    self.on_ended(refused)
        except StoreError as error:  # it stays in the queue, and its caller gets 202 in time
            self._emit("store_failed", error=str(error))

    def _emit(self, name: str, **fields: object) -> None:
        self._site.emit(Event(name, self.endpoint.id, fields))


def ended(job: Job) -> Event:
    """The event of a job's end."""
    started = job.started_at or job.finished_at or job.submitted_at
    fields = {
        "id": job.id,
        "function": job.function,
        "state": job.state.value,
        "reason": None if job.reason is None else job.reason.value,
        "delay_s": started - job.submitted_at,
        "run_s": (job.finished_at or started) - started,
        "error": None if job.error is None else job.error.decode(),
    }
    return Event("job", job.endpoint, fields)


def _gone(endpoint: str) -> Failure:
    return Failure(reason="function_gone", type="FunctionGone", message=f"{endpoint} is not served any more")


def _function_ids(endpoint: Endpoint) -> frozenset[str]:
    return frozenset(function.id for function in endpoint.functions)
