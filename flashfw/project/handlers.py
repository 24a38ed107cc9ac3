"""From the source of a handler.py to its kind and route: what the file defines decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flashfw.errors import Problem
from flashfw.manifest import Kind
from flashfw.project import names, routes
from flashfw.project.model import Definition, Handler
from flashfw.project.source import Source

JOB = "handler"
APP = "app"
VERBS = ("get", "post", "put", "patch", "delete", "head", "options", "websocket")
COUNTED = frozenset((JOB, APP, *VERBS))
"""The names that make a file a handler."""
KIND_NAMES: dict[Kind, str] = {"job": "a job", "http": "HTTP", "app": "a mounted application"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A handler.py as read; `handler` is None where nothing of it can be told.

    With no problem of its own either it stands for a directory that cannot be read.
    """

    path: str
    handler: Handler | None
    problems: tuple[Problem, ...] = ()


def read(path: str, source: Source) -> Reading:
    """What the handler.py in a directory below `endpoints/` is, with everything wrong in it alone."""
    file = routes.file(path)
    counted = [item for name in COUNTED if (item := source.definitions.get(name)) and kind_of(item) is not None]
    counted.sort(key=lambda item: item.line)
    if not counted:
        return Reading(path, None, (_nothing(source, file),))
    kind = kind_of(counted[0])
    assert kind is not None
    definitions = tuple(item for item in counted if kind_of(item) == kind)
    route, problems = _route(path, kind, source)
    handler = Handler(path, file, routes.module(path), kind, definitions, route)
    problems += [*_mixed(counted, file), *_twice(source, file), *_form_flaws(handler), *_hidden(handler, source)]
    problems += place_flaws(handler)
    return Reading(path, handler, tuple(problems))


def kind_of(item: Definition) -> Kind | None:
    """The kind that a top-level name makes its file, None for an ordinary name.

    >>> [kind_of(Definition(name, 1, "import")) for name in ("handler", "app", "get", "np")]
    ['job', 'app', None, None]
    """
    if item.name == JOB:
        return "job"
    if item.name == APP:
        return "app"
    return "http" if item.name in VERBS and item.form != "import" else None


def mixed(first: tuple[Definition, Kind, str], second: tuple[Definition, Kind, str]) -> Problem:
    """The problem of one endpoint that has two kinds, naming both places; each is a definition, its kind, its file."""
    (one, kind, file), (other, other_kind, other_file) = first, second
    return Problem(
        f"one endpoint is one kind: {other.name!r} makes it {KIND_NAMES[other_kind]}, "
        f"but {one.name!r} makes it {KIND_NAMES[kind]}",
        other_file,
        other.line,
        hint="move one of them to an endpoint of its own",
        also=((file, one.line),),
    )


def _mixed(counted: list[Definition], file: str) -> Iterator[Problem]:
    first = counted[0]
    kind = kind_of(first)
    other = next((item for item in counted if kind_of(item) != kind), None)
    if other is not None and kind is not None and (other_kind := kind_of(other)) is not None:
        yield mixed((first, kind, file), (other, other_kind, file))


def _nothing(source: Source, file: str) -> Problem:
    imported = next((source.definitions[verb] for verb in VERBS if verb in source.definitions), None)
    if imported is not None:
        what = f"{imported.name!r} is imported: an HTTP function counts only where it is defined or assigned"
        return Problem(what, file, imported.line, hint=f"write `def {imported.name}(...)` in this file")
    for item in source.definitions.values():
        meant = names.closest(item.name.lower(), sorted(COUNTED), cutoff=0.75)
        if meant and item.form != "import":
            what = f"defines {item.name!r}, but no handler, app or HTTP verb"
            return Problem(what, file, item.line, hint=f"did you mean {meant!r}?")
    hint = "write `def handler(...)` for a job, `def get(...)` for HTTP, or rename the file if it is an ordinary module"
    return Problem("defines no handler, app or HTTP verb", file, 1, hint=hint)


def _route(path: str, kind: Kind, source: Source) -> tuple[str, list[Problem]]:
    file, own = routes.file(path), routes.route(path)
    if not source.routes:
        return own, []
    last = source.routes[-1]
    if kind != "http":
        what = "'route' has no effect: only HTTP functions have a route of their own"
        return own, [Problem(what, file, last.line, hint="remove it, or give it another name", level="warning")]
    if len({item.text for item in source.routes}) > 1:
        first = source.routes[0].line
        problem = Problem("'route' is set twice", file, last.line, hint="set it once", also=((file, first),))
        return own, [problem]
    if last.text is None:
        what = "'route' must be a plain string, since collection reads the file and does not run it"
        return own, [Problem(what, file, last.line, hint='write it out: route = "/files/{path:path}"')]
    if reason := routes.flaw(last.text):
        return own, [Problem(f"{last.text!r} is no route: {reason}", file, last.line)]
    return last.text, []


def _twice(source: Source, file: str) -> Iterator[Problem]:
    for item, first in source.twice:
        if kind_of(item) is not None:
            what = f"{item.name!r} is defined twice: the second replaces the first"
            yield Problem(what, file, item.line, hint="keep one of them", also=((file, first),))


def _form_flaws(handler: Handler) -> Iterator[Problem]:
    for item in handler.definitions:
        if item.name == "websocket" and item.form == "function" and item.parameters is not None and not item.is_async:
            what = "'websocket' must be async: a WebSocket is talked to with await"
            yield Problem(what, handler.file, item.line, hint="write `async def websocket(ws: WebSocket, ...)`")
        if handler.kind == "job" and item.form == "class" and not item.methods:
            what = "the class 'handler' has no function: only public methods written in its body count"
            yield Problem(what, handler.file, item.line, hint="write `def __call__(self, ...)` in it")


def _hidden(handler: Handler, source: Source) -> Iterator[Problem]:
    """Methods that would have URLs if the class that has them were called `handler`."""
    assigned = source.classes.get(JOB) if handler.kind == "job" else None
    methods = [method.name for method in assigned.methods if method.name != "__call__"] if assigned else []
    if assigned is None or not methods:
        return
    listed = " and ".join(filter(None, (", ".join(map(repr, methods[:-1])), repr(methods[-1]))))
    what = f"'handler' is assigned the class {assigned.name!r}, of which only '__call__' is served: {listed} get no URL"
    hint = f"write `class handler({assigned.name}):` with the methods that shall have one"
    yield Problem(what, handler.file, source.definitions[JOB].line, hint=hint, level="warning")


def place_flaws(handler: Handler) -> Iterator[Problem]:
    """What is wrong with where a job or an application is."""
    if handler.kind == "http":
        return
    first, kind = handler.definitions[0], KIND_NAMES[handler.kind]
    dynamic = next((part for part in handler.path.split("/") if names.parameter(part) is not None), None)
    if dynamic is not None:
        what = f"{first.name!r} makes this {kind}, but {dynamic!r} in its path is a dynamic segment, for HTTP only"
        hint = f"rename {dynamic!r} to {names.parameter(dynamic)!r}, and pass the value as input"
        yield Problem(what, handler.file, first.line, hint=hint)
    if not handler.path:
        what = f"{first.name!r} makes this {kind}, but {handler.file} is '/', for HTTP only"
        yield Problem(what, handler.file, first.line, hint=f"move it to {routes.file('NAME')}")
