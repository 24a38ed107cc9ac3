"""Who serves a folder now: one process at a time, and others find it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from flashfw import whole

LEAVING_S = 2.0
"""A process that a killed server was just starting holds the folder until it runs its own program."""
PAUSE_S = 0.1
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
def claimed(
    folder: Path, name: str, *, leaving_s: float = LEAVING_S, pause: Callable[[float], None] = time.sleep
) -> Iterator[TextIO]:
    """The folder, held by this process alone while the block runs; the lock ends with the process.

    A child that is given the open file holds it too, until both have ended. What a server that is no more has left
    behind may take `leaving_s` to let go.

    Raises:
        InUse: another process holds it.
        OSError: the folder cannot be written.
    """
    with (folder / f"{name}.lock").open("a+") as lock:
        tries = round(leaving_s / PAUSE_S)
        while not _is_locked(lock):
            found = holder(folder, name)
            if not tries or found is None or _is_alive(found.pid):
                raise InUse(found)
            tries -= 1
            pause(PAUSE_S)
        try:
            (folder / f"{name}.json").unlink(missing_ok=True)  # of one that was killed
            yield lock
        finally:
            (folder / f"{name}.json").unlink(missing_ok=True)


def _is_locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


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
