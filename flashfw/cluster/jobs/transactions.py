"""Calls of a lane as transactions: many in one on the writing side, each by itself on the reading side."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from flashfw.cluster.jobs import database as file
from flashfw.cluster.jobs.lane import Call, Outcome
from flashfw.cluster.jobs.store import StoreError
from flashfw.cluster.jobs.tally import Tally

LOG_PAGES = 1000
"""The write-ahead log is copied into the file once it has so many, which takes two waits for the disk."""


class GroupCommit:
    """Does all calls of a batch in one transaction, so that they share the price of a commit.

    A call that fails before it wrote anything (a refusal) fails alone. After any other failure (a
    constraint, a full disk) all is undone, and the calls are done again one by one: those that can
    be are kept. That is rare, and a savepoint per call would cost each of them.

    To call it waits for the disk: for another program's lock, for a full log that is copied into the file, and where
    it is synchronous for the log. `prepare` and `commit` are the same by halves, for a thread that must not wait: they
    give up instead, having done nothing, and `commit` never copies the log.
    """

    def __init__(self, database: sqlite3.Connection, tally: Tally, *, on_undo: Callable[[], None]) -> None:
        self._database = database
        self._tally = tally
        self._on_undo = on_undo
        self._copies_log = True
        database.execute("PRAGMA busy_timeout = 0")

    def __call__(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        try:
            self._copy_log(True)
            self._begin()
        except sqlite3.Error as error:
            return [_failed(error)] * len(calls)
        try:
            outcomes = self._do_all(calls)
            self._database.execute("COMMIT")
        except BaseException as error:
            self._undo()
            if not isinstance(error, Exception):
                raise
            return [_failed(error)] if len(calls) == 1 else [self([call])[0] for call in calls]
        self._tally.publish()
        return outcomes

    def prepare(self, calls: Sequence[Call]) -> Sequence[Outcome] | None:
        """Do all calls in a transaction that stays open, and is nobody's but its `commit`'s; None if it was undone."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            return self._do_all(calls)
        except BaseException as error:
            self._undo()
            if not isinstance(error, Exception):
                raise
            return None

    def commit(self, *, copies_log: bool) -> bool:
        """Keep what was prepared; False if it was undone. With `copies_log` it may wait for the disk as a call does."""
        try:
            self._copy_log(copies_log)
            self._database.execute("COMMIT")
        except sqlite3.Error:
            self._undo()
            return False
        self._tally.publish()
        return True

    def _begin(self) -> None:
        """Begin, once no other program has the file's lock."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self._database.execute(f"PRAGMA busy_timeout = {round(file.BUSY_S * 1000)}")
            try:
                self._database.execute("BEGIN IMMEDIATE")
            finally:
                self._database.execute("PRAGMA busy_timeout = 0")

    def _copy_log(self, copies: bool) -> None:
        if copies is not self._copies_log:
            self._copies_log = copies
            self._database.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES if copies else 0}")

    def _do_all(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        outcomes = [self._do(call) for call in calls]
        self._tally.save(self._database)
        return outcomes

    def _undo(self) -> None:
        self._tally.undo()
        self._on_undo()
        if self._database.in_transaction:  # SQLite ends it by itself when the disk is full
            self._database.execute("ROLLBACK")

    def _do(self, call: Call) -> Outcome:
        written = self._database.total_changes
        try:
            return Outcome(call.do(*call.arguments))
        except Exception as error:  # its caller gets it
            if self._database.total_changes != written or not self._database.in_transaction:
                raise
            return _failed(error)


def read(calls: Sequence[Call]) -> Sequence[Outcome]:
    """Do each call by itself: every statement sees all that was committed before it."""
    return [_read(call) for call in calls]


def _read(call: Call) -> Outcome:
    try:
        return Outcome(call.do(*call.arguments))
    except Exception as error:  # its caller gets it
        return _failed(error)


def _failed(error: Exception) -> Outcome:
    if not isinstance(error, sqlite3.Error):
        return Outcome(error=error)
    hint = "free some space on its disk" if "full" in str(error) else ""
    failure = StoreError(f"the job store cannot do it: {error}", hint=hint)
    failure.__cause__ = error
    return Outcome(error=failure)
