from __future__ import annotations

import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flashfw.cluster import whole


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
