"""What keeps requirements from being met, to problems at the lines that ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flashfw.build import lock_inputs
from flashfw.build.lock_inputs import Places
from flashfw.build.lock_install import IndexUnreachable
from flashfw.build.lock_project import NAME
from flashfw.build.words import some
from flashfw.bundle.needs import WORKER, Requirement, mentioned
from flashfw.errors import FlashfwError, Problem, ProjectError
from flashfw.project.model import Project


@dataclass(frozen=True, slots=True)
class Failure:
    """One set of requirements that came to nothing.

    `members` are who asks for it, as (environment, endpoint). `blamed` are the requirements at fault; where they are
    not known, those of `requirements` that the reason names.
    """

    members: tuple[tuple[str, str], ...]
    reason: str
    blamed: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    hint: str = ""
    unreachable: bool = False


def error(failures: Sequence[Failure], project: Project) -> FlashfwError:
    """All of them as one error: of the index if it alone is at fault, else of the project."""
    if all(failure.unreachable for failure in failures):
        reason = failures[0].reason
        return IndexUnreachable(f"packages cannot be fetched: {reason}", hint=_REACH)
    environments = {environment for failure in failures for environment, _ in failure.members}
    where = {environment: lock_inputs.places(project, environment) for environment in sorted(environments)}
    grouped: dict[tuple[str, tuple[tuple[str, int], ...]], list[Failure]] = {}
    for failure in failures:
        grouped.setdefault((failure.reason, _lines(failure, where)), []).append(failure)
    problems = [_problem(alike, lines) for (_, lines), alike in grouped.items()]
    return ProjectError(sorted(problems, key=lambda problem: (problem.file, problem.line or 0, problem.what)))


_PREFIX = "No solution found when resolving dependencies: "
_REACH = "check the connection, the index under [tool.uv], and its password"


def _lines(failure: Failure, where: Mapping[str, Mapping[str, Places]]) -> tuple[tuple[str, int], ...]:
    """Where the requirements at fault are written, for all who ask; where all are, if the reason names none."""
    blamed = failure.blamed or tuple(found.text for found in mentioned(failure.requirements, failure.reason))
    every = [where[environment].get(endpoint, {}) for environment, endpoint in failure.members]
    lines = dict.fromkeys(places[text] for places in every for text in blamed if text in places)
    return tuple(lines or sorted({line for places in every for line in places.values()}))


def _problem(alike: Sequence[Failure], lines: Sequence[tuple[str, int]]) -> Problem:
    first = alike[0]
    names = list(dict.fromkeys(_name(*member) for failure in alike for member in failure.members))
    reason = first.reason.replace(NAME, names[0]).removeprefix(_PREFIX).rstrip(".")
    what = reason if first.blamed else f"the dependencies of {some(names, 4)} cannot be met: {reason}"
    file, line = lines[0] if lines else ("", None)
    return Problem(what, file, line, hint=first.hint or _hint(first), also=tuple(lines[1:]))


def _hint(failure: Failure) -> str:
    if failure.unreachable:
        return _REACH
    named = mentioned(failure.requirements, failure.reason)
    needs = [found.text for found in named if found.asker == WORKER]
    if needs:
        return f"the worker itself needs {', '.join(needs)}"
    if "was not found" in failure.reason:
        return "check its name, or name the index that has it under [tool.uv] in pyproject.toml"
    return "change one of these"


def _name(environment: str, endpoint: str) -> str:
    return endpoint if environment == "dev" else f"{endpoint} on {environment}"
