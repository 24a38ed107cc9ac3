"""Who serves a folder now: one process at a time, and others find it."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from flashfw import whole

_ADDRESS = re.compile(r"https?://[!-~]+")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A server that runs: its URL, its process, and a key for it where there is one that holds for this user."""

    url: str
    pid: int
    key: str = ""


class InUse(Exception):
    """Another process holds the folder; `holder` is what it says of itself, if anything."""

    def __init__(self, holder: Claimed | None) -> None:
        super().__init__(holder)
        self.holder = holder

    def __str__(self) -> str:
        found = self.holder
        return f"at {found.url} (pid {found.pid})" if found else "by another process"


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[TextIO]:
    """The folder, held by this process alone while the block runs; the lock ends with the process.

    A child that is given the open file holds it too, until both have ended.

    Raises:
        InUse: another process holds it.
        OSError: the folder cannot be written.
    """
    with (folder / f"{name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUse(holder(folder, name)) from None
        try:
            (folder / f"{name}.json").unlink(missing_ok=True)  # of one that was killed
            yield lock
        finally:
            (folder / f"{name}.json").unlink(missing_ok=True)


def publish(folder: Path, name: str, server: Claimed) -> None:
    """Tell other commands of this user where the server is.

    Raises:
        OSError: the folder cannot be written.
    """
    told = json.dumps({"url": server.url, "pid": server.pid, "key": server.key})
    whole.write(folder / f"{name}.json", told, mode=0o600)


def holder(folder: Path, name: str) -> Claimed | None:
    """The server that says it serves this folder, or None."""
    try:
        value = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        found = Claimed(url=value["url"], pid=value["pid"], key=value["key"])
        is_ours = _ADDRESS.fullmatch(found.url) and found.key.isascii() and found.key.isprintable()
        return found if is_ours else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
