"""An endpoint to the files that count for it, and those with its configuration to one fingerprint.

Counted are the modules in its directory, the special files of the directories above, every project file
that these import, and what `include` names. A file that is not among them never changes the fingerprint.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from flashfw.manifest import Endpoint
from flashfw.project import names, routes
from flashfw.project.files import Files, SourceFile
from flashfw.project.model import EndpointTree, Project

_ABOVE = (names.FIXTURES, names.MIDDLEWARE, names.CONFIG, "__init__.py")
_NEVER = frozenset(
    {"__pycache__", "node_modules", ".git", ".flashfw", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)


class Inventory:
    """Which files lie in which directory of `endpoints/`, and which endpoint each directory belongs to."""

    def __init__(self, project: Project) -> None:
        self.files = {routes.directory(found.path): found.files for found in project.directories}
        self._own: dict[str, list[str]] = {}
        endpoints = {tree.directory: tree.id for tree in project.endpoints}
        owners: dict[str, str | None] = {names.ENDPOINTS: None}
        for directory in self.files:  # parents come first
            owner = endpoints.get(directory) or owners.get(directory.rpartition("/")[0])
            # Of the index endpoint, `endpoints/` itself is all.
            owners[directory] = owner if directory != names.ENDPOINTS else None
            if owner is not None:
                self._own.setdefault(owner, []).append(directory)

    def entries(self, tree: EndpointTree) -> Iterator[str]:
        """The files that a worker of an endpoint imports by itself, before any import in them."""
        wanted = {names.HANDLER, names.FIXTURES, "__init__.py"} | ({names.MIDDLEWARE} if tree.kind != "job" else set())
        for path in (*self.own(tree), *self.above(tree)):
            if path.rpartition("/")[2] in wanted:
                yield path

    def own(self, tree: EndpointTree) -> Iterator[str]:
        """The modules and the endpoint.toml in the directories of an endpoint."""
        for directory in self._own.get(tree.id, ()):
            yield from (f"{directory}/{name}" for name in self.files[directory] if name.endswith(".py"))
        if names.CONFIG in self.files.get(tree.directory, ()):
            yield f"{tree.directory}/{names.CONFIG}"

    def above(self, tree: EndpointTree) -> Iterator[str]:
        """The special files of the directories above an endpoint, and what importing through these runs."""
        directory = tree.directory
        while directory != names.ENDPOINTS and "/" in directory:
            directory = directory.rpartition("/")[0]
            yield from (f"{directory}/{name}" for name in _ABOVE if name in self.files.get(directory, ()))


def sources(
    tree: EndpointTree, *, inventory: Inventory, files: Files, preload: Iterable[str], data: Iterable[str]
) -> dict[str, SourceFile]:
    """The files that count for an endpoint, by path: `data` are those that `include` names."""
    roots = {*inventory.own(tree), *inventory.above(tree), *data}
    for module in preload:
        roots.update(files.module(module))
    return files.closure(roots)


def included(root: Path, pattern: str) -> tuple[str, ...]:
    """The files below `root` that a pattern names, sorted. A folder stands for all files in it.

    Nothing outside the project is found, a link that leads there neither.
    """
    base = os.path.realpath(root)
    found: set[str] = set()
    for path in root.glob(pattern):
        below = path.rglob("*") if path.is_dir() else (path,)
        found.update(_inside(base, root, below))
    return tuple(sorted(found))


def fingerprint(endpoint: Endpoint) -> str:
    """The SHA-256 over everything that the workers of an endpoint depend on.

    The order of the dependencies is none of it: they are one set of requirements.
    """
    dependencies, same = tuple(sorted(set(endpoint.dependencies))), endpoint
    if dependencies != endpoint.dependencies or endpoint.fingerprint:
        same = replace(endpoint, dependencies=dependencies, fingerprint="")
    # The text of a frozen record of plain values is the same in every process, and four times faster than JSON.
    return hashlib.sha256(repr(same).encode("utf-8", "surrogatepass")).hexdigest()


def _inside(base: str, root: Path, paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        relative = path.relative_to(root)
        if _NEVER & set(relative.parts) or not path.is_file():
            continue
        if os.path.realpath(path).startswith(base + os.sep):
            yield relative.as_posix()
