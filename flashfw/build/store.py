"""A folder of finished archives, each with a note of what it is; one without its note does not count."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashfw import whole
from flashfw.bundle import archive
from flashfw.bundle.archive import Entry
from flashfw.bundle.release import Layer, is_digest
from flashfw.errors import Exit, FlashfwError

_SUFFIX = ".tar.zst"
_ABANDONED_S = 86_400.0
"""Of what a build that was killed left: no build takes that long."""


class StoreError(FlashfwError):
    """The folder of archives cannot be written."""

    exit = Exit.USAGE


@dataclass(frozen=True, slots=True)
class Stored:
    """One finished archive: its layer, where it lies, and what its maker noted of it."""

    layer: Layer
    file: Path
    facts: Mapping[str, Any]

    @property
    def packed_bytes(self) -> int:
        """What travels: the size of the compressed archive."""
        return self.file.stat().st_size


class Store:
    """Archives by a name that says what is in them. Processes may share the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> Stored | None:
        """What is finished under that name; None if nothing is, or if it is damaged."""
        file, note = self._paths(name)
        try:
            value = json.loads(note.read_text("utf-8"))
            layer = Layer(digest=value["digest"], size_bytes=value["size_bytes"])
            if not is_digest(layer.digest) or file.stat().st_size != value["packed_bytes"]:
                return None
            found = Stored(layer, file, dict(value["facts"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        try:
            os.utime(note)  # `keep_newest` goes by it
        except OSError:  # a cache that may be read alone is as good
            pass
        return found

    def add(self, name: str, entries: Iterable[Entry], facts: Mapping[str, Any], *, durable: bool = False) -> Stored:
        """Packs the entries under a name. The note is written last: what a killed process leaves does not count.

        Raises:
            ArchiveError: the entries make no archive.
            StoreError: the folder cannot be written.
        """
        file, note = self._paths(name)
        self.open()
        layer = archive.pack(entries, file, durable=durable)
        value = {"digest": layer.digest, "size_bytes": layer.size_bytes, "packed_bytes": file.stat().st_size}
        whole.write(note, json.dumps({**value, "facts": dict(facts)}))
        return Stored(layer, file, facts)

    def open(self) -> None:
        """Makes the folder.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(self.folder, error) from error

    def sweep(self, *, now_s: float) -> None:
        """Removes what killed builds left, a day later: others may be at work."""
        archive.sweep(self.folder, before=now_s - _ABANDONED_S)

    def keep_newest(self, count: int) -> None:
        """Removes all but the archives that were found or added last."""
        for note in sorted(self.folder.glob("*.json"), key=_age_ns)[count:]:
            note.unlink(missing_ok=True)
            (self.folder / f"{note.stem}{_SUFFIX}").unlink(missing_ok=True)

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}{_SUFFIX}", self.folder / f"{name}.json"


def _age_ns(note: Path) -> int:
    """Larger for what is older; another build may take it away meanwhile."""
    try:
        return -note.stat().st_mtime_ns
    except OSError:
        return 0


def unusable(folder: Path, error: OSError) -> StoreError:
    """The error of a folder that a build cannot write to."""
    what = f"cannot write to {folder}: {error.strerror or error}"
    return StoreError(what, hint="make it writable, free space on its disk, or move it away")
