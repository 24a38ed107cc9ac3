"""From a request to an accepted job: identity, options, and one place that makes records."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from flashfw.cluster.clock import Clock
from flashfw.cluster.dispatcher import JobDispatcher
from flashfw.cluster.gateway.answers import refusal, unavailable
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.jobs.store import QueueFull, StoreError
from flashfw.cluster.pool import NoWorker
from flashfw.cluster.watch import Seat, Watch
from flashfw.manifest import Function


@dataclass(frozen=True, slots=True)
class JobTarget:
    """A job function and who dispatches it."""

    function: Function
    dispatcher: JobDispatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller may ask for one job; None takes the function's own value."""

    timeout_s: float | None = None
    ttl_s: float | None = None
    low_priority: bool = False


DEFAULT_OPTIONS = Options()


def new_job(function: Function, endpoint: str, body: bytes, now: float, options: Options = DEFAULT_OPTIONS) -> Job:
    """The record of a new job; `body` is its input as JSON."""
    return Job(
        id=job_id(now),
        function=function.id,
        endpoint=endpoint,
        input=body or b"{}",
        submitted_at=now,
        expires_at=now + (options.ttl_s if options.ttl_s is not None else function.ttl_s),
        timeout_s=options.timeout_s if options.timeout_s is not None else function.timeout_s,
        result_ttl_s=function.result_ttl_s,
        priority=-1 if options.low_priority else 0,
    )


def job_id(now: float) -> str:
    """A new id: a UUID of version 7 (RFC 9562), so that ids grow with time and stores append to their index.

    >>> uuid.UUID(job_id(1.5)).version
    7
    """
    number = (int(now * 1000) & (1 << 48) - 1) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62))


class Intake:
    """Accepts jobs; what it returns is kept."""

    def __init__(self, watch: Watch, clock: Clock) -> None:
        self.watch = watch
        self.clock = clock

    async def accept(self, target: JobTarget, body: bytes, options: Options = DEFAULT_OPTIONS) -> Job:
        """Keep one job.

        Raises:
            Refused: 429 when the queue is full, 503 when the store cannot keep it.
        """
        return await self._submit(target, self._new(target, body, options))

    @asynccontextmanager
    async def watched(
        self, target: JobTarget, body: bytes, options: Options = DEFAULT_OPTIONS
    ) -> AsyncIterator[tuple[Job, Seat]]:
        """Keep one job and wait for it: sit down beside it before anything can happen to it.

        Raises:
            Refused: as `accept`, and 503 when workers fail to start, before anything is kept.
        """
        job = self._new(target, body, options)
        try:
            target.dispatcher.expect_worker()
        except NoWorker as error:
            raise unavailable(error.failure) from error
        with self.watch.seat(job.id) as seat, target.dispatcher.called(job.id):
            kept = await self._submit(target, job)
            target.dispatcher.refuse_in_vain()
            yield kept, seat

    def _new(self, target: JobTarget, body: bytes, options: Options) -> Job:
        return new_job(target.function, target.dispatcher.endpoint.id, body, self.clock.now(), options)

    async def _submit(self, target: JobTarget, job: Job) -> Job:
        try:
            return await target.dispatcher.submit(job)
        except QueueFull as error:
            raise refusal(429, "queue_full", str(error), headers=[(b"retry-after", b"1")]) from error
        except StoreError as error:
            raise refusal(503, "store", str(error), headers=[(b"retry-after", b"1")]) from error
