"""What a server knows beside its jobs (keys, secrets, releases): one SQLite file, in which each room has its tables."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio

from flashfw.errors import Exit, FlashfwError

FILE = "state.sqlite"
"""Its name in a server's data directory."""

FORMAT = 1
"""The `user_version` of the file: how rooms keep their versions in it."""

BUSY_S = 5.0
"""How long a writer waits for another process: `flashfw key --data` beside the server."""

Row = tuple[Any, ...]
Result = TypeVar("Result")


class StateError(FlashfwError):
    """The server's state could not be read or written (disk full, damaged, of a newer flashfw); nothing was changed."""

    exit = Exit.TARGET


class State:
    """The file, open until `close`; every commit is on the disk when it returns (`synchronous = FULL`).

    All methods may be called from any thread and block it for as long as the disk takes: on the loop use `call`.
    Several processes may have it open.

    >>> state = State(data / FILE)
    >>> state.migrate("shop", ["CREATE TABLE cats (name TEXT)"])
    >>> state.execute("INSERT INTO cats VALUES (?)", ("Tom",))
    []

    Raises:
        StateError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with _told(path, "opened"):
            _make(path)
            self._database = _connect(path)
            try:
                self._looking = _connect(path)
                self._check_whole()
                self._check_format()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> State:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; all that was committed stays."""
        with self._lock:
            self._database.close()
            if looking := getattr(self, "_looking", None):
                looking.close()

    def migrate(self, room: str, migrations: Sequence[str]) -> None:
        """Bring a room's tables to their newest version: run those of its scripts that this file has not seen.

        They are one transaction. A script that was released is never changed; a further one is appended.

        Raises:
            StateError: a newer flashfw wrote this room, or a script fails; the version before it stands.
        """
        with self.transaction() as database:
            found = database.execute("SELECT version FROM rooms WHERE name = ?", (room,)).fetchone()
            version = found[0] if found else 0
            if version > len(migrations):
                raise _newer(self.path, f"{room} have version {version}", len(migrations))
            for script in migrations[version:]:
                for statement in _statements(script):
                    database.execute(statement)
            if version < len(migrations):
                database.execute("REPLACE INTO rooms (name, version) VALUES (?, ?)", (room, len(migrations)))

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run one statement, committed when it returns; its rows. Within `transaction` of this thread it is part of it.

        Raises:
            StateError: it could not be done; nothing was changed.
        """
        with self._lock, _told(self.path, "used"):
            return self._database.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that the block does, or nothing of it if it raises; others wait meanwhile, so do nothing slow in it.

        Raises:
            StateError: it could not be done; nothing was changed.
        """
        with self._lock, _told(self.path, "used"):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite ends it by itself when the disk is full
                    with suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
                raise

    async def call(self, do: Callable[..., Result], *arguments: object) -> Result:
        """Run what uses this state in a thread, so that the loop does not wait for the disk; what it returns.

        It is finished even if the caller is cancelled meanwhile.

        >>> await state.call(store.put, release)
        """
        return await anyio.to_thread.run_sync(do, *arguments)

    def version(self) -> int:
        """A number that is another one after every commit, of this process or another. For the loop: it takes 4 us.

        Raises:
            StateError: the file cannot be read.
        """
        try:  # and no `with`, which takes as long again: each request asks
            number: int = self._looking.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise _failed(self.path, "read", error) from error
        return number

    def peek(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Read a few rows on the loop's own connection, which waits for no writer.

        Raises:
            StateError: the file cannot be read.
        """
        with _told(self.path, "read"):
            return self._looking.execute(sql, parameters).fetchall()

    def _check_whole(self) -> None:
        """A page that is damaged is told before anything is served, and not once somebody needs what was on it."""
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StateError(f"the server's state {self.path} is damaged: {found}", hint="restore it from a backup")

    def _check_format(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise _newer(self.path, f"it has format {version}", FORMAT)
        if version < FORMAT:
            with self.transaction() as database:
                database.execute("CREATE TABLE IF NOT EXISTS rooms (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
                database.execute(f"PRAGMA user_version = {FORMAT}")


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
    except BaseException:
        database.close()
        raise
    return database


def _make(path: Path) -> None:
    """Make the file for its owner alone; one that is there is not even opened, as that would drop SQLite's locks."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _statements(script: str) -> Iterator[str]:
    """The statements of a script. `executescript` would end the transaction that they are part of."""
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):  # else the semicolon is within a trigger or a string
            yield statement
            statement = ""


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _failed(path, what, error) from error
    except OSError as error:
        raise StateError(f"the server's state {path} cannot be {what}: {error.strerror or error}") from error


def _failed(path: Path, what: str, error: sqlite3.Error) -> StateError:
    hint = "is the disk full?" if "full" in str(error) else "is it whole, and this user's own?"
    return StateError(f"the server's state {path} cannot be {what}: {error}", hint=hint)


def _newer(path: Path, what: str, known: int) -> StateError:
    return StateError(
        f"a newer flashfw wrote the server's state {path}: {what}, and this one knows up to {known}",
        hint="use that flashfw, or another data directory",
    )
