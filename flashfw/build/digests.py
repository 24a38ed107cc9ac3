"""The hashes of large files, kept for as long as nothing says that they changed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from flashfw import whole

_SETTLED_NS = 2_000_000_000
"""A file that changed less than that ago may change again without a new date: file systems count in ticks."""


class Digests:
    """SHA-256 by path, size, inode and dates, in one file below the project; a damaged one is an empty one."""

    def __init__(self, file: Path, *, now_ns: int) -> None:
        self._file = file
        self._now_ns = now_ns
        self._known: dict[str, list[object]] = _load(file)
        self._used: dict[str, list[object]] = {}

    def of(self, path: str, handle: int, status: os.stat_result) -> str:
        """The SHA-256 of an open file."""
        stamp = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        known = self._known.get(path)
        if known is not None and known[:-1] == stamp:
            sha256 = str(known[-1])
        else:
            digest = hashlib.sha256()
            while piece := os.read(handle, 1 << 20):
                digest.update(piece)
            sha256 = digest.hexdigest()
        if max(status.st_mtime_ns, status.st_ctime_ns) < self._now_ns - _SETTLED_NS:
            self._used[path] = [*stamp, sha256]
        return sha256

    def save(self) -> None:
        """Keeps those that were asked for, where that is news."""
        if self._used != self._known:
            whole.write(self._file, json.dumps(self._used))


def _load(file: Path) -> dict[str, list[object]]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    sound = isinstance(value, dict) and all(isinstance(item, list) and len(item) == 5 for item in value.values())
    return value if sound else {}
