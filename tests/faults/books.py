"""What the database itself says of a round: every job's end, counted by a trigger as it is written."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Protocol

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

    def _read(self, query: str) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(query).fetchall()
