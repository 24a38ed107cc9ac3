"""A Python file to the modules that it imports, and a set of files to all project files that these bring in.

Nothing is imported or run. What is imported by a computed name is not seen; a worker tells of it when it happens.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from flashfw.errors import Problem
from flashfw.project import source

WORKER_PROVIDED = frozenset(
    {"flashfw", "pydantic", "pydantic_core", "starlette", "anyio", "python_multipart", "typing_extensions"}
)
"""What lies beside user code in every worker."""


_FOREIGN = frozenset({"__pycache__", "site-packages", "node_modules"})


class Import(NamedTuple):
    """One imported name. `level` counts the dots; `optional` if the file also works without it."""

    module: str
    name: str
    level: int
    line: int
    optional: bool


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a project as it is now; `problem` tells why a module cannot be read."""

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
        """The file at `path` below the root, None if there is no readable one."""
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

    def has(self, name: str) -> bool:
        """Whether a top-level module or package of that name belongs to the project."""
        return name in self._folders("") or f"{name}.py" in self._names("")

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
                found = [(entry.name, entry.is_dir()) for entry in entries]
        except OSError:
            found = []
        for name, is_folder in found:
            if is_folder and not name.startswith(".") and name not in _FOREIGN:
                folders.add(name)
            elif name.endswith(".py"):
                files.add(name)
        self._listings[folder], self._directories[folder] = frozenset(files), frozenset(folders)

    def _load(self, path: str) -> SourceFile | None:
        try:
            with open(f"{self.root}/{path}", "rb") as file:
                data = file.read()
        except OSError:
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        if not path.endswith(".py"):
            return SourceFile(path, sha256)
        found = imported(data)
        if isinstance(found, Problem):
            return SourceFile(path, sha256, problem=replace(found, file=path))
        return SourceFile(path, sha256, found)


@lru_cache(maxsize=8192)
def imported(data: bytes) -> tuple[Import, ...] | Problem:
    """All imports of a module's source, in the order of the file, or why it does not parse.

    >>> [item.module for item in imported(b"import os\nfrom lib import x")]
    ['os', 'lib']
    """
    tree = source.parse(data, "<module>")
    return tree if isinstance(tree, Problem) else tuple(_imports(tree.body, optional=False))


def _imports(body: Iterable[ast.stmt], *, optional: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", 0, node.lineno, optional)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(node.module or "", alias.name, node.level, node.lineno, optional)
        else:
            yield from _inside(node, optional=optional)


def _inside(node: ast.stmt, *, optional: bool) -> Iterator[Import]:
    """The imports in the blocks of a statement. Expressions hold none, so they are not looked at."""
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        yield from _imports(node.body, optional=True)
        yield from _imports(node.orelse, optional=optional)
        return
    guarded = isinstance(node, ast.Try) and any(_catches_import(handler) for handler in node.handlers)
    for name, block in ast.iter_fields(node):
        if not isinstance(block, list):
            continue
        if name in ("body", "orelse", "finalbody"):
            yield from _imports(block, optional=optional or (guarded and name == "body"))
        elif name in ("handlers", "cases"):
            for part in block:
                yield from _imports(part.body, optional=optional or guarded)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _catches_import(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
    return any(item is None or (isinstance(item, ast.Name) and item.id in names) for item in caught)


def is_standard(name: str) -> bool:
    """Whether a top-level module belongs to Python itself."""
    return name in sys.stdlib_module_names


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
