"""Reads the files of a project: regular ones only, so that a pipe or a device holds nobody up."""

from __future__ import annotations

import hashlib
import os
import stat
from io import FileIO
from pathlib import Path

from flashfw.errors import Problem

_PIECE_BYTES = 1 << 20


def read(root: Path, file: str) -> bytes | Problem:
    """The bytes of a file below the root, or what keeps it from being read."""
    try:
        with _open(root, file) as stream:
            return stream.read()
    except OSError as error:
        return _problem(file, error)


def digest(root: Path, file: str) -> str | Problem:
    """The SHA-256 of a file that may be larger than memory."""
    found = hashlib.sha256()
    try:
        with _open(root, file) as stream:
            while piece := stream.read(_PIECE_BYTES):
                found.update(piece)
    except OSError as error:
        return _problem(file, error)
    return found.hexdigest()


def is_dir(entry: os.DirEntry[str]) -> bool | None:
    """Whether an entry is a directory, None for a link that the system cannot follow."""
    try:
        return entry.is_dir()
    except OSError:
        return None


class _NoFileError(OSError):
    """A directory, pipe, socket or device."""


def _open(root: Path, file: str) -> FileIO:
    path = f"{root}/{file}"  # a Path each would cost a tenth of collecting a large tree
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _NoFileError
    return FileIO(path)


def _problem(file: str, error: OSError) -> Problem:
    if isinstance(error, _NoFileError):
        return Problem("is no regular file", file, hint="replace it by a file, or remove it")
    return Problem(f"cannot be read: {error.strerror or error}", file, hint="make it readable, or remove it")
