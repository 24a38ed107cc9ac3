"""The source text of an annotation to the class that it names, for rules that go by type."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache

from flashfw.project.source import last_name

WHOLE_REQUEST = frozenset({"Request", "WebSocket", "HTTPConnection"})
"""Annotations of parameters that are the call, and so see every path parameter."""
JOB = "Job"
GIVEN = WHOLE_REQUEST | {JOB}
"""Annotations of parameters that no caller fills."""
LISTS = frozenset({"list", "List", "Sequence", "Iterable", "Collection"})
PLAIN = frozenset(
    {"str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "set", "frozenset", "List", "Dict", "Tuple"}
)
"""What reads like an input."""


@lru_cache(maxsize=4096)
def type_name(annotation: str) -> str:
    """The name of the class that an annotation says, empty where it says several or none.

    >>> [type_name(text) for text in ("'web.Request'", "int | None", "Annotated[list[str], Query()]", "int | str")]
    ['Request', 'int', 'list', '']
    """
    if annotation.isidentifier():
        return annotation
    try:
        return _type_name(ast.parse(annotation, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError):
        return ""


@lru_cache(maxsize=4096)
def holds_file(annotation: str) -> bool:
    """Whether an annotation says `flashfw.File`, an optional one, or a list of them.

    >>> [holds_file(text) for text in ("flashfw.File", "File | None", "'list[File]'", "UploadFile", "dict[str, File]")]
    [True, True, True, False, False]
    """
    try:
        return _holds_file(ast.parse(annotation, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError):
        return False


def _holds_file(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return holds_file(node.value.strip())
    if isinstance(node, ast.BinOp):
        return _holds_file(node.left) or _holds_file(node.right)
    if not isinstance(node, ast.Subscript):
        return last_name(node) == "File"
    inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    outer = last_name(node.value)
    if outer == "Annotated":
        return bool(inside) and _holds_file(inside[0])
    return outer in (LISTS | {"Optional", "Union", "tuple", "Tuple"}) and any(_holds_file(item) for item in inside)


def _type_name(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return type_name(node.value.strip())
    if isinstance(node, ast.BinOp):
        return _one_of([node.left, node.right])
    if not isinstance(node, ast.Subscript):
        return last_name(node)
    outer = last_name(node.value)
    inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer in ("Annotated", "Optional") and inside:
        return _type_name(inside[0])
    return _one_of(inside) if outer == "Union" else outer


def _one_of(members: Iterable[ast.expr]) -> str:
    """The one that is not None, of a union."""
    found = [item for item in members if not (isinstance(item, ast.Constant) and item.value is None)]
    return _type_name(found[0]) if len(found) == 1 else ""
