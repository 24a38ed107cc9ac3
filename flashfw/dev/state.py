"""The folder `.flashfw/` of a project: who serves it now, and where its state lies."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flashfw.errors import TargetError

FOLDER = ".flashfw"
_ADDRESS = re.compile(r"https?://[!-~]+")


@dataclass(frozen=True, slots=True)
class Served:
    """A running development server: how to reach it and the key for administration."""

    url: str
    pid: int
    key: str


def folder(root: Path) -> Path:
    """The state folder of a project, made if need be, for this user alone.

    Raises:
        TargetError: it cannot be made or written, or is another user's.
    """
    path = root / FOLDER
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
        ignore = path / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def _unusable(path: Path, error: OSError) -> TargetError:
    what = f"cannot keep the server's state in {path}: "
    if isinstance(error, FileExistsError):
        kind = "link to nowhere" if path.is_symlink() else "file"
        return TargetError(f"{what}it is a {kind}", hint="move it away, and a folder is made in its place")
    if path.exists() and (owner := path.stat().st_uid) != os.geteuid():
        return TargetError(f"{what}it belongs to user {owner}", hint=f"remove it, or start the server as user {owner}")
    return TargetError(
        f"{what}{error.strerror or error}", hint="make the project's folder writable, or copy the project elsewhere"
    )


@contextmanager
def claimed(root: Path) -> Iterator[Path]:
    """The state folder, held by this process alone while the block runs; the lock ends with the process.

    Raises:
        TargetError: another server holds it, whose URL is named, or it cannot be written.
    """
    path = folder(root)
    try:
        lock = (path / "dev.lock").open("a+")
    except OSError as error:
        raise _unusable(path, error) from error
    with lock:
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
        found = Served(url=value["url"], pid=value["pid"], key=value["key"])
        is_ours = _ADDRESS.fullmatch(found.url) and found.key.isascii() and found.key.isprintable()
        return found if is_ours else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
