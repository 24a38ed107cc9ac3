"""What functions take by name: fixtures of the nearest fixtures.py, read and never run, and what is wrong with them.

Only what is certain from the source is told. The worker finds the rest when it describes or starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from flashfw.errors import Level, Problem
from flashfw.project import names, routes
from flashfw.project.annotations import GIVEN, PLAIN, type_name
from flashfw.project.fixtures import Fixtures, Spot
from flashfw.project.functions import FunctionTree
from flashfw.project.model import Handler, Parameter

_APPLICATION = ["scope", "receive", "send"]


class Flaw(NamedTuple):
    """A problem of injection, and the handlers that cannot work because of it."""

    problem: Problem
    files: frozenset[str]


def find(handlers: Iterable[Handler], functions: Iterable[FunctionTree], fixtures: Fixtures) -> list[Flaw]:
    """What is wrong with injection in a tree. Circles of fixtures that no function takes are warnings."""
    finder = _Finder(fixtures)
    for taker in (*_called(functions), *_made(handlers)):
        finder.take(taker)
    return list(finder.flaws())


@dataclass(frozen=True, slots=True)
class _Taker:
    """Something that is given fixtures. `has_inputs` tells whether a caller fills the rest."""

    id: str
    handler: Handler
    line: int
    parameters: tuple[Parameter, ...]
    has_inputs: bool = True
    hint: str = ""


def _called(functions: Iterable[FunctionTree]) -> Iterator[_Taker]:
    for function in functions:
        if function.parameters is None:
            continue
        is_app = function.handler.kind == "app"
        if is_app and [item.name for item in function.parameters] == _APPLICATION:
            continue
        hint = "an application is made once per worker, from fixtures" if is_app else ""
        yield _Taker(function.id, function.handler, function.line, function.parameters, not is_app, hint)


def _made(handlers: Iterable[Handler]) -> Iterator[_Taker]:
    hint = "a class is made once per worker, from fixtures"
    for handler in handlers:
        for item in handler.definitions:
            if handler.kind == "job" and item.form == "class" and item.parameters:
                yield _Taker(routes.node_id(handler.path), handler, item.line, item.parameters, False, hint)


class _Finder:
    def __init__(self, fixtures: Fixtures) -> None:
        self.fixtures = fixtures
        self.found: dict[Problem, set[str]] = {}
        self.reached: set[Spot] = set()
        self.faults: dict[Spot, tuple[Problem, ...]] = {}

    def take(self, taker: _Taker) -> None:
        """Looks at every parameter of one function."""
        spots = self.fixtures.spots(taker.handler.path)
        if spots is None:
            return
        path = {item.name for item in routes.placeholders(taker.handler.route)}
        for parameter in taker.parameters:
            if parameter.kind in ("args", "kwargs"):
                continue
            spot = spots.get(parameter.name)
            if parameter.name in path:
                if spot is not None:
                    self.tell(taker, f"takes {parameter.name!r}, a path parameter and a fixture", "rename one of them")
            elif type_name(parameter.annotation) not in GIVEN:
                self.look(taker, parameter, spot)

    def look(self, taker: _Taker, parameter: Parameter, spot: Spot | None) -> None:
        """One parameter that is a fixture or an input."""
        name, kind = parameter.name, type_name(parameter.annotation)
        if spot is None:
            if parameter.injected or not (taker.has_inputs or parameter.has_default):
                self.tell(taker, f"no fixture named {name!r}", self.similar(name, taker))
            return
        if taker.has_inputs and not parameter.injected and kind in PLAIN:
            what = f"{name!r} is a fixture ({self.place(spot)}), but its annotation {kind} reads like an input"
            self.tell(taker, what, f"write '{name}: {parameter.annotation} = injected', or rename the parameter")
        self.reached |= self.fixtures.reach(spot)
        for needed in self.fixtures.reach(spot):
            for problem in self.problems(needed):
                self.found.setdefault(problem, set()).add(taker.handler.file)

    def tell(self, taker: _Taker, what: str, hint: str) -> None:
        problem = Problem(f"'{taker.id}': {what}", taker.handler.file, taker.line, hint=hint)
        self.found.setdefault(problem, set()).add(taker.handler.file)

    def similar(self, name: str, taker: _Taker) -> str:
        known = self.fixtures.spots(taker.handler.path) or {}
        if close := names.closest(name, sorted(known)):
            return f"did you mean {close!r}?"
        if taker.hint:
            return taker.hint
        return _list(known) or f"write `def {name}()` in a {names.FIXTURES} beside it or above"

    def flaws(self) -> Iterator[Flaw]:
        """Everything that was told, then the circles that nobody reaches."""
        for problem, files in self.found.items():
            yield Flaw(problem, frozenset(files))
        for file in self.fixtures.files.values():
            for item in file.fixtures or ():
                circle = self.fixtures.circle(Spot(file.path, item.name))
                if circle and self.reached.isdisjoint(circle):
                    yield Flaw(self.circular(circle, "warning"), frozenset())

    def problems(self, spot: Spot) -> tuple[Problem, ...]:
        """What is wrong with one fixture."""
        if spot not in self.faults:
            self.faults[spot] = tuple(self._problems(spot))
        return self.faults[spot]

    def _problems(self, spot: Spot) -> Iterator[Problem]:
        item, file = self.fixtures.definition(spot), self.fixtures.files[spot.path].file
        known = {name for name in self.fixtures.spots(spot.path) or {} if name != spot.name}
        for parameter in self.fixtures.needs(spot)[1]:
            close = names.closest(parameter.name, sorted(known))
            hint = f"did you mean {close!r}?" if close else _list(known) or f"write `def {parameter.name}()` beside it"
            yield Problem(f"fixture {spot.name!r}: no fixture named {parameter.name!r}", file, item.line, hint=hint)
        if circle := self.fixtures.circle(spot):
            yield self.circular(circle, "error")

    def circular(self, circle: tuple[Spot, ...], level: Level) -> Problem:
        shown = " -> ".join(spot.name for spot in (*circle, circle[0]))
        places = [(self.fixtures.files[spot.path].file, self.fixtures.definition(spot).line) for spot in circle]
        return Problem(
            f"fixtures take one another in a circle: {shown}",
            *places[0],
            hint="take one of them apart",
            also=tuple(places[1:]),
            level=level,
        )

    def place(self, spot: Spot) -> str:
        return f"{self.fixtures.files[spot.path].file}:{self.fixtures.definition(spot).line}"


def _list(known: Iterable[str]) -> str:
    text = ", ".join(sorted(known))
    return f"fixtures here: {text}" if text else ""
