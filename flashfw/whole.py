"""Small files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

ASIDE = ".new-"
"""What the names of unfinished files and folders begin with."""


def write(path: Path, text: str, *, mode: int = 0o666, durable: bool = False) -> None:
    """Put a text in a file that others may read, or write as well, at any time: aside at first, and then in its place.

    `mode` is what the umask takes from; `durable` waits for the disk. Nothing is left aside if it fails, such as on a
    full disk.

    Raises:
        OSError: it cannot be written; what was there before stands.
    """
    # A name for each writer: one of two must not put half a text of the other's in its place.
    aside = path.with_name(f"{ASIDE}{path.name}-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(descriptor)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(folder: Path) -> None:
    """Have the disk know what is in a folder: a file that was renamed there is lost in a power cut before.

    Raises:
        OSError: it cannot be read, or the disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
