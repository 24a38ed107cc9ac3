"""What ended a server, in words for people; light, since the process that holds the socket asks too."""

from __future__ import annotations

import errno
from pathlib import Path

from flashfw.errors import TargetError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def as_told(error: BaseException, *folders: Path) -> BaseException:
    """What ended a server, in words: the one error inside of task groups, and a full disk with its folders."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if len(inner) == 1:
        return as_told(inner[0], *folders)
    if not isinstance(error, OSError) or error.errno not in NO_ROOM:
        return error
    where = f" ({error.filename})" if error.filename else ""
    return TargetError(
        f"the disk has no room: {error.strerror}{where}",
        hint=f"free some space; flashfw writes to {' and '.join(map(str, folders))}",
    )
