"""A store that an earlier flashfw left: it opens, and keeps every job."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.database import SCHEMAS
from flashfw.cluster.jobs.model import Claimer, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import Health, JobStore, Pending, StoreError
from tests.cluster.jobs.conformance import DONE, opened

pytestmark = pytest.mark.anyio

OLD = Path(__file__).with_name("schema_1_store.sql")
"""Made at `ManualClock`'s first moment by the server `boot-1`, whose worker holds the job `running`."""

IDS = ["cancelled", "quarantined", "failed", "completed", "running", "parked-low", "parked", "low", "queued"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as file:
        file.executescript(OLD.read_text())
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
    return path


async def ids(store: JobStore, **wanted: object) -> list[str]:
    return [job.id for job in await store.list(**wanted)]  # type: ignore[arg-type]


async def test_every_job_is_kept_as_it_was(path: Path) -> None:
    async with opened(SqliteStore(path, clock=ManualClock())) as store:
        assert await ids(store) == IDS
        assert {job.alone for job in await store.list()} == {False}
        completed, running = await store.get("completed"), await store.get("running")
        assert completed is not None
        assert (completed.state, completed.output, completed.input_digest) == (State.COMPLETED, DONE.output, "d")
        assert [chunk.data for chunk in await store.chunks("completed")] == [b'"a"', b'"b"']
        assert running is not None
        assert await store.finish("running", running.fence, DONE) is not None
        assert await ids(store, dead=True) == ["quarantined"]
        assert store.health("other") == Health(queued=0, running=0, completed=0, failed=1, retried=2)

    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (len(SCHEMAS),)
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_its_queue_goes_on(path: Path) -> None:
    clock, by = ManualClock(), Claimer(boot="boot-2", worker="w")
    store = SqliteStore(path, clock=clock)
    assert await store.open("boot-2") == 1
    try:
        assert store.pending(["gpu"]) == Pending(claimable=3, parked=1, low=1)
        assert store.pending(["gpu/upscale"]) == Pending(parked=1)
        assert await store.unpark() == clock.now() + 20
        both = ["gpu", "gpu/upscale"]
        assert [job.id for job in await store.claim(both, by, limit=9)] == ["queued", "running", "low"]
        clock.advance(40)
        assert await store.unpark() is None
        assert store.pending(both) == Pending(claimable=2, low=1)
        assert [job.id for job in await store.claim(both, by, limit=9)] == ["parked", "parked-low"]
        assert store.pending(both) == Pending()
    finally:
        await store.close()


async def test_what_is_new_works_with_what_is_old(path: Path) -> None:
    clock = ManualClock()
    async with opened(SqliteStore(path, clock=clock)) as store:
        assert await store.deliveries(limit=9, lease_s=1) == []  # it ended before there were any
        await store.retry("failed")
        await store.cancel("parked")
        assert store.pending(["gpu"]) == Pending(claimable=3, low=1)
        clock.advance(60)
        await store.expire()
        assert await ids(store) == ["failed", "running", "parked-low", "low", "queued"]
        assert await ids(store, state=State.CANCELLED) == []


async def test_a_migration_that_fails_leaves_the_store_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE journal (mine)")
        before = list(file.iterdump())
    with pytest.raises(StoreError, match="journal already exists"):
        await SqliteStore(path, clock=ManualClock()).open("boot-1")

    with closing(sqlite3.connect(path)) as file:
        assert list(file.iterdump()) == before
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
        file.execute("DROP TABLE journal")
    async with opened(SqliteStore(path, clock=ManualClock())) as store:
        assert await ids(store) == IDS
