"""A SQLite file opened for one process: its lock, its mode, its settings, its schema."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Literal

from flashfw.cluster.jobs.store import StoreError

Synchronous = Literal["NORMAL", "FULL"]

SCHEMAS = ("schema_1.sql", "schema_2.sql", "schema_3.sql")
"""The migrations in their order; a database's `user_version` is how many of them it has seen."""

# Pages of a million jobs' indexes that stay in memory, in KiB. More does not help: the system caches the file.
CACHE_KIB = 32_768

# A writer waits for another program's look into the file (the sqlite3 shell, a backup) so long.
BUSY_S = 5.0


def lock(path: Path) -> int:
    """Hold `<path>.lock` for this process, and return its descriptor; closing it lets go.

    The file stays: to unlink it would let two processes each lock a file of that name.

    Raises:
        StoreError: another process holds it, or it cannot be made.
    """
    place = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"the job store {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        by = f"process {holder}" if holder else "another process"
        hint = "stop that process, or give this one another file"
        raise StoreError(f"the job store {path} is in use by {by}", hint=hint) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def connect(path: Path | None, *, synchronous: Synchronous) -> sqlite3.Connection:
    """A connection to the file, made for its owner alone if it is new, or to a database in memory.

    Raises:
        StoreError: the file cannot be opened.
    """
    database = None
    try:
        if path is not None:
            _make(path)
        database = sqlite3.connect(
            path or ":memory:",
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,  # opened and closed elsewhere than used, never at the same time
        )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {synchronous}")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    except (OSError, sqlite3.Error) as error:
        if database is not None:  # the first statement tells that the file is no database
            database.close()
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"the job store {path or ':memory:'} cannot be opened: {why}",
            hint="put a sound copy in its place, or move it away to begin anew without its jobs",
        ) from error
    return database


def _make(path: Path) -> None:
    """Make the file for its owner alone; SQLite would go by the umask. Its -wal and -shm take the mode of the file.

    One that is there is not even opened: to close any descriptor of a file drops all locks that this process has on it,
    SQLite's too. The next program that looks into the file would then take itself for the last one, and delete the
    write-ahead log under our hands (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if path.is_dir():  # of which SQLite would say no more than "unable to open database file"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


def migrate(database: sqlite3.Connection) -> None:
    """Bring the schema to the newest version, one transaction per step.

    Raises:
        StoreError: it was made by a newer flashfw, or a step fails; the version before it stands.
    """
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > len(SCHEMAS):
            raise StoreError(
                f"the job store has schema {version}, and this flashfw knows up to {len(SCHEMAS)}",
                hint="a newer flashfw wrote it: use that one, or another file",
            )
        for number, name in enumerate(SCHEMAS[version:], start=version + 1):
            script = (resources.files(__package__) / "sql" / name).read_text(encoding="utf-8")
            database.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
    except sqlite3.Error as error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise StoreError(
            f"the job store's schema cannot be brought up to date: {error}",
            hint="is it a job store, and whole? moved away, a new one is made without its jobs",
        ) from error
