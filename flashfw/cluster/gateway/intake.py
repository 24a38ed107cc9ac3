"""From a request to an accepted job, and to whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from flashfw.cluster.auth.keys import Principal
from flashfw.cluster.clock import Clock
from flashfw.cluster.dispatch.dispatcher import JobDispatcher
from flashfw.cluster.gateway.answers import refusal, retry_after, unavailable
from flashfw.cluster.jobs.answer import Answer
from flashfw.cluster.jobs.making import DEFAULT_OPTIONS, Options, TooDeep, new_job
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.jobs.store import IdempotencyConflict, JobStore, QueueFull, StoreError
from flashfw.cluster.watch import Seat, Watch
from flashfw.cluster.workers.customer import NoWorker
from flashfw.manifest import Function


@dataclass(frozen=True, slots=True)
class JobTarget:
    """A job function and who dispatches it."""

    function: Function
    dispatcher: JobDispatcher


class Kept(NamedTuple):
    """An accepted job, and whether this request made it: the key of an earlier one gives the earlier one."""

    job: Job
    is_new: bool


class BegunJob(NamedTuple):
    """A call of a job that is under way: `kept` is done once the job is kept or refused, and `seat` hears of its end.

    `seated` holds the seat for whoever answers. `began` is of `time.perf_counter`.
    """

    target: JobTarget
    principal: Principal
    began: float
    kept: asyncio.Future[Job] | Answer[Job]
    is_async: bool
    seat: Seat
    seated: ExitStack


def identity(kept: Kept) -> list[tuple[bytes, bytes]]:
    """The headers that name a job, and say of one that another request made that it is no new one."""
    named = [(b"flashfw-job", kept.job.id.encode())]
    return named if kept.is_new else [*named, (b"idempotency-replayed", b"true")]


class Intake:
    """Accepts jobs; what it returns is kept. `local_webhooks` says whether their callers may name this machine."""

    def __init__(self, watch: Watch, clock: Clock, store: JobStore, *, local_webhooks: bool = False) -> None:
        self.watch = watch
        self.clock = clock
        self.local_webhooks = local_webhooks
        self._store = store

    async def accept(self, target: JobTarget, body: bytes, options: Options = DEFAULT_OPTIONS) -> Kept:
        """Keep one job, or find the one that was kept for its idempotency key.

        Raises:
            Refused: 409 when the key came with another input, 429 when the queue is full, 503 when the store cannot
                keep it.
        """
        return await self._submit(target, self._new(target, body, options))

    @asynccontextmanager
    async def watched(
        self, target: JobTarget, body: bytes, options: Options = DEFAULT_OPTIONS
    ) -> AsyncIterator[tuple[Kept, Seat]]:
        """Keep one job and wait for it: sit down beside it before anything can happen to it.

        Whoever comes again with the key of a job sits down beside that one, though it may have ended.

        Raises:
            Refused: as `accept`, and 503 when workers fail to start, before anything is kept; not for a job that came
                before and has ended, which needs no worker.
        """
        job = self._new(target, body, options)
        try:
            target.dispatcher.expect_worker()
        except NoWorker as error:
            if not await self._has_ended(target, job):
                raise unavailable(error.failure, target.dispatcher.retry_after_s()) from error
        with self.watch.seat(job.id) as seat, target.dispatcher.called(job.id):
            kept = await self._submit(target, job)
            if kept.is_new:
                target.dispatcher.refuse_in_vain()
                yield kept, seat
                return
        with self.watch.seat(kept.job.id) as seat, target.dispatcher.called(kept.job.id):
            latest = await self._store.get(kept.job.id) or kept.job
            if latest.state.is_terminal:
                seat.ring(latest)
            else:
                target.dispatcher.refuse_in_vain()
            yield Kept(latest, is_new=False), seat

    def _new(self, target: JobTarget, body: bytes, options: Options) -> Job:
        try:
            return new_job(target.function, target.dispatcher.endpoint.id, body, self.clock.now(), options)
        except TooDeep as error:
            raise refusal(422, "validation", f"the body is no JSON: {error}") from error

    async def _has_ended(self, target: JobTarget, job: Job) -> bool:
        """Whether the idempotency key of a new job is that of one that has ended."""
        if job.idempotency_key is None:
            return False
        try:  # a queue that takes nobody gives the earlier one, or nothing
            earlier = await self._store.submit(job, max_queue=0)
        except QueueFull:
            return False
        except IdempotencyConflict as error:
            raise refusal(409, "idempotency_conflict", str(error)) from error
        return earlier.state.is_terminal

    async def _submit(self, target: JobTarget, job: Job) -> Kept:
        kept = await self.kept(target, target.dispatcher.submit(job))
        return Kept(kept, is_new=kept.id == job.id)

    async def kept(self, target: JobTarget, submitting: Awaitable[Job]) -> Job:
        """The job that is being submitted, once it is kept.

        Raises:
            Refused: as `accept`.
        """
        try:
            return await submitting
        except QueueFull as error:
            later = retry_after(target.dispatcher.retry_after_s())
            raise refusal(429, "queue_full", str(error), headers=[later]) from error
        except IdempotencyConflict as error:
            raise refusal(409, "idempotency_conflict", str(error)) from error
        except StoreError as error:
            later = retry_after(target.dispatcher.retry_after_s())
            raise refusal(503, "store", str(error), headers=[later]) from error
