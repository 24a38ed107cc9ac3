"""Calls of a lane as transactions of PostgreSQL, over connections that may break at any moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs.lane import Call, Outcome
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.postgres_database import Connection, Line, Unreachable, failed, is_lost
from flashfw.cluster.jobs.postgres_ledger import SQL, Desk, PostgresLedger
from flashfw.cluster.jobs.postgres_listener import Listener

TRIES = 5
"""Of a call that other servers' transactions, or a broken connection, kept from being done."""

PASSING = ("40001", "40P01", "55P03")
"""Serialization failure, deadlock, lock not available: the same may succeed a moment later."""


class Unsure(Unreachable):
    """The connection broke while it committed, and the database cannot be asked what came of it."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A transaction of which nobody knows whether it was committed."""

    number: int
    calls: Sequence[Call]
    outcomes: Sequence[Outcome]


class Commits:
    """Does all calls of a batch in one transaction, so that they share the price of a commit.

    Each transaction writes its number with it. When the answer to a COMMIT is lost, the number says on
    the next connection whether it was done. Those whose callers were told an error by then are taken
    back: jobs that they claimed are released, jobs that they submitted are withdrawn. They are told one
    after `unsure_s` without a new connection.
    """

    def __init__(
        self,
        line: Line,
        desk: Desk,
        ledger: PostgresLedger,
        clock: Clock,
        *,
        channel: str,
        listener: Listener,
        unsure_s: float,
    ) -> None:
        self._line = line
        self._desk = desk
        self._ledger = ledger
        self._clock = clock
        self._channel = channel
        self._listener = listener
        self._unsure_s = unsure_s
        self._boot = ledger.news.boot
        self._number = -1
        self._open: _Open | None = None
        self._pause = threading.Event()

    def __call__(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        try:
            return self._transact(calls)
        except Unreachable as failure:
            self._undo()
            return [Outcome(error=failure)] * len(calls)
        except BaseException as error:
            self._undo()
            if not isinstance(error, Exception):
                raise
        return [self._alone(call) for call in calls]

    def _alone(self, call: Call) -> Outcome:
        tries = TRIES
        while True:
            tries -= 1
            try:
                return self._transact([call])[0]
            except Exception as error:
                self._undo()
                if isinstance(error, Unreachable) or tries == 0 or not self._passes(error):
                    return Outcome(error=failed(error, self._line.address))

    def _passes(self, error: Exception) -> bool:
        connection = self._desk.connection
        lost = connection is not None and connection.closed
        return lost or (isinstance(error, psycopg.Error) and error.sqlstate in PASSING)

    def _transact(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        self._settle()
        connection = self._desk.connection = self._line.connection()
        self._desk.writes = 0
        connection.execute(b"BEGIN", prepare=False)
        outcomes = [self._do(call) for call in calls]
        if self._desk.writes:
            self._commit(connection, self._ending(connection), calls, outcomes)
        else:
            connection.execute(b"COMMIT", prepare=False)
        self._ledger.tally.publish()
        self._ledger.news.states.clear()
        return outcomes

    def _do(self, call: Call) -> Outcome:
        written = self._desk.writes
        try:
            return Outcome(call.do(*call.arguments))
        except psycopg.Error:  # the transaction can only be undone
            raise
        except Exception as error:  # its caller gets it
            if self._desk.writes != written:
                raise
            return Outcome(error=error)

    def _ending(self, connection: Connection) -> str:
        """The last statements of the transaction, which go to the server together: each way there and back counts."""
        self._number = self._latest(connection) + 1 if self._number < 0 else self._number + 1
        changes = self._ledger.tally.changes()
        functions, names = [function for function, _ in changes], [name for _, name in changes]
        quoted = psycopg.ClientCursor(connection).mogrify
        counts = (self._boot, self._number, self._boot, functions, names, list(changes.values()))
        statements = [quoted(SQL["save_tallies"].encode(), counts)]
        if self._listener.has_others:
            statements += [quoted(SQL["notify"].encode(), (self._channel, note)) for note in self._ledger.news.notes()]
        return ";".join([*statements, "COMMIT"])

    def _commit(self, connection: Connection, ending: str, calls: Sequence[Call], outcomes: Sequence[Outcome]) -> None:
        session = connection.info.backend_pid
        try:
            connection.execute(ending.encode(), prepare=False)
        except psycopg.Error as error:
            if not is_lost(connection, error):
                raise
            was_committed = self._ask(session)
            if was_committed is None:
                self._open = _Open(self._number, calls, outcomes)
                raise Unsure(
                    f"the connection to PostgreSQL at {self._line.address} broke while it committed",
                    hint="whether it was kept is not known; it will be taken back if it was",
                ) from None
            if not was_committed:
                raise

    def _ask(self, session: int) -> bool | None:
        """Whether the last transaction, of a session that was lost, was committed; None if nobody answers."""
        until = self._clock.monotonic() + self._unsure_s
        while True:
            try:
                connection = self._line.connection()
                connection.execute(SQL["end_session"].encode(), (session, self._line.name))
                return self._was_committed(connection, self._number)
            except Unreachable:
                pass
            except psycopg.Error as error:
                is_lost(connection, error)
            if self._clock.monotonic() > until:
                return None
            self._pause.wait(0.05)

    def _was_committed(self, connection: Connection, number: int) -> bool:
        return self._latest(connection) >= number

    def _latest(self, connection: Connection) -> int:
        """The number of this boot's last transaction that was committed."""
        row = connection.execute(SQL["last_commit"].encode(), [self._boot]).fetchone()
        return int(row[0]) if row else 0

    def _settle(self) -> None:
        """Take back what was committed though its callers were told an error."""
        if self._open is None:
            return
        unsettled = self._open
        connection = self._line.connection()
        committed = self._was_committed(connection, unsettled.number)
        self._open = None
        try:
            if committed:
                self._transact([Call(self._take_back, (unsettled,))])
        except BaseException:
            self._open = self._open or unsettled
            raise

    def _take_back(self, unsettled: _Open) -> None:
        self._ledger.renew()
        for call, outcome in zip(unsettled.calls, unsettled.outcomes, strict=True):
            for job in _jobs(outcome.value):
                if job.state is State.IN_PROGRESS:
                    self._ledger.release(job.id, job.fence)
                elif job.state.is_terminal:
                    self._ledger.ends[job.id, job.fence] = job
                if call.do == self._ledger.submit:
                    self._ledger.withdraw(job)

    def _undo(self) -> None:
        self._ledger.tally.undo()
        self._ledger.news.states.clear()
        self._ledger.distrust()
        connection = self._desk.connection
        if connection is not None and not connection.closed:
            try:
                connection.execute(b"ROLLBACK", prepare=False)
            except psycopg.Error:
                connection.close()


class Reads:
    """Does each call by itself: every statement sees all that was committed before it."""

    def __init__(self, line: Line, desk: Desk) -> None:
        self._line = line
        self._desk = desk

    def __call__(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        return [self._read(call, tries=2) for call in calls]

    def _read(self, call: Call, *, tries: int) -> Outcome:
        try:
            connection = self._desk.connection = self._line.connection()
            return Outcome(call.do(*call.arguments))
        except psycopg.Error as error:
            if is_lost(connection, error) and tries > 1:
                return self._read(call, tries=tries - 1)
            return Outcome(error=failed(error, self._line.address))
        except Exception as error:  # its caller gets it
            return Outcome(error=error)


def _jobs(value: Any) -> Iterator[Job]:
    """The jobs in what a method of the ledger answered."""
    if isinstance(value, Job):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _jobs(item)
