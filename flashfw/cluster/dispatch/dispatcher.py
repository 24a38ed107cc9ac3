"""Brings the jobs of one endpoint to its workers: claims for free slots, keeps what comes back."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from flashfw.cluster.clock import limit, sleep
from flashfw.cluster.dispatch import job_events
from flashfw.cluster.dispatch.backlog import Backlog
from flashfw.cluster.dispatch.callers import Callers
from flashfw.cluster.dispatch.deadlines import Deadlines
from flashfw.cluster.dispatch.keeping import RETRY_S, Keeper
from flashfw.cluster.dispatch.retrying import retry_in_s
from flashfw.cluster.dispatch.runs import Run, error_json
from flashfw.cluster.events import internal, store_failed
from flashfw.cluster.jobs.answer import Answer, told
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State, holds
from flashfw.cluster.jobs.store import JobStore, StoreError
from flashfw.cluster.site import Site
from flashfw.cluster.watch import Watch
from flashfw.cluster.workers.customer import NOT_SERVED, SERVER_STOPS, Demand
from flashfw.cluster.workers.pool import Pool
from flashfw.cluster.workers.renewing import Saved
from flashfw.cluster.workers.stage import Stage
from flashfw.cluster.workers.worker import Worker
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Failure


class JobDispatcher:
    """The jobs of one endpoint. Its workers are in `pool`; lives as long as the endpoint is served.

    `on_requeued` hears of jobs that are back in the queue, which another dispatcher may serve by now.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        root: Path,
        site: Site,
        store: JobStore,
        watch: Watch,
        tasks: TaskGroup,
        on_requeued: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.pool = Pool(endpoint, site, self, tasks, root=root)
        self._backlog = Backlog(endpoint, store, site.clock)
        self._batching = self._backlog.batching
        self._site = site
        self._store = store
        self._watch = watch
        self._tasks = tasks
        self._keeper = Keeper(store, site=site, attended=self, tasks=tasks)
        self._on_requeued = on_requeued
        self._runs: dict[str, Run] = {}
        self._has_overstayed = False  # ever: as long as none did, no end has to look for one
        self._timeouts = Deadlines(site.clock, self._on_timeout)
        self.callers = Callers(store, site=site, tasks=tasks, on_ended=self.on_ended)
        self._woken = asyncio.Event()
        self._woken.set()

    @property
    def functions(self) -> frozenset[str]:
        """The ids of what it serves."""
        return self._backlog.functions

    @property
    def endpoint(self) -> Endpoint:
        return self.pool.endpoint

    async def run(self) -> None:
        """Claim whenever a slot or a job may have become free, until cancelled."""
        self._tasks.start_soon(self.pool.run)
        clock = self._site.clock
        while True:
            with limit(clock, self._backlog.patience_s()):
                await self._woken.wait()
            self._woken.clear()
            try:
                if await self._backlog.unpark():
                    self.pool.nudge()
                await self._fill()
                await self._backlog.look()
            except StoreError as error:
                self._site.emit(store_failed(error, self.endpoint.id))
                await sleep(clock, RETRY_S)
            except Exception as error:  # the supervisor goes on, whatever one round met
                self._site.emit(internal("claiming jobs", error, self.endpoint.id))
                await sleep(clock, RETRY_S)

    def apply(self, endpoint: Endpoint, root: Path, stage: Stage | None = None, saved: Saved = None) -> None:
        """Serve a new release, whose files lie at `root`, by the workers of `stage` if there are some already."""
        before = self.functions
        self._backlog.apply(endpoint)
        self.pool.apply(endpoint, root, saved) if stage is None else self.pool.switch(stage)
        if removed := before - self.functions:
            self.callers.refuse(_gone(self.endpoint.id), removed)
        self.wake()

    async def retire(self) -> None:
        """Serve no more: whoever waits is told so, what runs gets `drain_timeout`, what is queued stays."""
        failure = _gone(self.endpoint.id)
        self.callers.refuse(failure)
        await self.close(self.endpoint.drain_timeout_s, NOT_SERVED)
        self.callers.refuse(failure)

    async def close(self, grace_s: float, why: str = SERVER_STOPS) -> None:
        """Give what runs so much time, put the rest back, and write all of it down."""
        await self.pool.close(grace_s, why)
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
        if (direct := self.submit_now(job)) is not None:
            return await asyncio.shield(direct)  # it runs, though its caller is cancelled
        kept = await self._store.submit(job, max_queue=self.endpoint.max_queue)
        self._tell_kept(kept, job)
        self.wake()
        return kept

    def submit_now(self, job: Job) -> asyncio.Future[Job] | Answer[Job] | None:
        """`submit` without a task: the job once it is kept, and is under way. None if it would have to wait."""
        if self._backlog.pending().claimable or self._batching.of(job.function):
            return None
        if (worker := self.pool.slots.take(job.function)) is None:
            return None
        try:
            by = self._claimer(worker)
            kept = told(self._store.submit(job, max_queue=self.endpoint.max_queue, claim=by))
        except StoreError:
            self._return(worker)
            raise
        kept.add_done_callback(partial(self._on_kept, job, worker))
        return kept

    def retry_after_s(self) -> float:
        """When a caller who is refused now may come again, from how fast jobs are done."""
        return self.pool.retry_after_s(self._backlog.pending().total)

    def expect_worker(self) -> None:
        """As `Pool.expect_worker`."""
        self.pool.expect_worker()

    def called(self, job_id: str) -> AbstractContextManager[None]:
        """Somebody waits for the job while the block runs: it is refused when workers fail to start meanwhile."""
        return self.callers.waiting(job_id)

    def refuse_in_vain(self) -> None:
        """Refuse those who wait if that is in vain: for a caller whose job was not kept yet when it became so."""
        if self.pool.refusal is not None:
            self.callers.refuse(self.pool.refusal)

    def running(self) -> list[str]:
        """The jobs that its workers have."""
        return list(self._runs)

    def runs(self, job_id: str) -> bool:
        """Whether one of its workers has the job."""
        return job_id in self._runs

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel a job: its record at once, its work as soon as it lets itself be stopped."""
        job = await self._store.cancel(job_id)
        if job is not None:
            self.stop(job_id)
            self.on_ended(job)
        return job

    def stop(self, job_id: str) -> None:
        """The job was cancelled: if one of its workers has it, ask that one to stop."""
        if run := self._runs.pop(job_id, None):
            run.stop("cancelled")

    async def check(self, job_id: str) -> None:
        """Another server changed a job that runs here: stop, if it was ended or given to others."""
        run = self._runs.get(job_id)
        try:
            job = await self._store.get(job_id)
        except StoreError as error:  # what it reports is discarded, as any older claim's
            self._site.emit(store_failed(error, self.endpoint.id))
            return
        is_ours = job is not None and run is not None and holds(job, run.job.fence)
        if run is not None and not is_ours and self._runs.get(job_id) is run:
            self._leave(run)
            run.stop("cancelled")

    def finish_now(self, job: Job, end: End) -> Awaitable[Job | None] | None:
        """Write the end of a job; None if others wait for its slot, which `finish` thinks of."""
        if self._backlog.pending().claimable:
            return None
        self.pool.slots.fill_up()
        return self._store.finish(job.id, job.fence, end)

    async def finish(self, job: Job, end: End) -> Job | None:
        """Write the end of a job; if others wait and a slot is free, claim one of them in the same transaction."""
        ready = self._backlog.ready()
        worker = self._take(ready)
        if worker is None:
            return await self._store.finish(job.id, job.fence, end)
        functions, by, alone = ready & worker.functions, self._claimer(worker), _is_whole(worker)
        with self._claiming(worker):
            ended, claimed = await self._store.finish_and_claim(
                job.id, job.fence, end, claim=by, functions=functions, alone=alone
            )
        if claimed is None:
            self.pool.slots.give_back(worker)
        elif claimed.function not in worker.batch_sizes:
            self._begin([self._enter(claimed, worker)], worker)
        else:  # the record of the one that ended does not wait for others of the next batch
            self._tasks.start_soon(self._hand_over, claimed, worker)
        return ended

    def demand(self) -> Demand:
        return self._backlog.demand()

    def on_free(self) -> None:
        if self._backlog.pending().total:
            self._woken.set()

    def on_start_failed(self, failure: Failure) -> None:
        self.refuse_in_vain()

    def on_end(self, run: Run, end: End) -> None:
        self._leave(run)
        if end.error is not None and run.broke_worker:
            # A GPU that is lost fails every call on it, so any of them may have been the one.
            alone = run.worker.is_unhealthy or len(run.worker.calls) > 1
            self.pool.mark_broken(run.worker, "its call said that the worker is broken")
            self._keeper.lose(run, end.error, Reason.WORKER_LOST, alone=alone)
        elif end.error is not None and (in_s := self._retry_in_s(run, end)) is not None:
            self._keeper.reschedule(run, end.error, in_s)
        else:
            self._keeper.finish(run, end)
        if self._has_overstayed and any(call.overstays for call in _runs_on(run.worker)):
            self._give_up(run.worker, run.worker.why_stopped)

    def on_chunk(self, run: Run, data: bytes) -> None:
        self._keeper.chunk(run, data)

    def on_progress(self, run: Run, data: bytes) -> None:
        self._keeper.progress(run, data)

    def on_run_lost(self, run: Run, why: str) -> None:
        self._leave(run)
        if run.worker.is_stopping:
            self._keeper.release(run, why)
        else:
            reason, _ = run.worker.killed_for or (Reason.WORKER_LOST, "")
            kind = "OutOfMemory" if reason is Reason.OOM else "WorkerLost"
            error = error_json(kind, f"worker {run.worker.id} {why}")
            self._keeper.lose(run, error, reason, alone=run.worker.lost_calls > 1)

    def on_overstay(self, run: Run) -> None:
        self._has_overstayed = True
        self._give_up(run.worker, f"job {run.job.id} did not stop when it was told to")

    def on_changed(self, job_id: str) -> None:
        self._watch.ring(job_id)

    def on_ended(self, job: Job) -> None:
        self._site.emit(job_events.ended(job))
        self._watch.ring(job.id, job)

    def on_again(self, job: Job) -> None:
        """Somebody asked for a job anew, which ended as `job` tells."""
        self._site.emit(job_events.again(job))
        self.wake()

    def on_requeued(self, job: Job, why: str) -> None:
        self._site.emit(job_events.requeued(job, why))
        self._watch.ring(job.id)
        self.wake()
        self._on_requeued(job)

    def on_rescheduled(self, job: Job) -> None:
        self._site.emit(job_events.retry(job, max(0.0, job.available_at - self._site.clock.now())))
        self._watch.ring(job.id)
        self._backlog.parked(job.available_at)
        self.wake()

    def on_too_large(self, run: Run) -> None:
        self._leave(run)
        if not run.is_over:
            run.stop("too_large")

    async def _fill(self) -> None:
        await self._batching.look()
        while (worker := self._take(ready := self._backlog.ready())) is not None:
            with self._claiming(worker):
                jobs = await self._store.claim(
                    ready & worker.functions, self._claimer(worker), limit=1, alone=_is_whole(worker)
                )
            if not jobs:
                self.pool.slots.give_back(worker)
                return
            await self._hand_over(jobs[0], worker)
            await self._batching.look()

    def _take(self, ready: Collection[str]) -> Worker | None:
        """A worker with a free slot, or without any call if a job waits that must be alone; None if nothing waits."""
        pending = self._store.pending(ready)
        if not pending.alone:
            self.pool.slots.fill_up()
            return self.pool.slots.take() if pending.claimable else None
        if (worker := self.pool.slots.take_whole()) is not None:
            return worker
        return self.pool.slots.take() if pending.claimable > pending.alone else None

    async def _hand_over(self, job: Job, worker: Worker) -> None:
        """Begin a claimed job, with as many of its batch as wait and the release that the worker has takes."""
        room, runs = worker.batch_sizes.get(job.function, 1) - 1, [self._enter(job, worker)]
        try:
            if room and not job.alone:
                by = self._claimer(worker)
                with anyio.CancelScope(shield=True):
                    others = await self._store.claim((job.function,), by, limit=room, alone=False)
                runs += [self._enter(other, worker) for other in others]
        except StoreError as error:  # the one that is claimed goes by itself
            self._site.emit(store_failed(error, self.endpoint.id))
        finally:
            self._batching.claimed(job.function)
            self._begin(runs, worker)

    @contextmanager
    def _claiming(self, worker: Worker) -> Iterator[None]:
        """Shielded, since a claim whose answer nobody takes would be of a job that nobody does."""
        try:
            with anyio.CancelScope(shield=True):
                yield
        except BaseException:
            self.pool.slots.give_back(worker)
            raise

    def _enter(self, job: Job, worker: Worker) -> Run:
        """A run of a claimed job: whoever cancels the job finds it from now on."""
        if not job.alone:
            self.pool.slots.share(worker)
        run = self._runs[job.id] = self._run_of(job, worker)
        return run

    def _leave(self, run: Run) -> None:
        if self._runs.get(run.job.id) is run:
            del self._runs[run.job.id]

    def _begin(self, runs: Sequence[Run], worker: Worker) -> None:
        """Hand over what was claimed for one slot of a worker, less what was cancelled since."""
        wanted = [run for run in runs if not run.is_over]
        if not worker.serves or not wanted:
            self._return(worker)
            for run in wanted:
                self._leave(run)
                self._keeper.release(run, "its worker went before it began")
            return
        first = wanted[0].job
        batch = f"{first.id}:{first.fence}" if first.function in worker.batch_sizes else None
        for run in wanted:
            run.start(batch=batch, of=len(wanted))
            self._site.emit(job_events.started(run.job))
            self._watch.ring(run.job.id)

    def _on_kept(self, job: Job, worker: Worker, done: asyncio.Future[Job] | Answer[Job]) -> None:
        """A job that was claimed as it came is kept, or is not."""
        if done.cancelled() or done.exception() is not None:
            self._return(worker)
            if done.cancelled():  # it may be kept and claimed
                self._keeper.release(self._run_of(dataclasses.replace(job, fence=1), worker), "nobody took it")
            return
        kept = done.result()
        self._tell_kept(kept, job)
        if kept.id == job.id and kept.state is State.IN_PROGRESS:
            self._begin([self._enter(kept, worker)], worker)
        else:
            self._return(worker)

    def _give_up(self, worker: Worker, why: str) -> None:
        """End a worker that has work nobody wants, as soon as that is all it has."""
        if all(call.is_over for call in _runs_on(worker)):
            self.pool.kill(worker, why)
        else:
            self.pool.mark_broken(worker, why)

    def _retry_in_s(self, run: Run, end: End) -> float | None:
        """After how long the job is tried again, or None if it has ended so; one that would expire meanwhile has."""
        job = run.job
        if end.reason is not Reason.HANDLER_ERROR:
            return None
        functions = {function.id: function for function in (*run.worker.endpoint.functions, *self.endpoint.functions)}
        in_s = retry_in_s(
            functions[job.function].retries,
            errors=job.attempt - job.deaths,
            types=run.types,
            was_heard=run.was_heard,
            chance=self._site.chance(),
        )
        return None if in_s is None or self._site.clock.now() + in_s >= job.expires_at else in_s

    def _tell_kept(self, kept: Job, asked: Job) -> None:
        if kept.id == asked.id:
            self._site.emit(job_events.queued(kept))

    def _run_of(self, job: Job, worker: Worker) -> Run:
        return Run(job, worker, self, timeouts=self._timeouts, clock=self._site.clock)

    def _claimer(self, worker: Worker) -> Claimer:
        return Claimer(boot=self._site.boot, worker=worker.id)

    def _return(self, worker: Worker) -> None:
        """Give a slot back that others may have missed meanwhile."""
        self.pool.slots.give_back(worker)
        self.wake()

    def _on_timeout(self, run: Run) -> None:
        self._leave(run)
        run.stop("timeout")
        message = f"not done within its timeout ({run.job.timeout_s:g} s)"
        end = End(state=State.TIMED_OUT, reason=Reason.TIMEOUT, error=error_json("Timeout", message))
        self._keeper.finish(run, end)


def _gone(endpoint: str) -> Failure:
    return Failure(reason="function_gone", type="FunctionGone", message=f"{endpoint} is not served any more")


def _runs_on(worker: Worker) -> list[Run]:
    return [call for call in worker.calls.values() if isinstance(call, Run)]


def _is_whole(worker: Worker) -> bool:
    """Whether what comes for the slot that was taken is the worker's only call."""
    return worker.is_lone or worker.endpoint.concurrency == 1
