"""Walks `endpoints/` and yields its directories in order; every rule about them is somebody else's answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flashfw.errors import Problem
from flashfw.project import content, ignore, names, routes
from flashfw.project.model import Directory


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
    pending = [_Visit(Directory("", ()), ignores, (*_parents(real), os.path.realpath(root / names.ENDPOINTS)))]
    while pending:
        visit = pending.pop()
        entries = _entries(root, visit.directory.path)
        if isinstance(entries, Problem):
            yield entries
            if visit.directory.path:
                yield replace(visit.directory, unread=True)
            continue
        asked = [(entry, _is_dir(entry)) for entry in entries]
        files = tuple(entry.name for entry, is_dir in asked if not is_dir)
        ignores, problems = visit.ignores.within(root, routes.directory(visit.directory.path), files)
        yield from problems
        children = [
            child for entry, is_dir in asked if is_dir is not False and (child := _child(entry, visit, ignores))
        ]
        yield Directory(visit.directory.path, _kept(visit.directory.path, files, ignores))
        yield from (child for child in children if isinstance(child, Problem))
        pending.extend(child for child in reversed(children) if isinstance(child, _Visit))


def _parents(real: str) -> tuple[str, ...]:
    return (real, *(str(parent) for parent in Path(real).parents))


def _entries(root: Path, path: str) -> list[os.DirEntry[str]] | Problem:
    try:
        with os.scandir(root / routes.directory(path)) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        if not path and not os.path.islink(root / names.ENDPOINTS):
            return []  # a project without endpoints yet
        return Problem(f"cannot be read: {error.strerror}", routes.directory(path), hint="mend the link, or remove it")
    except NotADirectoryError:
        return Problem("is no directory", routes.directory(path), hint="make it a directory of endpoints")
    except OSError as error:
        return Problem(f"cannot be read: {error.strerror or error}", routes.directory(path), hint="make it readable")


def _is_dir(entry: os.DirEntry[str]) -> bool | None:
    """As `content.is_dir`; whoever opens what has the name of a special file tells what it is instead."""
    return False if entry.name in names.SPECIAL else content.is_dir(entry)


def _child(entry: os.DirEntry[str], visit: _Visit, ignores: ignore.Ignores) -> _Visit | Problem | None:
    path = f"{visit.directory.path}/{entry.name}" if visit.directory.path else entry.name
    place = routes.directory(path)
    if names.is_skipped(entry.name) or ignores(place, is_dir=True):
        return None
    if _is_dir(entry) is None:
        return Problem("symlink loop: it leads to itself", place, hint="remove the link")
    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{visit.real[-1]}/{entry.name}"
    if real in visit.real:
        hint = "remove the link" if entry.is_symlink() else "remove the link above it"
        return Problem(f"symlink loop: it leads back to {real!r}", place, hint=hint)
    return _Visit(Directory(path, ()), ignores, (*visit.real, real))


def _kept(path: str, files: tuple[str, ...], ignores: ignore.Ignores) -> tuple[str, ...]:
    kept = (name for name in files if name.endswith(names.SUFFIXES) and not name.startswith("."))
    return tuple(name for name in kept if not ignores(routes.file(path, name), is_dir=False))
