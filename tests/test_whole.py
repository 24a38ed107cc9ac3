from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from flashfw import whole


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk is to a file: its first bytes are written, and the next are not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    whole.write(path, "before", mode=0o600)
    with files_of_at_most(8), pytest.raises(OSError, match="File too large"):
        whole.write(path, "longer than the disk has room for", mode=0o600)

    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("dev.json", "before")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_who_write_at_once_leave_a_whole_text_of_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "digests.json"
    texts = [letter * 200_000 for letter in "abcdefgh"]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda text: whole.write(path, text), texts))

    assert path.read_text() in texts
    assert [file.name for file in tmp_path.iterdir()] == ["digests.json"]


def test_what_has_to_last_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(stat.S_ISDIR(os.fstat(handle).st_mode)))

    whole.write(tmp_path / "a", "x")
    assert synced == []
    whole.write(tmp_path / "a", "y", durable=True)
    assert synced == [False, True]  # the file, and then the folder
