"""`flashfw check`: every problem at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from flashfw.build import lock
from flashfw.build.lock import LockError
from flashfw.build.lock_stale import stale
from flashfw.cli import options, output
from flashfw.cli.collect import nothing
from flashfw.errors import Exit, Problem, ordered
from flashfw.manifest import Manifest
from flashfw.project import root as roots
from flashfw.project.collect import collect
from flashfw.project.compile import compile as compile_project
from flashfw.project.model import Project
from flashfw.project.validate import DEV


@click.command()
@options.environment("Also show what this environment's target cannot honour.")
@options.root
@options.json
def command(environment: str, root: Path | None, as_json: bool) -> int:
    """Show every problem of the project at once."""
    project = collect(roots.find(Path.cwd(), explicit=root))
    manifest, found = compile_project(project, environment=environment)
    problems = ordered(project.problems, found, _of_lock(project, manifest))
    if as_json:
        output.document(_document(project, environment, problems))
    output.problems(problems)
    if any(problem.level == "error" for problem in problems):
        return Exit.PROBLEMS
    if not project.endpoints:
        output.failure(nothing(project), as_json=False)
        return Exit.NOTHING
    if not problems and not as_json:
        count = sum(len(endpoint.functions) for endpoint in manifest.endpoints)
        functions, endpoints = output.plural(count, "function"), output.plural(len(manifest.endpoints), "endpoint")
        output.line(f"no problems in {functions} of {endpoints}")
    return Exit.DONE


def _of_lock(project: Project, manifest: Manifest) -> Sequence[Problem]:
    """What keeps an environment that is shipped to from getting what `flashfw.lock` holds."""
    if manifest.environment == DEV or not manifest.endpoints:
        return ()
    try:
        locked = lock.load(project.root.path)
    except LockError as error:
        return (Problem(error.what, hint=error.hint),)
    found = stale(locked, manifest, root=project.root.path)
    # One that is missing is made by the build; one that is out of date is refused by it.
    return [replace(problem, level="warning") for problem in found] if locked is None else found


def _document(project: Project, environment: str, problems: Sequence[Problem]) -> dict[str, Any]:
    return {
        "project": project.name,
        "root": str(project.root.path),
        "config": str(project.root.config),
        "environment": environment,
        "errors": sum(problem.level == "error" for problem in problems),
        "warnings": sum(problem.level == "warning" for problem in problems),
        "problems": [output.problem_json(problem) for problem in problems],
    }
