"""What an installer left in a folder to the files of a layer: the same bytes whoever installed it, and where."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flashfw.bundle.archive import Entry
from flashfw.bundle.paths import ArchiveError
from flashfw.project.ignore import Ignores

FORMAT = 1
"""Goes up when the same installation would make another layer."""

_SHEBANG = re.compile(rb"#!(?:/bin/sh\n'''exec' .*\n' ''' *|.*python[^\n]*)\n")
"""As installers write the first lines of a script, the second form where a path is long or has a space in it."""
_PORTABLE = b"#!/usr/bin/env python3\n"


@dataclass(frozen=True, slots=True)
class Installed:
    """The files of an environment, and how many bytes belong to each of its distributions (`numpy==1.26.4`)."""

    entries: tuple[Entry, ...]
    sizes: dict[str, int]


def read(folder: Path, *, exclude: Ignores) -> Installed:
    """Everything below `folder` but byte code and what is excluded.

    Scripts in `bin/` get a first line that names no interpreter of this machine, and lists of files have none of what
    was left out or altered.

    Raises:
        ArchiveError: there is something else than regular files.
        OSError: a file cannot be read.
    """
    entries = {path: _entry(folder, path) for path in _paths(folder, "", exclude)}
    portable = {path: entry for path, entry in entries.items() if isinstance(entry.data, bytes)}
    sizes = {}
    for path in sorted(entries):
        if not re.fullmatch(r"[^/]+\.dist-info/RECORD", path):
            continue
        rows = _rows(folder / path)
        kept = [row if row[0] not in portable else [row[0], "", ""] for row in rows if row[0] in entries]
        sizes[_distribution(path)] = sum(_size(folder, row[0]) for row in kept)
        entries[path] = Entry(path, _record(kept))
    return Installed(tuple(entries.values()), sizes)


def _paths(folder: Path, below: str, exclude: Ignores) -> Iterator[str]:
    with os.scandir(folder / below) as scanned:
        found = sorted(scanned, key=lambda entry: entry.name)
    for entry in found:
        path = f"{below}/{entry.name}" if below else entry.name
        is_dir = entry.is_dir(follow_symlinks=False)
        if entry.name == "__pycache__" or entry.name.endswith((".pyc", ".pyo")) or exclude(path, is_dir=is_dir):
            continue
        if is_dir:
            yield from _paths(folder, path, exclude)
        elif entry.is_file(follow_symlinks=False):
            yield path
        else:
            raise ArchiveError(f"an installed package has {path!r}, which is no regular file")


def _entry(folder: Path, path: str) -> Entry:
    executable = bool((folder / path).stat().st_mode & stat.S_IXUSR)
    if path.startswith("bin/") and (script := _script(folder / path)) is not None:
        return Entry(path, script, executable)
    return Entry(path, folder / path, executable)


def _script(file: Path) -> bytes | None:
    """A script with a first line for any machine; None for what has no such line, a program for instance."""
    with file.open("rb") as stream:
        if stream.read(2) != b"#!":
            return None
        data = b"#!" + stream.read()
    found = _SHEBANG.match(data)
    return _PORTABLE + data[found.end() :] if found else None


def _rows(record: Path) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(record.read_text("utf-8"))) if row]


def _record(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    return text.getvalue().encode("utf-8")


def _distribution(record: str) -> str:
    name, _, version = record.partition("/")[0].removesuffix(".dist-info").partition("-")
    return f"{name.lower().replace('_', '-')}=={version}"


def _size(folder: Path, path: str) -> int:
    try:
        return (folder / path).stat().st_size
    except OSError:
        return 0
