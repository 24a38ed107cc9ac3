"""The stores that must keep the promises of `JobStore`, and what their tests build. A new store is one line."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashfw.cluster.clock import Clock, ManualClock
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.postgres import PostgresStore
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import JobStore
from tests import postgres_server


@dataclass(frozen=True)
class Kind:
    """A store to test: `make(folder, clock)`; `is_durable` if a second one of the same folder finds the jobs."""

    name: str
    make: Callable[[Path, Clock], JobStore]
    is_durable: bool = True


STORES = [
    Kind("sqlite-file", lambda folder, clock: SqliteStore(folder / "jobs.sqlite", clock=clock)),
    Kind("sqlite-memory", lambda _, clock: SqliteStore(None, clock=clock), is_durable=False),
    Kind("postgres", lambda folder, clock: in_postgres(folder, clock)),
]


def in_postgres(folder: Path, clock: Clock) -> PostgresStore:
    """A store in a schema of the folder's own, which takes a server for dead as soon as it is gone."""
    schema = f"test_{hashlib.sha256(bytes(folder)).hexdigest()[:16]}"
    return PostgresStore(postgres_server.shared().url, clock=clock, schema=schema, grace_s=0.0)


BOOT = "boot-1"
BY = Claimer(boot=BOOT, worker="worker-1")
DONE = End(state=State.COMPLETED, output=b'{"sum":3}')
BROKEN = End(state=State.FAILED, reason=Reason.HANDLER_ERROR, error=b'{"type":"ValueError"}')
ROOM = 1_000_000

_numbers = itertools.count()


def a_job(clock: Clock, function: str = "gpu", **changes: Any) -> Job:
    """A job submitted now, with a time to live of 100 s and a result kept for 50 s."""
    now = clock.now()
    fields: dict[str, Any] = {
        "id": f"job-{next(_numbers)}",
        "function": function,
        "endpoint": function.partition("/")[0],
        "input": b'{"prompt":"a cat"}',
        "submitted_at": now,
        "expires_at": now + 100.0,
        "timeout_s": 10.0,
        "result_ttl_s": 50.0,
    }
    return Job(**{**fields, **changes})


@asynccontextmanager
async def opened(store: JobStore, boot: str = BOOT) -> AsyncIterator[JobStore]:
    """The store, open for as long as the block."""
    await store.open(boot)
    try:
        yield store
    finally:
        await store.close()


class Bench:
    """A store under test with its clock, and short ways to put jobs into it."""

    def __init__(self, store: JobStore, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock

    async def queued(self, function: str = "gpu", **changes: Any) -> Job:
        return await self.store.submit(a_job(self.clock, function, **changes), max_queue=ROOM)

    async def running(self, function: str = "gpu", **changes: Any) -> Job:
        return await self.store.submit(a_job(self.clock, function, **changes), max_queue=ROOM, claim=BY)

    async def ended(self, end: End = DONE, **changes: Any) -> Job:
        job = await self.running(**changes)
        after = await self.store.finish(job.id, job.fence, end)
        assert after is not None
        return after

    async def claim_ids(self, *functions: str, limit: int = 1) -> list[str]:
        return [job.id for job in await self.store.claim(functions or ("gpu",), BY, limit=limit)]
