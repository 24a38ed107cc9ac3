"""Calls of a lane as transactions: many in one on the writing side, each by itself on the reading side."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from flashfw.cluster.jobs.lane import Call, Outcome
from flashfw.cluster.jobs.store import StoreError
from flashfw.cluster.jobs.tally import Tally


class GroupCommit:
    """Does all calls of a batch in one transaction, so that they share the price of a commit.

    Each call has a savepoint: one that fails is undone alone. Where SQLite gives up the whole
    transaction (disk full, I/O error), the calls are done again one by one, and those that fit are kept.
    """

    def __init__(self, database: sqlite3.Connection, tally: Tally) -> None:
        self._database = database
        self._tally = tally

    def __call__(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            return [_failed(error)] * len(calls)
        try:
            outcomes = [self._do(call) for call in calls]
            self._tally.save(self._database)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            if len(calls) == 1:
                return [_failed(error)]
            return [outcome for call in calls for outcome in self([call])]
        except BaseException:
            self._undo()
            raise
        self._tally.publish()
        return outcomes

    def _undo(self) -> None:
        self._tally.undo()
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def _do(self, call: Call) -> Outcome:
        self._database.execute("SAVEPOINT call")
        mark = self._tally.mark()
        try:
            outcome = Outcome(call.do(*call.arguments))
        except Exception as error:  # its caller gets it
            if not self._database.in_transaction:
                raise
            self._tally.undo(mark)
            self._database.execute("ROLLBACK TO call")
            outcome = _failed(error)
        self._database.execute("RELEASE call")
        return outcome


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
