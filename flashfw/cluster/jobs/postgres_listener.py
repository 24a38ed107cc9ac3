"""What other servers on a schema did, heard by a thread with a connection of its own."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg
from psycopg import sql

from flashfw.cluster.jobs.postgres_database import Connection, Line, Unreachable, is_lost
from flashfw.cluster.jobs.postgres_ledger import read_note
from flashfw.cluster.jobs.store import Change

EVERY_S = 1.0
"""Between looks at what might have been missed."""

STANDSTILL_S = 10.0
"""A server that stands still (SIGSTOP, a suspended machine) asks nothing: after so long the database ends its
connection, and with that the lock that says that it lives. PostgreSQL 13 cannot do so."""

OTHERS = """
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::BIGINT = hashtext(%s)::BIGINT & 4294967295)
"""


class Listener:
    """Holds the lock that says that this server lives, and listens, from `start` to `close`.

    `on_news` is called in its thread: with what others changed; with nothing about once a second and
    after the connection was lost, since news may have been missed (`was_lost`). `has_others` is whether
    anybody else is there to be told anything.
    """

    def __init__(self, line: Line, *, boot: str, space: str, on_news: Callable[[Sequence[Change], bool], None]) -> None:
        self.has_others = False
        self._line = line
        self._boot = boot
        self._space = space
        self._on_news = on_news
        self._heard: list[Change] = []
        self._connection: Connection | None = None
        self._stop_read, self._stop_write = os.pipe()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="flashfw-jobs-listener", daemon=True)

    def start(self) -> None:
        """Lock and listen before anything else is done.

        Raises:
            StoreError: the database cannot be reached.
        """
        self._arrive()
        self._thread.start()

    def close(self) -> None:
        """Hear no more, and let go of the lock."""
        self._stopping = True
        os.write(self._stop_write, b"x")
        if self._thread.ident is not None:
            self._thread.join()
        if self._connection is not None and not self._connection.closed:
            with suppress(psycopg.Error):
                self._connection.execute("SELECT pg_advisory_unlock_all()")
        self._line.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _arrive(self) -> None:
        connection = self._line.connection()
        try:
            connection.add_notify_handler(self._note)
            if connection.info.server_version >= 140_000:
                connection.execute(f"SET idle_session_timeout TO {round(STANDSTILL_S * 1000)}")
            connection.execute("SELECT pg_advisory_lock(hashtext(%s), hashtext(%s))", (self._space, self._boot))
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._space)))
            self._look(connection)
            if self.has_others:  # they may not know yet that somebody listens
                connection.execute("SELECT pg_notify(%s, %s)", (self._space, f'["{self._boot}"]'))
        except psycopg.Error:
            connection.close()
            raise
        self._connection = connection

    def _work(self) -> None:
        was_lost = False
        while not self._stopping:
            try:
                if was_lost:
                    self._arrive()
                self._on_news((), was_lost)
                was_lost = False
                self._listen()
            except (Unreachable, psycopg.Error, OSError):
                was_lost = True
                self._wait(0.05)

    def _listen(self) -> None:
        connection = self._connection
        assert connection is not None
        try:
            while not self._stopping:
                is_due = not self._wait(EVERY_S, connection.fileno())
                if is_due:
                    self._look(connection)
                else:
                    connection.execute("SELECT")  # an answer brings the notes that came before it
                heard, self._heard = self._heard, []
                if heard or is_due:
                    self._on_news(heard, False)
        except psycopg.Error as error:
            if not is_lost(connection, error):
                connection.close()
            raise

    def _look(self, connection: Connection) -> None:
        row = connection.execute(OTHERS, [self._space]).fetchone()
        self.has_others = bool(row and row[0])

    def _note(self, notify: psycopg.Notify) -> None:
        with suppress(ValueError, TypeError):  # whoever else writes to the channel
            boot, changes = read_note(notify.payload)
            if boot != self._boot:
                self.has_others = True
                self._heard += changes

    def _wait(self, seconds: float, *descriptors: int) -> bool:
        """Whether one of the descriptors, or the end, came before the time was over."""
        poll = select.poll()  # `select` takes no descriptor above 1023, which a busy server has
        for descriptor in (self._stop_read, *descriptors):
            poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
