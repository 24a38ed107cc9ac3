"""The SQLite store's own: its files, its lock, its schema, and a disk that is full."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs import database
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.statements import SQL
from flashfw.cluster.jobs.store import Count, StoreError
from tests.cluster.jobs.conformance import BOOT, BROKEN, BY, DONE, ROOM, Bench, a_job, opened

pytestmark = pytest.mark.anyio

HOLD = """
import asyncio, sys
from pathlib import Path
from flashfw.cluster.clock import SystemClock
from flashfw.cluster.jobs.sqlite import SqliteStore

async def hold():
    await SqliteStore(Path(sys.argv[1]), clock=SystemClock()).open("boot")
    print("held", flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(hold())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "jobs.sqlite"


@pytest.fixture
def store(path: Path) -> SqliteStore:
    return SqliteStore(path, clock=ManualClock())


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
async def test_files_are_their_owners_alone(path: Path, synchronous: database.Synchronous) -> None:
    store = SqliteStore(path, clock=ManualClock(), synchronous=synchronous)
    assert store.is_synced is (synchronous == "FULL")
    async with opened(store):
        await Bench(store, ManualClock()).running()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    names = ["jobs.sqlite", "jobs.sqlite-shm", "jobs.sqlite-wal", "jobs.sqlite.lock"]
    assert modes == dict.fromkeys(names, 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


async def test_a_second_process_is_refused_until_the_first_is_gone(
    store: SqliteStore, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(StoreError, match=rf"in use by process {holder.pid}; stop that process"):
        await store.open(BOOT)
    holder.kill()
    await asyncio.to_thread(holder.wait)
    async with opened(store):
        pass


async def test_a_second_store_of_the_same_process_is_refused_too(store: SqliteStore, path: Path) -> None:
    async with opened(store):
        with pytest.raises(StoreError, match="in use"):
            await SqliteStore(path, clock=ManualClock()).open(BOOT)


async def test_a_file_of_a_newer_flashfw_is_left_alone(store: SqliteStore, path: Path) -> None:
    async with opened(store):
        pass
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")

    for _ in range(2):
        with pytest.raises(StoreError, match="has schema 99, and this flashfw knows up to 3; a newer flashfw wrote it"):
            await store.open(BOOT)


@pytest.mark.parametrize("content", [b"no database at all, but text that goes on for a while" * 100, bytes(5000)])
async def test_a_file_that_is_no_database_is_an_error(store: SqliteStore, path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(StoreError, match="not a database"):
        await store.open(BOOT)
    assert path.read_bytes() == content


async def test_a_place_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot be opened"):
        await SqliteStore(tmp_path / "file" / "jobs.sqlite", clock=ManualClock()).open(BOOT)


async def test_a_foreign_table_in_the_way_is_an_error_and_stays(store: SqliteStore, path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE tallies (mine)")

    with pytest.raises(StoreError, match="tallies already exists"):
        await store.open(BOOT)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT name FROM sqlite_master").fetchall() == [("tallies",)]


async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(store: SqliteStore, path: Path) -> None:
    clock = ManualClock()
    async with opened(store):
        jobs = [a_job(clock, input=bytes(3_000_000 if number == 4 else 10)) for number in range(8)]
        with _files_up_to(1_000_000):
            calls = [store.submit(job, max_queue=ROOM) for job in jobs]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(answer, Job) for answer in answers] == [True] * 4 + [False] + [True] * 3
        assert isinstance(answers[4], StoreError)
        assert store.pending(["gpu"]).total == 7
        assert await store.get(jobs[4].id) is None
        await store.submit(jobs[4], max_queue=ROOM)

    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT COUNT(*) FROM jobs").fetchone() == (8,)
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_result_that_does_not_fit_may_be_written_later(store: SqliteStore) -> None:
    async with opened(store):
        job = await Bench(store, ManualClock()).running()
        with _files_up_to(0):
            with pytest.raises(StoreError):
                await store.finish(job.id, job.fence, DONE)
            assert await store.get(job.id) == job
        assert await store.finish(job.id, job.fence, DONE) is not None


async def test_a_claim_that_was_not_kept_is_nobodys(store: SqliteStore) -> None:
    async with opened(store):
        queued, new = await Bench(store, ManualClock()).queued(), a_job(ManualClock())
        with _files_up_to(0):
            with pytest.raises(StoreError):
                await store.claim(["gpu"], BY)
            with pytest.raises(StoreError):
                await store.submit(new, max_queue=ROOM, claim=BY)

        assert await store.finish(queued.id, 1, DONE) is None
        assert await store.finish(new.id, 1, DONE) is None
        assert [job.id for job in await store.list()] == [queued.id]
        assert await store.get(queued.id) == queued
        assert await store.counts() == [Count("gpu", State.IN_QUEUE, 1)]


async def test_counts_are_those_of_the_rows(store: SqliteStore, path: Path) -> None:
    async with opened(store):
        bench = Bench(store, ManualClock())
        await asyncio.gather(*(bench.ended() for _ in range(20)), *(bench.queued() for _ in range(20)))
        counts = {(count.function, count.state.value): count.jobs for count in await store.counts()}

    with closing(sqlite3.connect(path)) as file:
        rows = file.execute("SELECT function, state, COUNT(*) FROM jobs GROUP BY 1, 2").fetchall()
    assert {(function, state): jobs for function, state, jobs in rows} == counts


async def test_nothing_of_a_forgotten_job_stays(path: Path) -> None:
    clock = ManualClock()
    async with opened(SqliteStore(path, clock=clock)) as store:
        bench = Bench(store, clock)
        job = await bench.running(webhook="https://example.com/", idempotency_key="k", input_digest="d")
        await store.add_chunks(job.id, 1, [b"1", b"2"])
        await store.set_read_position(job.id, 1, 1)
        await store.finish(job.id, 1, BROKEN)
        await store.retry(job.id)
        await store.cancel(job.id)
        for delivery in await store.deliveries(limit=9, lease_s=1):
            await store.undelivered(delivery.id, error="HTTP 410", retry_at=None)
        assert _rows(path) == {"jobs": 1, "inputs": 1, "chunks": 2, "readers": 1, "deliveries": 2, "superseded": 1}
        clock.advance(50)
        await store.expire()

    assert _rows(path) == {}


async def test_nothing_of_a_delivery_that_was_made_stays(path: Path) -> None:
    clock = ManualClock()
    async with opened(SqliteStore(path, clock=clock)) as store:
        job = await Bench(store, clock).ended(BROKEN, webhook="https://example.com/")
        await store.retry(job.id)
        await store.cancel(job.id)
        for delivery in await store.deliveries(limit=9, lease_s=1):
            await store.delivered(delivery.id)

    assert _rows(path) == {"jobs": 1, "inputs": 1}


def _rows(path: Path) -> dict[str, int]:
    """How many rows each table has that holds something of jobs."""
    tables = ("jobs", "inputs", "chunks", "readers", "deliveries", "superseded")
    with closing(sqlite3.connect(path)) as file:
        counts = {table: file.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables}
    return {table: rows for table, rows in counts.items() if rows}


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("next_claimable", "jobs_claimable"),
        ("next_beside", "jobs_claimable"),
        ("next_due", "jobs_parked"),
        ("oldest_waiting", "jobs_waiting"),
        ("unpark", "jobs_parked"),
        ("orphans", "jobs_running"),
        ("expiring", "jobs_expiring"),
        ("forgettable", "jobs_forgettable"),
        ("find_idempotent", "jobs_idempotent"),
        ("last_chunk", "chunks_in_order"),
        ("chunks", "chunks_in_order"),
        ("list_dead", "jobs_dead"),
        ("due_deliveries", "deliveries_due"),
        ("supersede", "deliveries_of_job"),
        ("delete_superseded_of_job", "deliveries_of_job"),
        ("delete_deliveries_of_job", "deliveries_of_job"),
        ("story", "journal_of_job"),
        ("happened", "journal_of_endpoint"),
    ],
)
def test_no_statement_of_the_hot_path_reads_or_sorts_the_whole_table(statement: str, index: str) -> None:
    with closing(database.connect(None, synchronous="NORMAL")) as memory:
        database.migrate(memory)
        sql = SQL[statement]
        rows = memory.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?")).fetchall()
    plan = "\n".join(row[-1] for row in rows)

    assert index in plan
    assert "SCAN" not in plan.replace("SCAN jobs USING INDEX jobs_running", "")
    assert "TEMP B-TREE" not in plan


@contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
