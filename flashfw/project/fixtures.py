"""The fixtures of a tree, as their files say: which a directory can take, and which take one another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from flashfw.project import names, routes
from flashfw.project.annotations import GIVEN, JOB, type_name
from flashfw.project.functions import FunctionTree
from flashfw.project.model import Definition, FixtureFile, Parameter


class Spot(NamedTuple):
    """Where a fixture is defined: the directory below `endpoints/`, the name."""

    path: str
    name: str


class Fixtures:
    """The fixtures of a tree, by directory: the nearest fixtures.py wins."""

    def __init__(self, files: Iterable[FixtureFile]) -> None:
        self.files = {file.path: file for file in files}
        self._spots: dict[str, dict[str, Spot] | None] = {}
        self._reached: dict[Spot, frozenset[Spot]] = {}

    def spots(self, path: str) -> dict[str, Spot] | None:
        """What can be taken in a directory, by name; None while a fixtures.py that counts does not parse."""
        if path not in self._spots:
            self._spots[path] = self._gather(path)
        return self._spots[path]

    def definition(self, spot: Spot) -> Definition:
        """What a spot says."""
        found = self.files[spot.path].fixtures or ()
        return next(item for item in found if item.name == spot.name)

    def needs(self, spot: Spot) -> tuple[list[Spot], list[Parameter]]:
        """The fixtures that one takes, and its parameters that nobody can fill. Its own name means the one above."""
        needed: list[Spot] = []
        unknown: list[Parameter] = []
        for parameter in self.definition(spot).parameters or ():
            if parameter.kind in ("args", "kwargs") or type_name(parameter.annotation) in GIVEN:
                continue
            found = self._above(spot) if parameter.name == spot.name else self.spots(spot.path)
            if found is None:
                continue
            if parameter.name in found:
                needed.append(found[parameter.name])
            elif parameter.injected or not parameter.has_default:
                unknown.append(parameter)
        return needed, unknown

    def reach(self, spot: Spot) -> frozenset[Spot]:
        """A fixture and all that it takes, however far."""
        if spot not in self._reached:
            seen: set[Spot] = set()
            pending = [spot]
            while pending:
                if (current := pending.pop()) not in seen:
                    seen.add(current)
                    pending += self.needs(current)[0]
            self._reached[spot] = frozenset(seen)
        return self._reached[spot]

    def circle(self, start: Spot) -> tuple[Spot, ...]:
        """The shortest way from a fixture back to itself, from its first place on; empty if there is none."""
        came: dict[Spot, Spot] = {}
        pending = [start]
        for spot in pending:
            for needed in self.needs(spot)[0]:
                if needed == start:
                    return _rotated(_way(came, start, spot))
                if needed not in came:
                    came[needed] = spot
                    pending.append(needed)
        return ()

    def inputs(self, function: FunctionTree) -> tuple[Parameter, ...] | None:
        """The parameters that the caller of a function fills, None where the source does not tell."""
        spots = self.spots(function.handler.path)
        if function.parameters is None or spots is None:
            return None
        path = {item.name for item in routes.placeholders(function.route)}
        return tuple(
            item
            for item in function.parameters
            if not item.injected
            and item.name not in spots
            and item.name not in path
            and type_name(item.annotation) not in GIVEN
        )

    def per_job(self, function: FunctionTree) -> Spot | None:
        """A fixture that a function takes, directly or not, and that takes the `Job`; None if there is none."""
        spots = self.spots(function.handler.path) or {}
        taken = [spots[item.name] for item in function.parameters or () if item.name in spots]
        for spot in sorted(reached for one in taken for reached in self.reach(one)):
            if any(type_name(item.annotation) == JOB for item in self.definition(spot).parameters or ()):
                return spot
        return None

    def _above(self, spot: Spot) -> dict[str, Spot] | None:
        return self.spots(spot.path.rpartition("/")[0]) if spot.path else {}

    def _gather(self, path: str) -> dict[str, Spot] | None:
        found: dict[str, Spot] = {}
        for above in reversed(tuple(names.upwards(path))):
            if (file := self.files.get(above)) is None:
                continue
            if file.fixtures is None:
                return None
            found |= {item.name: Spot(above, item.name) for item in file.fixtures}
        return found


def _way(came: dict[Spot, Spot], start: Spot, end: Spot) -> list[Spot]:
    way = [end]
    while way[-1] != start:
        way.append(came[way[-1]])
    return way[::-1]


def _rotated(circle: list[Spot]) -> tuple[Spot, ...]:
    first = circle.index(min(circle))
    return (*circle[first:], *circle[:first])
