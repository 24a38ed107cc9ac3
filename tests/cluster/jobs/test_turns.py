"""What a loop writes itself and what it leaves to a thread: in order, in groups, and never held up."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from flashfw.cluster.jobs import database
from flashfw.cluster.jobs.model import State
from flashfw.cluster.jobs.store import StoreError
from flashfw.cluster.jobs.tally import Tally
from flashfw.cluster.jobs.transactions import LOG_PAGES, GroupCommit
from flashfw.cluster.jobs.turns import GROUP_BYTES, TURNS, TURNS_BYTES, TurnWriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Notes:
    """A table of numbers in a file of the store's own, each with the thread that wrote it."""

    def __init__(self, path: Path, *, waits_for_disk: bool = False) -> None:
        self.path = path
        self.database = database.connect(path, synchronous="NORMAL")
        database.migrate(self.database)
        self.database.execute("CREATE TABLE notes (number)")
        self.tally = Tally()
        self.threads: list[threading.Thread] = []
        self.commits: list[threading.Thread] = []
        self.database.set_trace_callback(self._trace)
        transaction = GroupCommit(self.database, self.tally, on_undo=lambda: None)
        self.writer = TurnWriter(transaction, waits_for_disk=waits_for_disk, name="notes")

    def write(self, number: object) -> object:
        self.threads.append(threading.current_thread())
        self.database.execute("INSERT INTO notes VALUES (?)", (number,))
        self.tally.enter("gpu", State.IN_QUEUE)
        return number

    def kept(self) -> list[int]:
        with closing(sqlite3.connect(self.path)) as other:
            numbers = [number for (number,) in other.execute("SELECT number FROM notes")]
        assert self.tally.pending(["gpu"]).total == len(numbers)
        return numbers

    async def pass_first(self) -> None:
        """The first transactions are the thread's."""
        for number in (-2, -1):
            await self.writer.call_small(self.write, number)
        self.threads.clear()
        self.commits.clear()

    def _trace(self, statement: str) -> None:
        if statement == "COMMIT":
            self.commits.append(threading.current_thread())


@asynccontextmanager
async def opened(notes: Notes) -> AsyncIterator[Notes]:
    with closing(notes.database):
        await notes.pass_first()
        yield notes
        await notes.writer.close()


HERE = threading.main_thread()


async def test_small_writes_of_one_turn_are_one_transaction_of_the_loop(tmp_path: Path) -> None:
    async with opened(Notes(tmp_path / "notes")) as notes:
        written = await asyncio.gather(*(notes.writer.call_small(notes.write, number) for number in range(5)))

        assert written == list(range(5))
        assert notes.threads == [HERE] * 5
        assert notes.commits == [HERE]
        assert notes.kept() == [-2, -1, *range(5)]


async def test_a_group_that_is_not_all_small_is_the_threads_and_keeps_its_order(tmp_path: Path) -> None:
    async with opened(Notes(tmp_path / "notes")) as notes:
        calls = (notes.writer.call_small, notes.writer.call, notes.writer.call_small)
        await asyncio.gather(*(call(notes.write, number) for number, call in enumerate(calls)))
        await notes.writer.call_small(notes.write, 3)

        assert HERE not in notes.threads[:3]
        assert notes.threads[3] is HERE
        assert notes.kept() == [-2, -1, 0, 1, 2, 3]


async def test_where_the_disk_is_waited_for_only_the_commit_is_the_threads(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes", waits_for_disk=True)
    async with opened(notes):
        await asyncio.gather(*(notes.writer.call_small(notes.write, number) for number in range(5)))

        assert notes.threads == [HERE] * 5
        assert len(notes.commits) == 1
        assert HERE not in notes.commits
        assert notes.kept() == [-2, -1, *range(5)]


@pytest.mark.parametrize("waits_for_disk", [False, True])
async def test_a_write_that_fails_takes_no_other_along(tmp_path: Path, waits_for_disk: bool) -> None:
    notes = Notes(tmp_path / "notes", waits_for_disk=waits_for_disk)

    def fails() -> None:
        notes.write(1)
        raise KeyError("mine")

    async with opened(notes):
        calls: list[Callable[[], object]] = [lambda: notes.write(0), fails, lambda: notes.write(2)]
        first, error, third = await asyncio.gather(*map(notes.writer.call_small, calls), return_exceptions=True)

        assert (first, third) == (0, 2)
        assert isinstance(error, KeyError)
        assert notes.kept() == [-2, -1, 0, 2]


async def test_another_programs_lock_holds_up_the_write_and_not_the_loop(tmp_path: Path) -> None:
    async with opened(Notes(tmp_path / "notes")) as notes:
        with closing(sqlite3.connect(notes.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            written = notes.writer.call_small(notes.write, 1)
            for _ in range(3):  # the loop turns
                await asyncio.sleep(0)
            later = notes.writer.call_small(notes.write, 2)
            assert not written.done()
            other.execute("ROLLBACK")

        assert await asyncio.gather(written, later) == [1, 2]
        assert notes.kept() == [-2, -1, 1, 2]


async def test_a_long_log_is_copied_into_the_file_by_the_thread(tmp_path: Path) -> None:
    async with opened(Notes(tmp_path / "notes")) as notes:
        pages = b"x" * 4096 * (LOG_PAGES // 100)
        before = notes.path.stat().st_size
        for _ in range(TURNS):
            await notes.writer.call_small(notes.write, pages)

        assert notes.path.stat().st_size > before + LOG_PAGES * 4096
        assert {thread is HERE for thread in notes.threads} == {True, False}


async def test_what_is_much_together_is_the_threads_though_each_is_small(tmp_path: Path) -> None:
    async with opened(Notes(tmp_path / "notes")) as notes:
        half = GROUP_BYTES // 2
        await asyncio.gather(*(notes.writer.call_small(notes.write, number, size=half) for number in range(2)))
        assert notes.threads == [HERE] * 2

        await asyncio.gather(*(notes.writer.call_small(notes.write, number, size=half) for number in range(2, 5)))
        assert HERE not in notes.threads[2:]
        assert notes.kept() == [-2, -1, *range(5)]


async def test_the_thread_may_copy_the_log_once_much_was_written_in_few_turns(tmp_path: Path) -> None:
    async with opened(Notes(tmp_path / "notes")) as notes:
        turns = TURNS_BYTES // GROUP_BYTES
        assert turns < TURNS
        for number in range(turns + 3):
            await notes.writer.call_small(notes.write, number, size=GROUP_BYTES)

        assert [thread is HERE for thread in notes.threads] == [True] * turns + [False, False, True]


async def test_a_group_that_cannot_even_be_undone_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with opened(Notes(tmp_path / "notes")) as notes:
        notes.database.close()
        for _ in range(2):
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                await notes.writer.call_small(notes.write, 1)


async def test_who_closes_waits_for_what_was_asked_for(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes")
    async with opened(notes):
        written = [notes.writer.call_small(notes.write, 1), notes.writer.call(notes.write, 2)]
    assert [answer.result() for answer in written] == [1, 2]
    assert notes.kept() == [-2, -1, 1, 2]


async def test_a_write_that_cannot_be_kept_says_why(tmp_path: Path) -> None:
    async with opened(Notes(tmp_path / "notes")) as notes:
        with pytest.raises(StoreError, match="no such table: nowhere"):
            await notes.writer.call_small(notes.database.execute, "INSERT INTO nowhere VALUES (1)")
