"""`flashfw config`: each effective value of an endpoint, with the file and line that it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from flashfw.cli import options, output
from flashfw.errors import Problem, ProjectError, UsageError
from flashfw.project import root as roots
from flashfw.project import select
from flashfw.project.collect import collect
from flashfw.project.effective import Configuration, EndpointConfig, configure
from flashfw.project.explain import Row, endpoint_rows, function_rows
from flashfw.project.values import did_you_mean

DEFAULT = "default"


@click.command()
@click.argument("node", metavar="ID")
@options.environment("The environment to resolve for.")
@options.root
@options.json
def command(node: str, environment: str, root: Path | None, as_json: bool) -> None:
    """Show each effective value of an endpoint with file and line.

    ID is an endpoint or a function of it, as `flashfw collect` lists them.
    """
    project = collect(roots.find(Path.cwd(), explicit=root))
    configuration = configure(project, environment=environment)
    config = _find(configuration, select.normal(node))
    if problems := _errors(config, configuration, project.problems):
        raise ProjectError(problems)
    own = endpoint_rows(config, configuration.settings)
    functions = {function.id: function_rows(settings) for function, settings in config.functions}
    if select.normal(node) in functions and select.normal(node) != config.tree.id:
        functions = {select.normal(node): functions[select.normal(node)]}
    if as_json:
        output.document(_document(config, environment, own=own, functions=functions))
        return
    output.line(f"{output.paint(config.tree.id, 'bold')} ({config.tree.kind}) in {environment}")
    _show(own)
    for name, rows in functions.items():
        output.line(f"\n{output.paint(name, 'bold')}")
        _show(rows)


def _find(configuration: Configuration, node: str) -> EndpointConfig:
    known: dict[str, EndpointConfig] = {}
    for config in configuration.endpoints:
        known.update({function.id: config for function, _ in config.functions})
    known.update({config.tree.id: config for config in configuration.endpoints})
    if node not in known:
        hint = did_you_mean(node, known) or "`flashfw collect` lists the ids"
        raise UsageError(f"no endpoint or function is called '{node}'", hint=hint)
    return known[node]


def _errors(config: EndpointConfig, whole: Configuration, collected: Sequence[Problem]) -> tuple[Problem, ...]:
    """What keeps the values from being told: errors of the endpoint's files and of the project's own."""
    problems = [problem for problem in whole.problems if "/" not in problem.file or problem in config.problems]
    if config.tree.broken:
        problems += (problem for problem in collected if problem.file.startswith(f"{config.tree.directory}/"))
    return tuple(problem for problem in problems if problem.level == "error")


def _show(rows: Sequence[Row]) -> None:
    lines = [line for row in rows for line in _lines(row)]
    keys, values = (max(len(line[column]) for line in lines) for column in (0, 1))
    values = min(values, 60)
    for key, value, place in lines:
        shown = output.paint(place, "dim")
        output.line(f"  {key.ljust(keys)}  {output.printable(value).ljust(values)}  {shown}".rstrip())


def _lines(row: Row) -> Iterator[tuple[str, str, str]]:
    """A line per part. A place is said once where the next lines have the same."""
    places = [f"{file}:{line}" for file, line in row.places] or [DEFAULT]
    if len(places) != len(row.parts):
        places = [", ".join(places)]
    before = ""
    for index, (part, place) in enumerate(zip_longest(row.parts, places, fillvalue="")):
        yield row.key if index == 0 else "", part, "" if place == before else place
        before = place or before


def _document(
    config: EndpointConfig, environment: str, *, own: Sequence[Row], functions: Mapping[str, Sequence[Row]]
) -> dict[str, Any]:
    return {
        "endpoint": config.tree.id,
        "kind": config.tree.kind,
        "environment": environment,
        "values": [_row(row) for row in own],
        "functions": {name: [_row(row) for row in rows] for name, rows in functions.items()},
    }


def _row(row: Row) -> dict[str, Any]:
    places = [{"file": file, "line": line} for file, line in dict.fromkeys(row.places)]
    return {"key": row.key, "value": row.value, "default": not places, "places": places}
