"""A full disk, another program's lock, a clock that jumps: no job of a store is lost, ends twice, or is stuck."""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs import database
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import StoreError
from tests.cluster.jobs.conformance import BY, a_job, opened
from tests.cluster.jobs.test_migration import OLD
from tests.faults.books import SqliteBooks
from tests.faults.store_work import Work

pytestmark = pytest.mark.anyio

SEEDS = range(1, 5)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
async def store(path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(database, "BUSY_S", 0.002)
    async with opened(SqliteStore(path, clock=clock)) as store:
        yield store


async def test_a_disk_that_is_full_now_and_then(store: SqliteStore, path: Path, clock: ManualClock, seed: int) -> None:
    work, chance = Work(store, clock, SqliteBooks(path), seed=seed), random.Random(seed)

    async def fill() -> None:
        size = max(file.stat().st_size for file in path.parent.iterdir())
        with _files_up_to(chance.choice([0, size, size + 10_000, size + 100_000])):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.005)

    await work.play(jobs=200, fault=fill, step=1.0)

    assert work.refusals > 0
    work.check()
    await work.check_deliveries()
    _is_sound(path)


async def test_another_program_holds_the_lock_now_and_then(
    store: SqliteStore, path: Path, clock: ManualClock, seed: int
) -> None:
    work = Work(store, clock, SqliteBooks(path), seed=seed)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as other:

        async def lock() -> None:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.01)
            other.execute("ROLLBACK")
            await asyncio.sleep(0.005)

        await work.play(jobs=200, fault=lock, step=1.0)

    assert work.refusals > 0
    work.check()
    await work.check_deliveries()


async def test_another_program_reads_all_the_while(store: SqliteStore, path: Path, clock: ManualClock) -> None:
    work = Work(store, clock, SqliteBooks(path), seed=1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT COUNT(*) FROM jobs").fetchone()
        await work.play(jobs=200, fault=lambda: asyncio.sleep(0.01), step=1.0)
        assert other.execute("SELECT COUNT(*) FROM jobs").fetchone() == (0,)

    assert work.refusals == 0
    work.check()


async def test_a_clock_that_jumps_back_and_forth(store: SqliteStore, path: Path, clock: ManualClock, seed: int) -> None:
    work, chance = Work(store, clock, SqliteBooks(path), seed=seed), random.Random(seed)

    async def jump() -> None:
        clock.advance(chance.choice([1, 5, 30, 90, -1, -5, -30, -90]))
        await asyncio.sleep(0.001)

    await work.play(jobs=300, fault=jump, step=1.0)

    work.check()
    await work.check_deliveries()


async def test_a_clock_that_is_set_back_while_the_disk_is_full(store: SqliteStore, clock: ManualClock) -> None:
    job = await store.submit(a_job(clock), max_queue=1, claim=BY)
    await store.reschedule(job.id, job.fence, b"{}", clock.now() + 30)
    clock.advance(-1000)
    with _files_up_to(0), pytest.raises(StoreError):
        await store.claim(["gpu"], BY)

    assert await store.unpark() == clock.now() + 30


async def test_a_store_that_could_not_be_opened_opens_when_it_can_be(path: Path, clock: ManualClock) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.executescript(OLD.read_text())
    store = SqliteStore(path, clock=clock)
    with _files_up_to(path.stat().st_size), pytest.raises(StoreError):
        await store.open("boot-2")
    assert await store.open("boot-2") == 1
    assert len(await store.list()) == 9
    await store.close()


FULL = """
import asyncio, sys
from pathlib import Path
from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import StoreError
from tests.cluster.jobs.conformance import BY, DONE, ROOM, a_job

async def main(folder):
    (folder / "ballast").write_bytes(bytes(3_000_000))
    clock, accepted = ManualClock(), []
    store = SqliteStore(folder / "jobs.sqlite", clock=clock)
    await store.open("boot-1")
    for _ in range(1000):
        try:
            accepted.append(await store.submit(a_job(clock, input=bytes(50_000)), max_queue=ROOM, claim=BY))
        except StoreError as error:
            assert "full" in str(error) and "free some space" in str(error), error
            break
    else:
        raise AssertionError("the disk was never full")
    for job in accepted[:3]:  # small writes may fit where large ones do not
        try:
            await store.finish(job.id, job.fence, DONE)
        except StoreError:
            pass
    await store.close()
    (folder / "ballast").unlink()
    await store.open("boot-1")
    kept = {job.id: job for job in await store.list(limit=ROOM)}
    assert kept.keys() == {job.id for job in accepted}, (len(kept), len(accepted))
    ended = [await store.finish(job.id, job.fence, DONE) for job in accepted if not kept[job.id].state.is_terminal]
    assert ended and all(ended)
    await store.close()
    print(len(accepted))

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_file_system_without_space_keeps_what_was_accepted(tmp_path: Path) -> None:
    if not shutil.which("unshare") or not _may_mount(tmp_path):
        pytest.skip("only where a file system may be mounted")
    mount = 'mount -t tmpfs -o size=8m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, FULL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def _may_mount(folder: Path) -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _is_sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
