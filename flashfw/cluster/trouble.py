"""What ended a server, in words for people; light, since the process that holds the socket asks too."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from flashfw.errors import TargetError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})


def as_told(error: BaseException, *folders: Path) -> BaseException:
    """What ended a server, in words: the one error inside of task groups, a full disk, and files of its folders."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if len(inner) == 1:
        return as_told(inner[0], *folders)
    if not isinstance(error, OSError):
        return error
    if error.errno in NOT_OURS:
        return _unusable(error, folders)
    if error.errno not in NO_ROOM:
        return error
    where = f" ({error.filename})" if error.filename else ""
    return TargetError(
        f"the disk has no room: {error.strerror}{where}",
        hint=f"free some space; flashfw writes to {' and '.join(map(str, folders))}",
    )


def _unusable(error: OSError, folders: tuple[Path, ...]) -> BaseException:
    """A file of these folders that is another user's, on a disk that may only be read, or of another kind."""
    named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if not any(Path(named).is_relative_to(folder) for folder in folders):
        return error
    hint = "is it what flashfw made, and this user's own? move away what is not"
    return TargetError(f"{named} cannot be used: {error.strerror}", hint=hint)
