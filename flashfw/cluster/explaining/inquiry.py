"""Gathers what explains one job: its record, what was noted, who was before it, and how its endpoint is now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from flashfw.cluster.clock import Clock
from flashfw.cluster.explaining.journal import SERVER, Journal
from flashfw.cluster.explaining.waiting import Absence, Situation, present
from flashfw.cluster.explaining.why import QUICK_S, Ahead, Story, explain
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.store import JobStore
from flashfw.cluster.workers.pool import Pool

LOOKED_AT = 100
"""How many earlier jobs of each function are looked at for those that were ahead."""


class Serving(Protocol):
    """Who serves some functions with workers of one pool: a dispatcher."""

    pool: Pool

    @property
    def functions(self) -> frozenset[str]:
        """The ids of what it serves."""
        ...


async def inquire(
    job_id: str,
    *,
    store: JobStore,
    journal: Journal,
    serving: Mapping[str, Serving],
    absence: Callable[[str], Absence],
    clock: Clock,
) -> Story | None:
    """The story of a job, or None if the store has none of that id. `absence` tells of a function that is not served.

    Raises:
        StoreError: the store cannot be read.
    """
    await journal.flush()
    job = await store.get(job_id)
    if job is None:
        return None
    now = clock.now()
    until = job.finished_at if job.finished_at is not None else now
    entries = [*await store.story(job.id)]
    for endpoint in (job.endpoint, SERVER):
        entries += await store.happened(endpoint, since=job.submitted_at, until=until)
    server = next((item for item in serving.values() if job.function in item.functions), None)
    ahead = await _ahead(job, server, store, until)
    standing = Situation(now=now, absence=absence(job.function)) if server is None else situation(server, now, ahead)
    there = None if job.state.is_terminal else present(job, standing)
    return explain(job, entries, ahead=ahead, now=there, at=now)


def situation(server: Serving, now: float, ahead: Ahead | None) -> Situation:
    """How things stand at `now` for a job of a function that is served so."""
    pool = server.pool
    return Situation(
        now=now,
        is_served=True,
        workers=Counter(worker.state.value for worker in pool.workers),
        workers_max=pool.scaling.workers_max,
        scaling=pool.decision.reason if pool.decision else "",
        failure=dict(pool.failure) if pool.failure else None,
        retry_in_s=pool.retry_in_s,
        ahead=ahead,
    )


async def _ahead(job: Job, server: Serving | None, store: JobStore, until: float) -> Ahead | None:
    """Who shared its workers and was there before it, unless it was taken at once."""
    if (job.started_at if job.started_at is not None else until) - job.submitted_at < QUICK_S:
        return None
    functions = {job.function} if server is None else {job.function, *server.functions}
    jobs = running = 0
    is_all = True
    for function in functions:
        before = await store.list(function=function, before=job.id, limit=LOOKED_AT)
        unfinished = [other for other in before if other.finished_at is None or other.finished_at > job.submitted_at]
        jobs += len(unfinished)
        running += sum(_was_running(other, job.submitted_at) for other in unfinished)
        is_all = is_all and len(unfinished) < LOOKED_AT
    return Ahead(jobs=jobs, running=running, is_all=is_all)


def _was_running(job: Job, at: float) -> bool:
    if job.state is State.IN_QUEUE or job.started_at is None:
        return False
    return job.started_at <= at
