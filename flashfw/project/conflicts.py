"""What two places of a tree both claim, found by erasing the names of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from flashfw.errors import Problem
from flashfw.project import names, routes
from flashfw.project.annotations import WHOLE_REQUEST, type_name
from flashfw.project.functions import FunctionTree
from flashfw.project.model import Definition, Handler


class _Segment(NamedTuple):
    """One segment of a function's route, below its erased parent."""

    parent: str
    text: str
    function: FunctionTree


def find(
    handlers: Sequence[Handler], functions: Sequence[FunctionTree], directories: Iterable[str]
) -> Iterator[Problem]:
    """Every conflict among endpoints; `directories` are the paths that hold handlers or lead to one."""
    shadows = tuple(_shadows(handlers, frozenset(directories)))
    yield from shadows
    known = {(place, problem.file) for problem in shadows for place, _ in problem.also}
    yield from (problem for problem in _same_url(functions) if (problem.file, problem.also[0][0]) not in known)
    segments = [segment for function in functions for segment in _segments(function)]
    yield from _differ_by_case(segments)
    yield from _two_names(functions)
    for handler in handlers:
        yield from _repeated(handler)
        yield from _untaken(handler)


def _same_url(flat: Iterable[FunctionTree]) -> Iterator[Problem]:
    claims: dict[str, list[FunctionTree]] = {}
    for function in flat:
        url = routes.erase(function.route)
        rival = next((held for held in claims.get(url, ()) if _share_method(held, function)), None)
        if rival is not None:
            yield _clash(f"{_method(function)} {function.route} is taken twice", rival, function)
        claims.setdefault(url, []).append(function)


def _share_method(one: FunctionTree, other: FunctionTree) -> bool:
    return "*" in (one.method, other.method) or _method(one) == _method(other)


def _method(function: FunctionTree) -> str:
    return function.method or "POST"  # a job is called by POST at its URL


def _clash(what: str, first: FunctionTree, second: FunctionTree, hint: str = "rename one of them") -> Problem:
    text = f"{what}: by {second.id!r} and by {first.id!r}"
    return Problem(text, second.handler.file, second.line, hint=hint, also=((first.handler.file, first.line),))


def _segments(function: FunctionTree) -> Iterator[_Segment]:
    parent = ""
    for text in function.route.split("/")[1:]:
        yield _Segment(parent, routes.erase(text), function)
        parent = f"{parent}/{routes.erase(text)}"


def _differ_by_case(segments: Iterable[_Segment]) -> Iterator[Problem]:
    first: dict[tuple[str, str], dict[str, FunctionTree]] = {}
    for parent, text, function in segments:
        spellings = first.setdefault((parent, text.casefold()), {})
        if text not in spellings and spellings:
            other, rival = next(iter(spellings.items()))
            what = f"'{parent}/{text}' and '{parent}/{other}' differ by case only"
            yield _clash(what, rival, function)
        spellings.setdefault(text, function)


def _two_names(flat: Iterable[FunctionTree]) -> Iterator[Problem]:
    first: dict[str, dict[str, FunctionTree]] = {}
    for function in flat:
        for level, name in routes.levels(function.route):
            known = first.setdefault(level, {})
            if name not in known and known:
                other, rival = next(iter(known.items()))
                what = f"one dynamic level has two names, {name!r} and {other!r}, at {level!r}"
                yield _clash(what, rival, function, hint=f"call it {other!r} in both, or {name!r} in both")
            known.setdefault(name, function)


def _repeated(handler: Handler) -> Iterator[Problem]:
    name = routes.repeated(handler.route)
    if name is not None:
        line = handler.definitions[0].line
        what = f"the parameter {name!r} stands twice in {handler.route!r}"
        yield Problem(what, handler.file, line, hint="give each dynamic segment a name of its own")


def _untaken(handler: Handler) -> Iterator[Problem]:
    if handler.kind != "http":
        return
    for name in dict.fromkeys(item.name for item in routes.placeholders(handler.route)):
        if not any(_takes(item, name) for item in handler.definitions):
            first = handler.definitions[0]
            what = f"no parameter takes {name!r} of {handler.route!r}"
            hint = f"write `def {first.name}({name}: ...)`, or take the request: `request: Request`"
            yield Problem(what, handler.file, first.line, hint=hint)


def _takes(item: Definition, name: str) -> bool:
    if item.parameters is None:
        return True  # an assignment: the source does not tell
    return any(
        parameter.name == name or parameter.kind == "kwargs" or type_name(parameter.annotation) in WHOLE_REQUEST
        for parameter in item.parameters
    )


def _shadows(handlers: Iterable[Handler], directories: frozenset[str]) -> Iterator[Problem]:
    for handler in handlers:
        if handler.kind != "job":
            continue
        for method in (method for item in handler.definitions for method in item.methods):
            below = f"{handler.path}/{method.name}"
            if below in directories:
                what = f"the method {method.name!r} has the URL of the directory {names.ENDPOINTS}/{below}"
                place = ((routes.file(below), None),)
                yield Problem(what, handler.file, method.line, hint="rename the method or the directory", also=place)
