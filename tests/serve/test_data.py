"""The data directory of a server: made, claimed, recognised, migrated."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from flashfw.errors import Exit, TargetError
from flashfw.serve import data
from flashfw.whole import ASIDE


def test_it_is_made_for_this_user_alone_and_says_its_format(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"

    with data.claimed(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert json.loads((folder / "server.json").read_text()) == {"format": 1, "project": "", "environment": ""}


def test_a_second_server_names_the_first(tmp_path: Path) -> None:
    with data.claimed(tmp_path):
        data.publish(tmp_path, "https://127.0.0.1:8899")

        with pytest.raises(TargetError, match=r"served already at https://127.0.0.1:8899 \(pid \d+\)"):
            data.claimed(tmp_path).__enter__()
    with data.claimed(tmp_path):  # and what it said went with it
        assert not (tmp_path / "serving.json").exists()


def test_what_is_left_of_a_killed_server_is_waited_for(tmp_path: Path) -> None:
    data.prepare(tmp_path)
    dead = subprocess.Popen(["true"])
    dead.wait()
    paused: list[float] = []
    with (tmp_path / "serving.lock").open("w") as gateway:  # it ends its calls still
        fcntl.flock(gateway, fcntl.LOCK_EX)

        def pause(seconds: float) -> None:
            paused.append(seconds)
            if len(paused) == 3:
                fcntl.flock(gateway, fcntl.LOCK_UN)

        (tmp_path / "serving.json").write_text(json.dumps({"url": "http://a", "pid": dead.pid, "key": ""}))
        with data.claimed(tmp_path, pause=pause):
            assert len(paused) == 3

        fcntl.flock(gateway, fcntl.LOCK_EX)
        (tmp_path / "serving.json").write_text(json.dumps({"url": "http://a", "pid": dead.pid, "key": ""}))
        with pytest.raises(TargetError, match=f"served already at http://a .pid {dead.pid}."):
            data.claimed(tmp_path, pause=lambda seconds: None).__enter__()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")

    with pytest.raises(TargetError, match="is no data directory of flashfw: it has no server.json, but 'thesis.tex'"):
        data.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_first_start_that_was_killed_is_none_of_something_else(tmp_path: Path) -> None:
    for name in (data.PROBE, f"{ASIDE}server.json-00"):
        (tmp_path / name).touch()

    data.prepare(tmp_path)

    assert data.read(tmp_path) == data.Record()


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    for path in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(TargetError, match="cannot keep the server's data in") as refused:
            data.prepare(path)
        assert refused.value.exit == Exit.TARGET


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "1"}', '{"format": 0}', '{"project": "shop"}', '{"format": true}']
)
def test_a_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)

    with pytest.raises(TargetError, match="server.json is damaged"):
        data.prepare(tmp_path)


@pytest.mark.parametrize("made_later", data.MADE_LATER)
def test_a_folder_that_has_lost_its_state_is_not_taken_for_a_new_one(tmp_path: Path, made_later: str) -> None:
    data.prepare(tmp_path)
    data.prepare(tmp_path)  # a first start that was killed before anything was there
    (tmp_path / made_later).mkdir()

    with pytest.raises(TargetError, match=r"state\.sqlite is missing.*has served before"):
        data.prepare(tmp_path)
    (tmp_path / "state.sqlite").touch()
    with pytest.raises(TargetError, match=r"state\.sqlite is empty"):
        data.prepare(tmp_path)


def test_the_data_of_a_newer_flashfw_is_refused_and_not_touched(tmp_path: Path) -> None:
    text = '{"format": 99, "project": "shop", "environment": "prod", "colour": "red"}'
    (tmp_path / "server.json").write_text(text)

    with pytest.raises(TargetError, match="a newer flashfw wrote .*: it has format 99, and this one knows up to 1"):
        data.prepare(tmp_path)
    assert (tmp_path / "server.json").read_text() == text


def test_the_data_of_an_older_flashfw_is_backed_up_and_migrated(tmp_path: Path) -> None:
    data.prepare(tmp_path)
    write(tmp_path / "state.sqlite", "before")
    steps = [lambda path: write(path / "state.sqlite", "second"), lambda path: write(path / "state.sqlite", "third")]

    backup = data.migrate(tmp_path, steps=steps)

    assert backup == tmp_path / "backup-format-1"
    assert words(tmp_path / "state.sqlite") == ["before", "second", "third"]
    assert words(backup / "state.sqlite") == ["before"]
    assert stat.S_IMODE((backup / "state.sqlite").stat().st_mode) == 0o600
    assert data.read(tmp_path).format == 3
    assert data.migrate(tmp_path, steps=steps) is None


def test_a_step_that_fails_leaves_the_format_that_was_reached(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        raise OSError(28, "No space left on device")

    data.prepare(tmp_path)
    done: list[Path] = []

    with pytest.raises(TargetError, match="from format 1 to 3: .*No space left on device") as refused:
        data.migrate(tmp_path, steps=[done.append, fails])
    assert "backup-format-1" in refused.value.hint
    assert data.read(tmp_path).format == 2
    data.migrate(tmp_path, steps=[done.append, done.append])
    assert done == [tmp_path, tmp_path]  # the first step was not done again


def test_it_is_of_one_project_in_one_environment(tmp_path: Path) -> None:
    data.prepare(tmp_path)

    data.bind(tmp_path, "shop", "prod")
    data.bind(tmp_path, "shop", "prod")

    with pytest.raises(TargetError, match="is of shop/prod, not of shop/test"):
        data.bind(tmp_path, "shop", "test")
    assert data.check(tmp_path) == data.Record(project="shop", environment="prod")


def write(path: Path, word: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS words (word)")
        database.execute("INSERT INTO words VALUES (?)", (word,))


def words(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [word for (word,) in database.execute("SELECT word FROM words")]
