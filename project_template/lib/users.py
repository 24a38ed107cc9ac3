"""Users in an SQLite file: workers share it, and it outlives them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, Field


class NewUser(BaseModel):
    name: str = Field(min_length=1, max_length=100)
    languages: list[str] = []


class User(NewUser):
    id: int


class Users:
    """All users. Each call opens the file anew, so that threads and workers need no lock of ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, record TEXT NOT NULL)")

    def add(self, user: NewUser) -> User:
        with self._open() as database:
            cursor = database.execute("INSERT INTO users (record) VALUES (?)", (user.model_dump_json(),))
        return User(id=int(cursor.lastrowid or 0), **user.model_dump())

    def find(self, user_id: int) -> User | None:
        with self._open() as database:
            row = database.execute("SELECT id, record FROM users WHERE id = ?", (user_id,)).fetchone()
        return None if row is None else _user(row)

    def first(self, limit: int) -> list[User]:
        with self._open() as database:
            rows = database.execute("SELECT id, record FROM users ORDER BY id LIMIT ?", (limit,)).fetchall()
        return [_user(row) for row in rows]

    def remove(self, user_id: int) -> bool:
        with self._open() as database:
            return database.execute("DELETE FROM users WHERE id = ?", (user_id,)).rowcount == 1

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path)
        try:
            with database:
                yield database
        finally:
            database.close()


def _user(row: tuple[int, str]) -> User:
    return User(id=row[0], **NewUser.model_validate_json(row[1]).model_dump())
