"""What ends a server, in words: what a person can mend, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flashfw.cluster.trouble import as_told
from flashfw.errors import TargetError


class Group(Exception):
    """What a task group raises; Python has one since 3.11."""

    def __init__(self, *exceptions: BaseException) -> None:
        self.exceptions = exceptions


def failed(code: int, file: Path) -> OSError:
    return OSError(code, os.strerror(code), str(file))


def test_a_full_disk_is_told_from_within_task_groups(tmp_path: Path) -> None:
    group = Group(Group(failed(errno.ENOSPC, tmp_path / "jobs.sqlite")))

    told = as_told(group, tmp_path)

    assert isinstance(told, TargetError)
    assert "no room" in told.what
    assert str(tmp_path) in told.hint


@pytest.mark.parametrize("code", [errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EROFS])
def test_a_file_of_somebody_else_or_of_another_kind_is_named(tmp_path: Path, code: int) -> None:
    told = as_told(failed(code, tmp_path / "logs"), tmp_path)

    assert isinstance(told, TargetError)
    assert f"{tmp_path / 'logs'} cannot be used: {os.strerror(code)}" in told.what


def test_what_is_a_defect_of_ours_stays_one(tmp_path: Path) -> None:
    elsewhere = failed(errno.EACCES, Path("/elsewhere"))
    missing = failed(errno.ENOENT, tmp_path / "file")
    several = Group(elsewhere, missing)

    assert as_told(elsewhere, tmp_path) is elsewhere
    assert as_told(missing, tmp_path) is missing
    assert as_told(several, tmp_path) is several
