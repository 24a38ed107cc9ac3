"""From the bytes of a Python file to its top-level names and signatures, never importing or running it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from flashfw.errors import Problem
from flashfw.project.model import Definition, Parameter

TEARDOWN = ("close", "aclose")
"""Methods of a class `handler` that end it and are no functions of the endpoint."""

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_COOKIE = re.compile(rb"\A(?:[^\n]*\n)?[ \t\f]*#.*?coding[:=]")
"""A declaration of another encoding, in one of the first two lines."""
_PARAMETERS_STAY = frozenset(
    {"staticmethod", "classmethod", "no_grad", "inference_mode", "cache", "lru_cache", "override", "deprecated"}
)
"""Decorators that leave the parameters as written; of any other the source does not tell."""
_PROPERTIES = ("property", "cached_property", "setter", "getter", "deleter")


class Constant(NamedTuple):
    """A top-level assignment to a name: the string it is set to, None if it is anything else."""

    text: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Source:
    """The top level of a module, in the order of its lines.

    `definitions` holds every `def`, `class`, assignment and `from ... import` by name; where a name
    is bound twice the last one counts, as when Python runs the file. Only names that matter have
    their parameters. `twice` lists plain functions and classes that replace another of the same block. `classes` says
    of a name that is assigned a class of this module, or an instance of one, which class that is.
    """

    definitions: dict[str, Definition]
    routes: tuple[Constant, ...] = ()
    twice: tuple[tuple[Definition, int], ...] = ()
    classes: dict[str, Definition] = field(default_factory=dict)


def parse(data: bytes, file: str) -> ast.Module | Problem:
    """The syntax tree of a module's bytes, or the problem that Python has with them.

    >>> str(parse(b"def get(:\\n", "endpoints/api/handler.py"))
    'endpoints/api/handler.py:1: syntax error: invalid syntax'
    """
    try:
        if not data.isascii() and not _COOKIE.search(data):
            data.decode("utf-8")  # the parser would let odd bytes pass in comments, which other tools refuse
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in user code is not ours to tell
            return ast.parse(data, filename=file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Problem(f"is not UTF-8: byte 0x{data[error.start]:02x}", file, line, hint="save it as UTF-8")
    except (SyntaxError, ValueError) as error:
        return _syntax_problem(data, file, error)
    except (RecursionError, MemoryError):
        return Problem("is nested too deeply for Python to read it", file, 1)


def _syntax_problem(data: bytes, file: str, error: SyntaxError | ValueError) -> Problem:
    if (null := data.find(b"\0")) >= 0:
        hint = "is it a binary file?"
        return Problem("holds a null byte, which no Python source may", file, data.count(b"\n", 0, null) + 1, hint=hint)
    line = error.lineno if isinstance(error, SyntaxError) else None
    column = error.offset if isinstance(error, SyntaxError) else None
    return Problem(f"syntax error: {getattr(error, 'msg', error)}", file, line or 1, column=column or None)


def read(tree: ast.Module, signed: Collection[str]) -> Source:
    """The top-level names of a module; functions and classes named in `signed` with their signatures.

    >>> source = read(ast.parse("try:\\n    from lib import app\\nexcept ImportError:\\n    app = None"), ())
    >>> [(name, item.form, item.line) for name, item in source.definitions.items()]
    [('app', 'assignment', 4)]
    """
    definitions: dict[str, Definition] = {}
    routes: list[Constant] = []
    written: dict[str, ast.ClassDef] = {}
    classes: dict[str, Definition] = {}
    for statement in statements(tree.body):
        if isinstance(statement, ast.ClassDef):
            written[statement.name] = statement
        for definition in _define(statement, signed):
            definitions[definition.name] = definition
            classes.pop(definition.name, None)
            if definition.name in signed and (made := written.get(_of_class(statement))) is not None:
                classes[definition.name] = _class(made)
            if definition.name == "route" and definition.form == "assignment":
                routes.append(Constant(_text(statement), definition.line))
    return Source(definitions, tuple(routes), tuple(_twice(tree.body, definitions)), classes)


def fixtures(tree: ast.Module) -> tuple[Definition, ...]:
    """The functions of a fixtures.py: those defined in it whose names have no leading underscore.

    >>> [item.name for item in fixtures(ast.parse("from lib import a\\ndef model(): ...\\ndef _load(): ..."))]
    ['model']
    """
    found: dict[str, Definition] = {}
    for statement in statements(tree.body):
        if isinstance(statement, _Function) and not statement.name.startswith("_"):
            found[statement.name] = _function(statement)
        for name in _assigned(statement):
            if name in found:  # wrapped by hand: `model = cached(model)`
                found[name] = replace(found[name], parameters=None)
    return tuple(found.values())


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a block, those inside `if` and `try` included.

    What only a type checker or `python handler.py` would run is left out.
    """
    pending = list(reversed(body))
    while pending:
        statement = pending.pop()
        inner = _inner(statement)
        if inner is None:
            yield statement
        else:
            pending.extend(reversed(inner))


def _inner(statement: ast.stmt) -> list[ast.stmt] | None:
    if isinstance(statement, ast.If):
        return [*([] if _is_foreign(statement.test) else statement.body), *statement.orelse]
    if isinstance(statement, ast.Try) or type(statement).__name__ == "TryStar":  # TryStar is new in 3.11
        caught = [inner for handler in statement.handlers for inner in handler.body]  # type: ignore[attr-defined]
        return [*statement.body, *caught, *statement.orelse, *statement.finalbody]  # type: ignore[attr-defined]
    return None


def _is_foreign(test: ast.expr) -> bool:
    if isinstance(test, ast.Compare):
        return isinstance(test.left, ast.Name) and test.left.id == "__name__"
    return last_name(test) == "TYPE_CHECKING"


def _define(statement: ast.stmt, signed: Collection[str]) -> Iterator[Definition]:
    if isinstance(statement, _Function):
        known = statement.name in signed
        yield _function(statement) if known else Definition(statement.name, statement.lineno, "function")
    elif isinstance(statement, ast.ClassDef):
        known = statement.name in signed
        yield _class(statement) if known else Definition(statement.name, statement.lineno, "class")
    elif isinstance(statement, ast.ImportFrom):
        for alias in statement.names:
            yield Definition(alias.asname or alias.name, statement.lineno, "import")
    else:
        for name in _assigned(statement):
            yield Definition(name, statement.lineno, "assignment")


def _assigned(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = list(statement.targets)
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    else:
        return
    while targets:
        target = targets.pop(0)
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, (ast.Tuple, ast.List)):
            targets.extend(target.elts)


def _of_class(statement: ast.stmt) -> str:
    """The name that may be a class's where it, or what a call of it gives, is assigned; empty for anything else."""
    value = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
    value = value.func if isinstance(value, ast.Call) else value
    return value.id if isinstance(value, ast.Name) else ""


def _text(statement: ast.stmt) -> str | None:
    value = getattr(statement, "value", None)
    plain = not isinstance(statement, ast.Assign) or all(isinstance(target, ast.Name) for target in statement.targets)
    if plain and isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    return None


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool = False) -> Definition:
    doc = ast.get_docstring(node) or ""
    yields, is_async = _yields(node), isinstance(node, ast.AsyncFunctionDef)
    if not all(_decorator(item) in _PARAMETERS_STAY for item in node.decorator_list):
        return Definition(node.name, node.lineno, "function", None, doc=doc, yields=yields, is_async=is_async)
    parameters = tuple(_parameters(node.args))
    if bound and parameters and parameters[0].kind == "positional":
        parameters = parameters[1:]
    return Definition(node.name, node.lineno, "function", parameters, doc=doc, yields=yields, is_async=is_async)


def _yields(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is a generator: what functions inside it yield is theirs."""
    pending: list[ast.AST] = list(node.body)
    while pending:
        inner = pending.pop()
        if isinstance(inner, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(inner, (*_Function, ast.Lambda, ast.ClassDef)):
            pending.extend(ast.iter_child_nodes(inner))
    return False


def _decorator(node: ast.expr) -> str:
    return last_name(node.func if isinstance(node, ast.Call) else node)


def _parameters(arguments: ast.arguments) -> Iterator[Parameter]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    for argument, default in zip(positional, defaults, strict=True):
        yield _parameter(argument, default, "positional")
    if arguments.vararg:
        yield _parameter(arguments.vararg, None, "args")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(argument, default, "keyword")
    if arguments.kwarg:
        yield _parameter(arguments.kwarg, None, "kwargs")


def _parameter(
    argument: ast.arg, default: ast.expr | None, kind: Literal["positional", "keyword", "args", "kwargs"]
) -> Parameter:
    annotation = argument.annotation
    text = "" if annotation is None else _written(annotation)
    injected = default is not None and last_name(default) == "injected"
    return Parameter(argument.arg, text, default is not None, kind, injected)


def _written(annotation: ast.expr) -> str:
    """What `ast.unparse` says, without its cost for the usual forms."""
    if isinstance(annotation, ast.Name):
        return annotation.id
    if isinstance(annotation, ast.Attribute):
        return f"{_written(annotation.value)}.{annotation.attr}"
    if isinstance(annotation, ast.Subscript) and not isinstance(annotation.slice, ast.Tuple):
        return f"{_written(annotation.value)}[{_written(annotation.slice)}]"
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return "None"
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return f"{_written(annotation.left)} | {_written(annotation.right)}"
    return ast.unparse(annotation)


def _class(node: ast.ClassDef) -> Definition:
    written = [item for item in statements(node.body) if isinstance(item, _Function)]
    methods = {item.name: _function(item, bound=not _is_static(item)) for item in written if _is_method(item)}
    init = next((item for item in written if item.name == "__init__"), None)
    parameters: tuple[Parameter, ...] | None = ()
    if init is not None:
        parameters = _function(init, bound=True).parameters
    elif node.bases or node.keywords or node.decorator_list:
        parameters = None  # a base or a decorator may bring an __init__
    doc = ast.get_docstring(node) or ""
    return Definition(node.name, node.lineno, "class", parameters, tuple(methods.values()), doc)


def _is_method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if node.name != "__call__" and (node.name.startswith("_") or node.name in TEARDOWN):
        return False
    return not any(last_name(item) in _PROPERTIES for item in node.decorator_list)


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(last_name(item) == "staticmethod" for item in node.decorator_list)


def last_name(node: ast.expr) -> str:
    """The name that a dotted expression ends with, empty for any other.

    >>> last_name(ast.parse("typing.TYPE_CHECKING", mode="eval").body)
    'TYPE_CHECKING'
    """
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _twice(body: list[ast.stmt], definitions: dict[str, Definition]) -> Iterator[tuple[Definition, int]]:
    first: dict[str, int] = {}
    for statement in body:
        if not isinstance(statement, (*_Function, ast.ClassDef)) or statement.decorator_list:
            continue  # a decorator may register or overload, so the name may be meant twice
        if statement.name in first and definitions[statement.name].line == statement.lineno:
            yield definitions[statement.name], first[statement.name]
        first.setdefault(statement.name, statement.lineno)
