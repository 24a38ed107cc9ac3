"""The folder `.flashfw/` of a project: who serves it now, and where its state lies."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flashfw.errors import TargetError

FOLDER = ".flashfw"


@dataclass(frozen=True, slots=True)
class Served:
    """A running development server: how to reach it and the key for administration."""

    url: str
    pid: int
    key: str


def folder(root: Path) -> Path:
    """The state folder of a project, made if need be, for this user alone."""
    path = root / FOLDER
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return path


@contextmanager
def claimed(root: Path) -> Iterator[Path]:
    """The state folder, held by this process alone while the block runs; the lock ends with the process.

    Raises:
        TargetError: another server holds it; names its URL.
    """
    path = folder(root)
    with (path / "dev.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = served(root)
            where = f"at {other.url} (pid {other.pid})" if other else "by another process"
            raise TargetError(
                f"this project is served already {where}", hint="use that server, or stop it first"
            ) from None
        try:
            yield path
        finally:
            (path / "dev.json").unlink(missing_ok=True)


def publish(path: Path, server: Served) -> None:
    """Tell other commands where the server is."""
    target = path / "dev.json"
    descriptor = os.open(target.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": server.url, "pid": server.pid, "key": server.key}, file)
    target.with_suffix(".new").replace(target)


def served(root: Path) -> Served | None:
    """The server that says it serves this project, or None."""
    try:
        value = json.loads((root / FOLDER / "dev.json").read_text(encoding="utf-8"))
        return Served(url=value["url"], pid=value["pid"], key=value["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
