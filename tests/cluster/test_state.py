"""The file of a server's state: what is committed stays, rooms migrate by themselves, several may write."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from flashfw.cluster.state import FILE, State, StateError

CATS = ("CREATE TABLE cats (name TEXT); CREATE INDEX cats_name ON cats (name);",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


def test_what_is_written_is_there_after_a_restart_and_only_for_its_owner(path: Path) -> None:
    with State(path) as state:
        state.migrate("cats", CATS)
        state.execute("INSERT INTO cats VALUES (?)", ("Tom",))

    with State(path) as state:
        state.migrate("cats", CATS)
        assert state.execute("SELECT name FROM cats") == [("Tom",)]
        assert state.execute("PRAGMA synchronous") == [(2,)], "FULL"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_room_takes_only_the_steps_that_it_has_not_seen(path: Path) -> None:
    with State(path) as state:
        state.migrate("cats", CATS)
        state.migrate("dogs", ["CREATE TABLE dogs (name TEXT)"])
        state.migrate("cats", [*CATS, "ALTER TABLE cats ADD COLUMN age INTEGER"])
        state.migrate("cats", [*CATS, "ALTER TABLE cats ADD COLUMN age INTEGER"])

        assert state.execute("SELECT name, age FROM cats") == []


def test_a_step_that_fails_leaves_the_version_before_it(path: Path) -> None:
    with State(path) as state:
        state.migrate("cats", CATS)
        with pytest.raises(StateError, match="nonsense"):
            state.migrate("cats", [*CATS, "CREATE TABLE kittens (name TEXT); nonsense;"])

        assert state.execute("SELECT version FROM rooms WHERE name = 'cats'") == [(1,)]
        with pytest.raises(StateError, match="kittens"):
            state.execute("SELECT * FROM kittens")


def test_what_a_newer_flashfw_wrote_is_refused(path: Path) -> None:
    with State(path) as state:
        state.migrate("cats", [*CATS, "CREATE TABLE kittens (name TEXT)"])
        with pytest.raises(StateError, match="newer flashfw.*cats have version 2.*up to 1"):
            state.migrate("cats", CATS)
        state.execute("PRAGMA user_version = 9")

    with pytest.raises(StateError, match="newer flashfw.*format 9"):
        State(path)


def test_a_block_that_raises_changes_nothing(path: Path) -> None:
    with State(path) as state:
        state.migrate("cats", CATS)

        def breaks_off() -> None:
            with state.transaction() as database:
                database.execute("INSERT INTO cats VALUES ('Tom')")
                raise KeyError

        with pytest.raises(KeyError):
            breaks_off()
        assert state.execute("SELECT name FROM cats") == []
        state.execute("INSERT INTO cats VALUES ('Tim')")
        assert state.peek("SELECT name FROM cats") == [("Tim",)]


def test_another_process_sees_what_is_written_and_that_it_was(path: Path) -> None:
    with State(path) as state, State(path) as other:
        state.migrate("cats", CATS)
        before = other.version()
        assert other.version() == before
        state.execute("INSERT INTO cats VALUES ('Tom')")

        assert other.version() != before
        assert other.peek("SELECT name FROM cats") == [("Tom",)]


def test_many_threads_write_and_nothing_is_lost(path: Path) -> None:
    with State(path) as state:
        state.migrate("cats", CATS)

        def write() -> None:
            for _ in range(10):
                with state.transaction() as database:
                    (count,) = database.execute("SELECT count(*) FROM cats").fetchone()
                    database.execute("INSERT INTO cats VALUES (?)", (str(count),))

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert {name for (name,) in state.execute("SELECT name FROM cats")} == {str(n) for n in range(40)}


@pytest.mark.parametrize("content", [b"no database, but long enough to look at" * 100, None])
def test_a_file_that_is_none_is_said_and_left_as_it_is(path: Path, content: bytes | None) -> None:
    path.mkdir() if content is None else path.write_bytes(content)

    with pytest.raises(StateError, match=r"state\.sqlite cannot be opened"):
        State(path)
    assert content is None or path.read_bytes() == content


def test_a_page_that_is_damaged_is_said_at_once(path: Path) -> None:
    with State(path) as state:
        state.migrate("cats", CATS)
        state.execute("INSERT INTO cats VALUES (?)", ("Tom" * 3000,))
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = bytes(len(content) - 4096 * 2)
    path.write_bytes(content)

    with pytest.raises(StateError, match=r"state\.sqlite is damaged.*") as raised:
        State(path)
    assert "backup" in str(raised.value.hint)


def test_a_full_disk_is_said_and_changes_nothing(path: Path) -> None:
    with State(path) as state:
        state.migrate("cats", CATS)
        pages = state.execute("PRAGMA page_count")[0][0]
        state.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StateError, match="full"):
            state.execute("INSERT INTO cats VALUES (?)", ("x" * 100_000,))

        assert state.execute("SELECT name FROM cats") == []
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
