"""The folder `.flashfw/` of a project: who serves it now, and where its state lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flashfw.cluster import claim
from flashfw.cluster.claim import Claimed
from flashfw.cluster.trouble import NO_ROOM
from flashfw.errors import TargetError

FOLDER = ".flashfw"
NAME = "dev"
"""Of the files that say who serves: `dev.lock`, `dev.json`."""


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
    hint = "make the project's folder writable, or copy the project elsewhere"
    return TargetError(f"{what}{error.strerror or error}", hint="free some space" if error.errno in NO_ROOM else hint)


@contextmanager
def claimed(root: Path) -> Iterator[Path]:
    """The state folder, held by this process alone while the block runs; the lock ends with the process.

    Raises:
        TargetError: another server holds it, whose URL is named, or it cannot be written.
    """
    path = folder(root)
    with ExitStack() as held:
        try:
            held.enter_context(claim.claimed(path, NAME))
        except claim.InUse as error:
            raise TargetError(
                f"this project is served already {error}", hint="use that server, or stop it first"
            ) from None
        except OSError as error:
            raise _unusable(path, error) from error
        yield path


def publish(path: Path, server: Claimed) -> None:
    """Tell other commands where the server is.

    Raises:
        TargetError: it cannot be written.
    """
    try:
        claim.publish(path, NAME, server)
    except OSError as error:
        raise _unusable(path, error) from error


def served(root: Path) -> Claimed | None:
    """The server that says it serves this project, or None."""
    return claim.holder(root / FOLDER, NAME)
