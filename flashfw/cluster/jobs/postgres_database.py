"""A PostgreSQL database: its address, connections that are made anew when they break, its schema."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs.store import StoreError
from flashfw.errors import UsageError

T = TypeVar("T")

MIGRATIONS = ("postgres_1.sql", "postgres_2.sql")
"""In their order; the schema's `meta` says how many of them it has seen."""

CONNECT_S = 5
"""For a connection to be made, unless the URL says otherwise."""

ADVICE = " Is the server running on that host and accepting TCP/IP connections?"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Between attempts to connect: the pause doubles from the first to the longest."""

SILENCE_S = 20.0
"""Without a byte of an answer, and the connection is taken for lost: a database that hangs, or whatever stands between
and swallows, says so to nobody."""

# A server that has stopped (SIGSTOP, a network that swallows) must not hold rows and its boot's lock for ever. Plans
# are kept, and one made while the queue was short must do for a long one: what has an index is read in its order.
# That makes the others look so costly that PostgreSQL would compile them to machine code, at a hundred times the price
# of running them.
SETTINGS = """
SET search_path TO {schema};
SET default_transaction_isolation TO 'read committed';
SET idle_in_transaction_session_timeout TO '10s';
SET lock_timeout TO '10s';
SET enable_seqscan TO off;
SET enable_bitmapscan TO off;
SET enable_sort TO off;
SET jit TO off;
SET tcp_keepalives_idle TO 10;
SET tcp_keepalives_interval TO 5;
SET tcp_keepalives_count TO 3;
"""
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """One to a database that may fall silent: then it breaks with an `OperationalError`, as if it were cut."""

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **named: Any) -> T:
        return super().wait(self._answered(gen), *arguments, **named)

    def _answered(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        until = time.monotonic() + SILENCE_S
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    until = time.monotonic() + SILENCE_S
                elif time.monotonic() > until:
                    self.close()
                    raise psycopg.OperationalError(f"no answer for {SILENCE_S:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return cast("T", done.value)


class Unreachable(StoreError):
    """There is no connection to the database now."""


ENDED_BY_SERVER = ("57P01", "57P02", "57P03", "57P05")
"""The server ends the connection: it shuts down, crashed, starts, or found the session idle for too long."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the database is. `str` of it may be shown: it holds no password."""

    conninfo: str
    shown: str
    password: str | None
    schema: str

    def __str__(self) -> str:
        return self.shown


def address(url: str, schema: str) -> Address:
    """The address in a URL (`postgresql://user:password@host:port/database`) or in words (`host=... dbname=...`).

    Raises:
        UsageError: it is not one. The message does not repeat it, since it may hold a password.
    """
    try:
        parts: dict[str, Any] = {"connect_timeout": CONNECT_S, **KEEPALIVES, **conninfo_to_dict(url)}
        conninfo = make_conninfo("", **parts)
    except (psycopg.Error, UnicodeError):
        raise UsageError(
            "the database's address cannot be understood",
            hint="it is written postgresql://USER:PASSWORD@HOST:PORT/DATABASE; %-encode special characters in it",
        ) from None
    user = f"{parts['user']}@" if parts.get("user") else ""
    port = f":{parts['port']}" if parts.get("port") else ""
    shown = f"postgresql://{user}{parts.get('host') or parts.get('hostaddr') or ''}{port}/{parts.get('dbname') or ''}"
    return Address(conninfo, shown, parts.get("password"), schema)


def connect(at: Address, *, name: str) -> Connection:
    """A connection for one thread at a time that commits each statement by itself. `name` is what the server shows.

    Raises:
        Unreachable: there is no server, or it refuses.
    """
    try:
        connection = Connection.connect(at.conninfo, autocommit=True, prepare_threshold=0, application_name=name)
        try:
            settings = sql.SQL(SETTINGS).format(schema=sql.Identifier(at.schema))
            connection.execute(settings, prepare=False)
        except BaseException:
            connection.close()
            raise
    except psycopg.Error as error:
        raise Unreachable(f"PostgreSQL at {at} cannot be reached: {told(error, at)}", hint=_hint(error)) from None
    return connection


def told(error: Exception, at: Address) -> str:
    """What the driver or the server said, on one line, without the password and libpq's own advice."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.removesuffix(ADVICE).removeprefix("connection failed: ")
    return text.replace(at.password, "***") if at.password else text


def failed(error: Exception, at: Address) -> Exception:
    """What a caller gets for an error of its operation."""
    if not isinstance(error, psycopg.Error):
        return error
    hint = "free some space on the disk of the database" if error.sqlstate == "53100" else ""
    failure = StoreError(f"the job store cannot do it: {told(error, at)}", hint=hint)
    failure.__cause__ = error
    return failure


def is_lost(connection: Connection, error: BaseException) -> bool:
    """Whether the connection came to its end with the error."""
    if isinstance(error, psycopg.Error) and error.sqlstate in ENDED_BY_SERVER:
        connection.close()
    return connection.closed


def _hint(error: Exception) -> str:
    text = str(error)
    if "password" in text:
        return "set the right user and password in the URL, or in PGPASSWORD"
    if "does not exist" in text:
        return "make it with createdb or createuser, or name another one in the URL"
    if "too many clients" in text or "remaining connection slots" in text:
        return "raise max_connections of the server: flashfw holds three"
    return "is the server running, and does it listen there?"


class Line:
    """A connection that is made at need, and anew when it broke, with growing pauses between attempts.

    For one thread. While a pause lasts every use fails at once, as the last attempt did.
    """

    def __init__(self, at: Address, clock: Clock, *, name: str) -> None:
        self._at = at
        self._clock = clock
        self._name = name
        self._connection: Connection | None = None
        self._failure: Unreachable | None = None
        self._pause_s = FIRST_PAUSE_S
        self._next_at = 0.0

    @property
    def address(self) -> Address:
        return self._at

    @property
    def name(self) -> str:
        return self._name

    def connection(self) -> Connection:
        """The connection.

        Raises:
            Unreachable: it cannot be made now.
        """
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if self._failure is not None and self._clock.monotonic() < self._next_at:
            raise Unreachable(self._failure.what, hint=self._failure.hint)
        try:
            self._connection = connect(self._at, name=self._name)
        except Unreachable as failure:
            self._failure = failure
            self._next_at = self._clock.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            raise
        self._failure, self._pause_s = None, FIRST_PAUSE_S
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def migrate(connection: Connection, at: Address) -> None:
    """Make the schema, or bring it to the newest version, a transaction per step; others that start meanwhile wait.

    Raises:
        StoreError: a newer flashfw made it, or a step fails; the version before it stands.
    """
    try:
        while _step(connection, at):
            pass
    except psycopg.Error as error:
        hint = "the user of the URL needs the right to create a schema in the database"
        raise StoreError(f"the job store's schema {at.schema!r} cannot be made: {told(error, at)}", hint=hint) from None


def _step(connection: Connection, at: Address) -> bool:
    """Take one step of the migration; whether there may be another."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('flashfw migrates'), hashtext(%s))", [at.schema])
        version = _version(connection, at)
        if version > len(MIGRATIONS):
            known = len(MIGRATIONS)
            raise StoreError(
                f"the job store's schema {at.schema!r} has version {version}, and this flashfw knows up to {known}",
                hint="a newer flashfw uses it: use that one here too, or another database",
            )
        if version == len(MIGRATIONS):
            return False
        script = (resources.files(__package__) / "sql" / MIGRATIONS[version]).read_text(encoding="utf-8")
        connection.execute(script.encode(), prepare=False)
        connection.execute("UPDATE meta SET version = %s", [version + 1])
        return True


def _version(connection: Connection, at: Address) -> int:
    found = connection.execute("SELECT to_regclass(%s)", [f"{_quoted(at.schema)}.meta"]).fetchone()
    if found is None or found[0] is None:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(at.schema)))
        connection.execute("CREATE TABLE meta (version INTEGER NOT NULL)")
        connection.execute("INSERT INTO meta VALUES (0)")
        return 0
    row = connection.execute("SELECT version FROM meta").fetchone()
    return int(row[0]) if row else 0


def _quoted(name: str) -> str:
    return '"' + re.sub('"', '""', name) + '"'
