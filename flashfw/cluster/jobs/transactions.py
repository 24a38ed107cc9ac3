"""Calls of a lane as transactions: many in one on the writing side, each by itself on the reading side."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from flashfw.cluster.jobs.lane import Call, Outcome
from flashfw.cluster.jobs.store import StoreError
from flashfw.cluster.jobs.tally import Tally


class GroupCommit:
    """Does all calls of a batch in one transaction, so that they share the price of a commit.

    A call that fails before it wrote anything (a refusal) fails alone. After any other failure (a
    constraint, a full disk) all is undone, and the calls are done again one by one: those that can
    be are kept. That is rare, and a savepoint per call would cost each of them.
    """

    def __init__(self, database: sqlite3.Connection, tally: Tally, *, on_undo: Callable[[], None]) -> None:
        self._database = database
        self._tally = tally
        self._on_undo = on_undo

    def __call__(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            return [_failed(error)] * len(calls)
        try:
            outcomes = [self._do(call) for call in calls]
            self._tally.save(self._database)
            self._database.execute("COMMIT")
        except BaseException as error:
            self._undo()
            if not isinstance(error, Exception):
                raise
            return [_failed(error)] if len(calls) == 1 else [self([call])[0] for call in calls]
        self._tally.publish()
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
