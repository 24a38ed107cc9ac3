"""The files of a project: what each says, read and parsed once, and the project files that its imports run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from flashfw.errors import Problem
from flashfw.project import content, imports, middleware, names, source
from flashfw.project.handlers import COUNTED
from flashfw.project.imports import Import
from flashfw.project.model import Definition
from flashfw.project.source import Source

_SIGNED = {names.HANDLER: COUNTED, names.MIDDLEWARE: middleware.SIGNED}
_FOREIGN = frozenset({"__pycache__", "site-packages", "node_modules"})


class Module(NamedTuple):
    """What one Python file says. `fixtures` are told of a fixtures.py alone."""

    source: Source
    imports: tuple[Import, ...]
    fixtures: tuple[Definition, ...] = ()


def load(root: Path, file: str) -> Module | Problem:
    """The module at `file` below the root, or what is wrong with it."""
    data = content.read(root, file)
    if isinstance(data, Problem):
        return data
    found = module(data, file.rpartition("/")[2])
    return replace(found, file=file) if isinstance(found, Problem) else found


@lru_cache(maxsize=8192)
def module(data: bytes, name: str) -> Module | Problem:
    """What the bytes of a Python file say, or why they are none; `name` tells which of it matters.

    Kept by content: collecting and compiling share it, and so do all rounds of `flashfw dev`.

    >>> [item.module for item in module(b"import os\\nfrom lib import x", "x.py").imports]
    ['os', 'lib']
    """
    tree = source.parse(data, name)
    if isinstance(tree, Problem):
        return tree
    try:
        return Module(
            source.read(tree, _SIGNED.get(name, ())),
            tuple(imports.of(tree.body)),
            source.fixtures(tree) if name == names.FIXTURES else (),
        )
    except RecursionError:
        return Problem("is nested too deeply to be read", name, 1)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a project as it is now; `problem` tells why it does not parse, or with no `sha256`, be read."""

    path: str
    sha256: str
    imports: tuple[Import, ...] = ()
    problem: Problem | None = None


class Files:
    """The files of a project below `root`, each read, hashed and parsed at most once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, SourceFile | None] = {}
        self._resolved: dict[tuple[str, str, str, int], tuple[str, ...]] = {}
        self._listings: dict[str, frozenset[str]] = {}
        self._directories: dict[str, frozenset[str]] = {}

    def file(self, path: str) -> SourceFile | None:
        """The file at `path` below the root, None if there is none."""
        if path not in self._files:
            self._files[path] = self._load(path)
        return self._files[path]

    def closure(self, paths: Iterable[str]) -> dict[str, SourceFile]:
        """The files at `paths` and all project files that they import, however far."""
        found: dict[str, SourceFile] = {}
        pending = list(paths)
        while pending:
            path = pending.pop()
            if path in found or (file := self.file(path)) is None:
                continue
            found[path] = file
            for item in file.imports:
                pending += self.resolve(path, item)
        return found

    def module(self, name: str) -> tuple[str, ...]:
        """The project files that `import name` runs: the packages around it and the module itself."""
        return tuple(self._module(name.split(".")))

    def resolve(self, importer: str, item: Import) -> tuple[str, ...]:
        """The project files that one import in the file `importer` runs."""
        package = importer.rsplit("/", 1)[0] if item.level and "/" in importer else ""
        key = (package, item.module, item.name, item.level)
        if key not in self._resolved:
            self._resolved[key] = tuple(self._resolve(package, item))
        return self._resolved[key]

    def defines(self, name: str) -> bool:
        """Whether the project has the module or package of that dotted name."""
        folder, _, last = name.replace(".", "/").rpartition("/")
        return last in self._folders(folder) or f"{last}.py" in self._names(folder)

    def _resolve(self, package: str, item: Import) -> Iterator[str]:
        parts = item.module.split(".") if item.module else []
        if item.level:
            base = package.split("/") if package else []
            if item.level - 1 > len(base):
                return
            parts = base[: len(base) - item.level + 1] + parts
        if item.name and item.name != "*":
            # `from lib import x`: x may be a module of the package, or a name in its __init__.
            parts = [*parts, item.name]
        yield from self._module(parts)

    def _module(self, parts: list[str]) -> Iterator[str]:
        folder = ""
        for part in parts:
            if f"{part}.py" in self._names(folder) and not (
                part in self._folders(folder) and "__init__.py" in self._names(_join(folder, part))
            ):
                yield _join(folder, f"{part}.py")
                return
            if part not in self._folders(folder):
                return
            folder = _join(folder, part)
            if "__init__.py" in self._names(folder):
                yield _join(folder, "__init__.py")

    def _names(self, folder: str) -> frozenset[str]:
        self._list(folder)
        return self._listings[folder]

    def _folders(self, folder: str) -> frozenset[str]:
        self._list(folder)
        return self._directories[folder]

    def _list(self, folder: str) -> None:
        if folder in self._listings:
            return
        files, folders = set(), set()
        try:
            with os.scandir(f"{self.root}/{folder}") as entries:
                found = [(entry.name, content.is_dir(entry)) for entry in entries]
        except OSError:
            found = []
        for name, is_folder in found:
            if is_folder and not name.startswith(".") and name not in _FOREIGN:
                folders.add(name)
            elif not is_folder and name.endswith(".py"):
                files.add(name)
        self._listings[folder], self._directories[folder] = frozenset(files), frozenset(folders)

    def _load(self, path: str) -> SourceFile | None:
        if not path.endswith(".py"):
            sha256 = content.digest(self.root, path)
            return self._unread(path, sha256) if isinstance(sha256, Problem) else SourceFile(path, sha256)
        data = content.read(self.root, path)
        if isinstance(data, Problem):
            return self._unread(path, data)
        sha256 = hashlib.sha256(data).hexdigest()
        found = module(data, path.rpartition("/")[2])
        if isinstance(found, Problem):
            return SourceFile(path, sha256, problem=replace(found, file=path))
        return SourceFile(path, sha256, found.imports)

    def _unread(self, path: str, problem: Problem) -> SourceFile | None:
        return SourceFile(path, "", problem=problem) if os.path.lexists(f"{self.root}/{path}") else None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
