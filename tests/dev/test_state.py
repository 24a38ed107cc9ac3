from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from flashfw.cluster.claim import Claimed
from flashfw.dev import state
from flashfw.errors import TargetError
from tests.test_whole import files_of_at_most


def test_a_second_server_names_the_first_ones_url(tmp_path: Path) -> None:
    with state.claimed(tmp_path) as folder:
        state.publish(folder, Claimed("http://127.0.0.1:1234", os.getpid(), "key"))

        with pytest.raises(TargetError, match=r"http://127.0.0.1:1234 \(pid \d+\)"), state.claimed(tmp_path):
            pass

    assert state.served(tmp_path) is None


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with state.claimed(tmp_path) as folder:
        with files_of_at_most(8), pytest.raises(TargetError, match="cannot keep the server's state"):
            state.publish(folder, Claimed("http://127.0.0.1:1234", os.getpid(), "key"))

        assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "dev.lock"]


def test_the_state_is_this_users_alone(tmp_path: Path) -> None:
    with state.claimed(tmp_path) as folder:
        state.publish(folder, Claimed("http://127.0.0.1:1234", os.getpid(), "key"))

        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "dev.json").stat().st_mode) == 0o600
        assert (folder / ".gitignore").read_text() == "*\n"
        assert Claimed("http://127.0.0.1:1234", os.getpid(), "key") == state.served(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"url": 5, "pid": 1, "key": "k"}',
        '{"url": "a b", "pid": 1, "key": "k"}',
        '{"url": "http://127.0.0.1:1", "pid": 1, "key": null}',
        '{"url": "http://127.0.0.1:1", "pid": 1, "key": "\u00e9"}',
    ],
)
def test_damaged_state_is_no_server(tmp_path: Path, text: str) -> None:
    (state.folder(tmp_path) / "dev.json").write_text(text, encoding="utf-8")

    assert state.served(tmp_path) is None
