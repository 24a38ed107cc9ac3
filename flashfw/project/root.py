"""Finds the project: `--root`, else the nearest `flashfw.toml`, else the nearest pyproject.toml with its table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flashfw.errors import NoProjectError, Problem
from flashfw.project import content, tomlkeys
from flashfw.project.model import Root
from flashfw.project.names import ENDPOINTS

CONFIG = "flashfw.toml"
PYPROJECT = "pyproject.toml"

_TABLE = re.compile(r"^\s*\[+\s*tool\s*\.\s*(?:flashfw|\"flashfw\"|'flashfw')\s*[.\]]", re.MULTILINE)


def find(start: Path, *, explicit: Path | None = None) -> Root:
    """The project that `start` lies in, or the one in the folder `explicit`. Never two merged.

    A `flashfw.toml` in any parent goes before a pyproject.toml with `[tool.flashfw]`.

    Raises:
        NoProjectError: there is none.
    """
    if explicit is not None:
        return _explicit(start, explicit)
    start = start.absolute()
    folders = (start, *start.parents)
    found = next((folder / CONFIG for folder in folders if _is_file(folder / CONFIG)), None)
    found = found or next((folder / PYPROJECT for folder in folders if has_table(folder / PYPROJECT)), None)
    if found is None:
        raise NoProjectError(f"no {CONFIG} in {str(start)!r} or above it", hint=_mend(start))
    return Root(found.parent, found)


def _explicit(start: Path, explicit: Path) -> Root:
    folder = (start / explicit).absolute()
    if not folder.is_dir():
        raise NoProjectError(f"--root {str(explicit)!r} is no folder", hint=f"name the folder that holds {CONFIG}")
    if (folder / CONFIG).is_file():
        return Root(folder, folder / CONFIG)
    if has_table(folder / PYPROJECT):
        return Root(folder, folder / PYPROJECT)
    raise NoProjectError(f"--root {str(explicit)!r} holds no {CONFIG}", hint=_mend(folder))


def _mend(folder: Path) -> str:
    if (folder / ENDPOINTS).is_dir():
        return f"there is an {ENDPOINTS!r} folder: put an empty {CONFIG} beside it"
    return f"make a project with `flashfw new PATH`, or an empty {CONFIG} where its root shall be"


def has_table(pyproject: Path) -> bool:
    """Whether a pyproject.toml has `[tool.flashfw]`; one that does not parse has it if a line says so."""
    text = _text(pyproject)
    if "flashfw" not in text:
        return False
    data = _data(pyproject.name, text)
    if data is None:
        return _TABLE.search(text) is not None
    return isinstance(tomlkeys.inside(data, ("tool", "flashfw")), dict)


def doubled(root: Root) -> Problem | None:
    """The problem of a folder whose flashfw.toml and pyproject.toml both want to be the project."""
    if root.config.name != CONFIG or not has_table(root.path / PYPROJECT):
        return None
    found = _TABLE.search(text := _text(root.path / PYPROJECT))
    line = text.count("\n", 0, found.end()) + 1 if found else 1
    what = f"[tool.flashfw] stands beside a {CONFIG}: one project has one of them, they are never merged"
    return Problem(what, PYPROJECT, line, hint=f"move the table's content into {CONFIG}", also=((CONFIG, None),))


def name(root: Root) -> str:
    """The project's name as its file gives it, else the folder's. What is wrong in the file is not told here."""
    data = _data(root.config.name, _text(root.config)) or {}
    places: tuple[tomlkeys.KeyPath, ...] = (("project", "name"),)
    if root.config.name == PYPROJECT:
        places = (("tool", "flashfw", "project", "name"), *places)
    given = next((found for place in places if (found := tomlkeys.inside(data, place)) is not None), None)
    return given if isinstance(given, str) and given else root.path.name or "project"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a parent that may not be searched
        return False


def _text(path: Path) -> str:
    data = content.read(path.parent, path.name)
    return "" if isinstance(data, Problem) else data.decode("utf-8-sig", errors="replace")


def _data(file: str, text: str) -> dict[str, Any] | None:
    parsed = tomlkeys.parse(file, text)
    return None if isinstance(parsed, Problem) else parsed.data
