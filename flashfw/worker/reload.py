"""What a running worker does about saved files: which of its modules it imports anew, or why another has to start.

Pure: what is loaded and what was saved in, the decision out. `reloading.py` carries it out.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import NamedTuple

from flashfw.manifest import Endpoint

FIXTURES = "fixtures.py"
MIDDLEWARE = "middleware.py"
PACKAGE = "__init__.py"


class Anew(NamedTuple):
    """Modules to import anew; all others, and the fixtures, stay as they are. None if nothing that counts changed."""

    modules: frozenset[str]


class Restart(NamedTuple):
    """Only a new process gets it right, and why."""

    why: str


@dataclass(frozen=True)
class Module:
    """A module of the project that is loaded: its file below the root, and the source that it was imported from.

    Without a source it is none of Python's, such as an extension.
    """

    name: str
    file: str
    source: bytes | None

    def may_import(self, other: str) -> bool:
        """Whether it has a statement, wherever, that imports the module of this name."""
        last = other.rpartition(".")[2]
        if last.isascii() and last.encode() not in (self.source or b""):
            return False  # most are not parsed at all
        return other in self._imports

    @cached_property
    def _imports(self) -> frozenset[str]:
        return imports(self.source or b"", self.name, is_package=PurePosixPath(self.file).name == PACKAGE)


def decide(
    before: Endpoint, after: Endpoint, *, saved: Collection[str], modules: Mapping[str, Module]
) -> Anew | Restart:
    """What becomes of a worker of `before` whose `modules` are loaded, so that it is one of `after`.

    `saved` are the files, below the root, that are not any more what was imported. Modules that changed, and those that
    import them, are imported anew. Fixtures, middleware and what they import cannot be: values made by the old code
    would meet the new. Nor can what runs outside of any call: mounted applications, servers of a `command`.
    """
    if why := of_records(before, after):
        return Restart(why)
    named: dict[str, list[str]] = {}
    for name, module in modules.items():
        named.setdefault(module.file, []).append(name)  # several, if sys.path leads to it in several ways
    if why := next((why for file in sorted(saved) if (why := _of_file(file, named, after))), ""):
        return Restart(why)
    anew: set[str] = set()
    for changed in sorted(name for file, names in named.items() if file in saved for name in names):
        file, found = modules[changed].file, importers(changed, modules)
        for name in sorted(found):
            if why := _stays(modules[name], before):
                by = modules[name].file
                return Restart(f"{file}: {why}" if by == file else f"{file}: {by} imports it")
        anew |= found
    return Anew(frozenset(anew))


def of_records(before: Endpoint, after: Endpoint) -> str:
    """Why a worker of one record cannot become one of the other in its process, whatever was saved; empty if it can."""
    if before.command or after.command:
        return "its command is started anew"
    if _without_functions(before) != _without_functions(after):
        return "its configuration changed"
    if any(function.kind == "app" for function in (*before.functions, *after.functions)):
        return "a mounted application starts anew"
    had = {function.id: function.middleware for function in before.functions}
    if any(had.get(function.id, function.middleware) != function.middleware for function in after.functions):
        return "middleware came or went"
    return ""


def importers(changed: str, modules: Mapping[str, Module]) -> set[str]:
    """This module and all that import it, directly or through others."""
    found: set[str] = set()
    waiting = [changed]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [other for other, module in modules.items() if module.may_import(name)]
    return found


def imports(source: bytes, name: str, *, is_package: bool) -> frozenset[str]:
    """The dotted names that a module's source may import, wherever it does so; none if it does not parse.

    Of `from a import b` these are both `a` and `a.b`, since only running it tells whether `b` is a module.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return frozenset()
    package = name if is_package else name.rpartition(".")[0]
    return frozenset(found for node in ast.walk(tree) for found in _imported(node, package))


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        above = parts[: len(parts) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _of_file(file: str, named: Collection[str], endpoint: Endpoint) -> str:
    """Why a saved file that may not be loaded asks for a new process."""
    path = PurePosixPath(file)
    if path.name not in (FIXTURES, MIDDLEWARE) or file in named:
        return ""
    concerns = any(PurePosixPath(function.file).is_relative_to(path.parent) for function in endpoint.functions)
    return f"{file}: it came or went" if concerns else ""


def _stays(module: Module, endpoint: Endpoint) -> str:
    """Why a loaded module is not imported anew; empty if it may be."""
    name = PurePosixPath(module.file).name
    if module.source is None:
        return "it is not written in Python"
    if module.name in endpoint.preload:
        return "it is preloaded"
    if name == PACKAGE:
        return "a package is imported with all that is in it"
    in_tree = module.file.startswith("endpoints/")
    return {FIXTURES: "fixtures are built anew", MIDDLEWARE: "middleware is made anew"}.get(name, "") if in_tree else ""


def _without_functions(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, functions=(), sources=(), fingerprint="")
