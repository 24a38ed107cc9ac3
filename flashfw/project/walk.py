"""Walks `endpoints/` and yields its directories in order; every rule about them is somebody else's answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flashfw.errors import Problem
from flashfw.project import ignore, names


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory of the tree: its path below `endpoints/` (empty for the top) and the files in it, sorted."""

    path: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Visit:
    directory: Directory
    ignores: ignore.Ignores
    real: tuple[str, ...]
    """The real paths of the directory and its parents in the walk: meeting one again is a loop."""


def walk(root: Path) -> Iterator[Directory | Problem]:
    """The directories below `root/endpoints`, parents first, names sorted, and what cannot be walked.

    Skipped are `_private`, dot and `__pycache__` directories and what ignore files leave out. Links to
    directories are followed, but never round in a circle.
    """
    ignores, problems = ignore.Ignores().within(root, "")
    yield from problems
    real = os.path.realpath(root)
    pending = [_Visit(Directory("", ()), ignores, (*_parents(real), os.path.join(real, names.ENDPOINTS)))]
    while pending:
        visit = pending.pop()
        entries = _entries(root, visit.directory.path)
        if isinstance(entries, Problem):
            yield entries
            continue
        files = tuple(entry.name for entry in entries if not _is_dir(entry))
        ignores, problems = visit.ignores.within(root, _place(visit.directory.path), files)
        yield from problems
        children = []
        for entry in entries:
            found = _child(entry, visit, ignores)
            if isinstance(found, Problem):
                yield found
            elif found is not None:
                children.append(found)
        yield Directory(visit.directory.path, _kept(visit.directory.path, files, ignores))
        pending.extend(reversed(children))


def _parents(real: str) -> tuple[str, ...]:
    return (real, *(str(parent) for parent in Path(real).parents))


def _place(path: str, name: str = "") -> str:
    return "/".join(part for part in (names.ENDPOINTS, path, name) if part)


def _entries(root: Path, path: str) -> list[os.DirEntry[str]] | Problem:
    try:
        with os.scandir(root / _place(path)) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except NotADirectoryError:
        return Problem("is no directory", _place(path), hint="make it a directory of endpoints")
    except OSError as error:
        return Problem(f"cannot be read: {error.strerror or error}", _place(path), hint="make it readable")


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle of links is neither; whoever opens it gets to tell
        return False


def _child(entry: os.DirEntry[str], visit: _Visit, ignores: ignore.Ignores) -> _Visit | Problem | None:
    path = f"{visit.directory.path}/{entry.name}" if visit.directory.path else entry.name
    if names.is_skipped(entry.name) or not _is_dir(entry) or ignores(_place(path), is_dir=True):
        return None
    real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(visit.real[-1], entry.name)
    if real in visit.real:
        hint = "remove the link" if entry.is_symlink() else "remove the link above it"
        return Problem(f"symlink loop: it leads back to {real!r}", _place(path), hint=hint)
    return _Visit(Directory(path, ()), ignores, (*visit.real, real))


def _kept(path: str, files: tuple[str, ...], ignores: ignore.Ignores) -> tuple[str, ...]:
    return tuple(name for name in files if not name.startswith(".") and not ignores(_place(path, name), is_dir=False))
