"""Small files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Put a text in a file that others may read at any time: aside at first, as `NAME.new`, and then in its place.

    `mode` is what the umask takes from. Nothing is left aside if it fails, such as on a full disk.

    Raises:
        OSError: it cannot be written; what was there before stands.
    """
    aside = path.with_name(f"{path.name}.new")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
