"""The syntax tree of a Python file to the modules that it imports.

Nothing is imported or run. What is imported by a computed name is not seen; a worker tells of it when it happens.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flashfw.project.source import last_name

WORKER_PROVIDED = frozenset(
    {"flashfw", "pydantic", "pydantic_core", "starlette", "anyio", "python_multipart", "typing_extensions"}
)
"""What lies beside user code in every worker."""
_CAUGHT = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


_BLOCKS = tuple(
    getattr(ast, name)
    for name in (
        *("FunctionDef", "AsyncFunctionDef", "ClassDef", "If", "For", "AsyncFor", "While", "With", "AsyncWith"),
        *("Try", "TryStar", "Match"),
    )
    if hasattr(ast, name)  # TryStar is new in 3.11
)
"""Statements that hold others."""


class Import(NamedTuple):
    """One imported name. `level` counts the dots; `optional` if the file also works without it."""

    module: str
    name: str
    level: int
    line: int
    optional: bool


def of(body: Iterable[ast.stmt]) -> Iterator[Import]:
    """All imports of a module, in the order of the file.

    >>> [item.module for item in of(ast.parse("import os\\nfrom lib import x").body)]
    ['os', 'lib']
    """
    return _imports(body, optional=False)


def _imports(body: Iterable[ast.stmt], *, optional: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", 0, node.lineno, optional)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(node.module or "", alias.name, node.level, node.lineno, optional)
        elif isinstance(node, _BLOCKS):
            yield from _inside(node, optional=optional)


def _inside(node: ast.stmt, *, optional: bool) -> Iterator[Import]:
    """The imports in the blocks of a statement. Expressions hold none, so they are not looked at."""
    if isinstance(node, ast.If) and last_name(node.test) == "TYPE_CHECKING":
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


def _catches_import(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(item is None or last_name(item) in _CAUGHT for item in caught)


def is_standard(name: str) -> bool:
    """Whether a top-level module belongs to Python itself."""
    return name in sys.stdlib_module_names
