"""Many calls in one transaction: each alone when it fails, all again when the database gives up."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from flashfw.cluster.jobs import database
from flashfw.cluster.jobs.lane import Call
from flashfw.cluster.jobs.model import State
from flashfw.cluster.jobs.store import StoreError
from flashfw.cluster.jobs.tally import Tally
from flashfw.cluster.jobs.transactions import GroupCommit


class Notes:
    """A table of numbers beside the store's own, and calls that write to it."""

    def __init__(self) -> None:
        self.database = database.connect(None, synchronous="NORMAL")
        database.migrate(self.database)
        self.database.execute("CREATE TABLE notes (number)")
        self.tally = Tally()
        self.commit = GroupCommit(self.database, self.tally, on_undo=lambda: None)

    def write(self, number: int) -> int:
        self.database.execute("INSERT INTO notes VALUES (?)", (number,))
        self.tally.enter("gpu", State.IN_QUEUE)
        return number

    def run(self, *calls: Callable[[], object]) -> list[object]:
        outcomes = self.commit([Call(call, ()) for call in calls])
        return [outcome.error or outcome.value for outcome in outcomes]

    def kept(self) -> list[int]:
        assert not self.database.in_transaction
        numbers = [number for (number,) in self.database.execute("SELECT number FROM notes")]
        assert self.tally.pending(["gpu"]).total == len(numbers)
        return numbers


@pytest.fixture
def notes() -> Iterator[Notes]:
    notes = Notes()
    with closing(notes.database):
        yield notes


def test_a_failing_call_is_undone_alone_with_its_count(notes: Notes) -> None:
    def fails() -> None:
        notes.write(2)
        raise KeyError("mine")

    first, error, third = notes.run(lambda: notes.write(1), fails, lambda: notes.write(3))

    assert (first, third) == (1, 3)
    assert isinstance(error, KeyError)
    assert notes.kept() == [1, 3]


def test_an_error_of_the_database_is_a_store_error_with_its_cause(notes: Notes) -> None:
    (error,) = notes.run(lambda: notes.database.execute("INSERT INTO nowhere VALUES (1)"))

    assert isinstance(error, StoreError)
    assert "no such table: nowhere" in str(error)
    assert isinstance(error.__cause__, sqlite3.OperationalError)


def test_where_the_database_drops_the_transaction_the_calls_are_done_again_one_by_one(notes: Notes) -> None:
    def drops() -> None:
        notes.write(2)
        notes.database.execute("ROLLBACK")  # as SQLite itself may, when the disk is full
        raise sqlite3.OperationalError("database or disk is full")

    first, error, third = notes.run(lambda: notes.write(1), drops, lambda: notes.write(3))

    assert (first, third) == (1, 3)
    assert isinstance(error, StoreError)
    assert "free some space" in str(error)
    assert notes.kept() == [1, 3]


def test_what_is_no_error_of_a_call_leaves_no_transaction_behind(notes: Notes) -> None:
    def exits() -> None:
        notes.write(2)
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        notes.run(lambda: notes.write(1), exits)
    assert notes.kept() == []
