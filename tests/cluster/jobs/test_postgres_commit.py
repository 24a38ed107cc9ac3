"""A connection that breaks in the moment of a COMMIT: nothing is lost, nothing is done twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.jobs.model import Claimer, State
from flashfw.cluster.jobs.postgres import PostgresStore
from flashfw.cluster.jobs.store import Pending, StoreError, Tick
from tests.cluster.jobs.conformance import BY, DONE, ROOM, a_job
from tests.cut_proxy import CutProxy, Moment
from tests.postgres_server import PASSWORD, PostgresServer, new_schema

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()
MOMENTS: list[Moment] = ["before", "after"]


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[CutProxy]:
    proxy = CutProxy.to(postgres.url)
    proxy.start()
    yield proxy
    proxy.close()


@asynccontextmanager
async def opened(proxy: CutProxy, postgres: PostgresServer, **options: float) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(proxy.url(postgres.url), clock=CLOCK, schema=new_schema(), **options)
    await store.open(BY.boot)
    try:
        yield store
    finally:
        proxy.is_open = True
        await store.close()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_each_change_is_done_once(proxy: CutProxy, postgres: PostgresServer, moment: Moment) -> None:
    async with opened(proxy, postgres) as store:
        proxy.cut_at = moment
        job = await store.submit(a_job(CLOCK), max_queue=ROOM)
        assert [kept.id for kept in await store.list()] == [job.id]

        proxy.cut_at = moment
        (claimed,) = await store.claim(["gpu"], BY)
        assert (claimed.id, claimed.fence, claimed.attempt) == (job.id, 1, 1)
        assert await store.get(job.id) == claimed

        proxy.cut_at = moment
        ended = await store.finish(job.id, claimed.fence, DONE)
        assert ended is not None
        assert await store.get(job.id) == ended

        assert proxy.cuts == 3
        health = store.health("gpu")
        assert (health.queued, health.running, health.completed) == (0, 0, 1)


async def test_what_its_caller_was_told_an_error_for_is_taken_back(proxy: CutProxy, postgres: PostgresServer) -> None:
    async with opened(proxy, postgres, unsure_s=0.2) as store:
        waiting = await store.submit(a_job(CLOCK), max_queue=ROOM)
        running = await store.submit(a_job(CLOCK, "api"), max_queue=ROOM, claim=BY)

        await _unsure(proxy, store, store.claim(["gpu"], BY))
        (again,) = await store.claim(["gpu"], BY)  # else it would be nobody's
        assert (again.id, again.fence, again.attempt) == (waiting.id, 2, 1)

        await _unsure(proxy, store, store.submit(a_job(CLOCK), max_queue=ROOM))
        await _unsure(proxy, store, store.submit(a_job(CLOCK), max_queue=ROOM, claim=BY))
        assert store.pending(["gpu"]) == Pending()
        assert {job.id for job in await store.list()} == {waiting.id, running.id}

        await _unsure(proxy, store, store.finish(running.id, running.fence, DONE))
        ended = await store.finish(running.id, running.fence, DONE)
        assert ended is not None
        assert await store.get(running.id) == ended
        assert (store.health("api").completed, store.health("gpu").running) == (1, 1)


async def test_a_job_with_a_key_stays_since_others_may_wait_for_it(proxy: CutProxy, postgres: PostgresServer) -> None:
    async with opened(proxy, postgres, unsure_s=0.2) as store:
        keyed = a_job(CLOCK, idempotency_key="k")
        await _unsure(proxy, store, store.submit(keyed, max_queue=ROOM, claim=Claimer(boot=BY.boot, worker="v")))
        again = await store.submit(a_job(CLOCK, idempotency_key="k"), max_queue=ROOM)
        assert (again.id, again.state) == (keyed.id, State.IN_QUEUE)


async def _unsure(proxy: CutProxy, store: PostgresStore, call) -> None:  # type: ignore[no-untyped-def]
    """The call is committed; nobody hears of it, nor can ask, before its caller's patience ends. Then it is back."""
    proxy.cut_at = "after"
    proxy.shuts = True
    with pytest.raises(StoreError, match="broke while it committed.*taken back") as told:
        await call
    assert PASSWORD not in str(told.value)
    proxy.shuts, proxy.is_open = False, True
    with anyio.fail_after(60):
        while True:
            try:
                return await store.set_tick("back", Tick(0.0, None))
            except StoreError:
                await anyio.sleep(0.02)
