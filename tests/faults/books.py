"""What the database itself says of a round: every job's end, counted by a trigger as it is written."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import psycopg

_TERMINAL = "('COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT')"


class Books(Protocol):
    """A database of jobs, read beside the servers that write it."""

    def watch(self) -> None:
        """From now on count each terminal record that is written, and each that is changed."""
        ...

    def states(self) -> dict[str, str]:
        """The state of each job."""
        ...

    def ends(self) -> Counter[str]:
        """How often each job got a terminal record, or had it changed."""
        ...

    def attempts(self) -> int:
        """Attempts of all jobs together."""
        ...


class SqliteBooks:
    """The books of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def watch(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS audit (id TEXT NOT NULL)")
            database.execute(
                f"""CREATE TRIGGER IF NOT EXISTS audit_ends AFTER UPDATE OF state ON jobs
                WHEN NEW.state IN {_TERMINAL} OR OLD.state IN {_TERMINAL}
                BEGIN INSERT INTO audit VALUES (NEW.id); END"""
            )

    def states(self) -> dict[str, str]:
        return dict(self._read("SELECT id, state FROM jobs"))

    def ends(self) -> Counter[str]:
        return Counter(row[0] for row in self._read("SELECT id FROM audit"))

    def attempts(self) -> int:
        return int(self._read("SELECT COALESCE(SUM(fence), 0) FROM jobs")[0][0])

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(query).fetchall()


class PostgresBooks:
    """The books of a server. They are found by the schema that flashfw made: the only one with jobs in it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def watch(self) -> None:
        if self._read("SELECT 1 FROM pg_trigger WHERE tgname = 'audit_ends'"):
            return
        schema = self._schema()
        with psycopg.connect(self._url, autocommit=True) as database:
            database.execute(f"SET search_path TO {schema}")
            database.execute("CREATE TABLE audit (id TEXT NOT NULL)")
            database.execute(
                f"""CREATE FUNCTION {schema}.note_end() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN INSERT INTO {schema}.audit VALUES (NEW.id); RETURN NEW; END $$"""
            )
            database.execute(
                f"""CREATE TRIGGER audit_ends AFTER UPDATE OF state ON jobs FOR EACH ROW
                WHEN (NEW.state IN {_TERMINAL} OR OLD.state IN {_TERMINAL})
                EXECUTE FUNCTION {schema}.note_end()"""
            )

    def states(self) -> dict[str, str]:
        return dict(self._read(f"SELECT id, state FROM {self._schema()}.jobs"))

    def ends(self) -> Counter[str]:
        return Counter(row[0] for row in self._read(f"SELECT id FROM {self._schema()}.audit"))

    def attempts(self) -> int:
        return int(self._read(f"SELECT COALESCE(SUM(fence), 0) FROM {self._schema()}.jobs")[0][0])

    def _schema(self) -> str:
        return str(self._read("SELECT schemaname FROM pg_tables WHERE tablename = 'jobs'")[0][0])

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url) as database:
            return database.execute(query).fetchall()
