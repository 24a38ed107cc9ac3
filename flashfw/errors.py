"""One tree of errors: each says what was wrong, where, and what to do, and carries its exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal


class Exit(IntEnum):
    """Exit codes of every `flashfw` verb. Public: scripts may rely on them."""

    DONE = 0  # also `dev` and `serve` ended by a signal
    FAILED = 1  # a job, test or health check failed
    PROBLEMS = 2  # problems in the project
    INTERNAL = 3  # a defect in flashfw itself
    USAGE = 4  # wrong command line
    NOTHING = 5  # nothing collected
    TARGET = 7  # the target refused or is unreachable


Level = Literal["error", "warning"]
"""A warning keeps nothing from working."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a project, at a place that the user can open.

    `file` is relative to the project's root; `line` and `column` count from 1. `also` names
    further places that take part, such as the other side of a conflict.

    >>> str(Problem("unknown key 'worker'", "endpoints/a/endpoint.toml", 3, hint="did you mean 'workers'?"))
    "endpoints/a/endpoint.toml:3: unknown key 'worker'; did you mean 'workers'?"
    """

    what: str
    file: str = ""
    line: int | None = None
    hint: str = ""
    also: tuple[tuple[str, int | None], ...] = ()
    level: Level = "error"
    column: int | None = None

    @property
    def where(self) -> str:
        """The place as `file:line`, as editors and terminals open it."""
        return _place(self.file, self.line)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.file else self.what
        if self.also:
            text += f" ({', '.join(_place(file, line) for file, line in self.also)})"
        return f"{text}; {self.hint}" if self.hint else text


def ordered(*groups: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems of several stages, each once, in the order of their places.

    >>> [str(found) for found in ordered([Problem("odd", "b"), Problem("odd", "a", 2)], [Problem("odd", "b")])]
    ['a:2: odd', 'b: odd']
    """
    unique = dict.fromkeys(problem for group in groups for problem in group)
    return tuple(sorted(unique, key=lambda problem: (problem.file.split("/"), problem.line or 0)))


def _place(file: str, line: int | None) -> str:
    return file if line is None else f"{file}:{line}"


class FlashfwError(Exception):
    """Base of all errors that flashfw raises on purpose.

    `what` quotes the user's own words, `hint` says what to do next. `exit` is what a verb
    ends with when nothing handles the error.
    """

    exit = Exit.INTERNAL

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class ProjectError(FlashfwError):
    """The project has problems; all of them, in the order of their places."""

    exit = Exit.PROBLEMS

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = sum(problem.level == "error" for problem in self.problems)
        super().__init__(f"{count} problem{'' if count == 1 else 's'} in the project")


class NoProjectError(FlashfwError):
    """No project was found from where the user stands."""

    exit = Exit.USAGE


class UsageError(FlashfwError):
    """The command line asks for something that cannot be."""

    exit = Exit.USAGE


class NothingCollectedError(FlashfwError):
    """The selection matches nothing, or the tree holds no endpoint."""

    exit = Exit.NOTHING


class TargetError(FlashfwError):
    """A server refused, or cannot be reached."""

    exit = Exit.TARGET


class KeyRefusedError(TargetError):
    """The target does not let in who has that key, or has none."""


class JobFailedError(FlashfwError):
    """A job ended in another state than COMPLETED."""

    exit = Exit.FAILED


class ManifestError(FlashfwError):
    """A manifest is damaged or of another version."""

    exit = Exit.PROBLEMS
