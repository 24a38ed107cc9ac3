"""`flashfw collect`: the static tree."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

import flashfw
from flashfw.cli import options, output
from flashfw.errors import Exit, NothingCollectedError
from flashfw.project import names, select
from flashfw.project import root as roots
from flashfw.project.collect import collect
from flashfw.project.functions import FunctionTree, functions
from flashfw.project.model import EndpointTree, Project


class Chosen(NamedTuple):
    """An endpoint with the selected ones of its functions."""

    endpoint: EndpointTree
    functions: tuple[FunctionTree, ...]


@click.command()
@options.selection
@options.root
@options.json
def command(ids: tuple[str, ...], keyword: str, marks: str, root: Path | None, as_json: bool) -> int:
    """Show the static tree: endpoints, functions, URLs, files, lines.

    Each of IDS selects all below it. Nothing of the project is imported or run.
    """
    selection = select.parse(ids, keyword=keyword, marks=marks)
    project = collect(roots.find(Path.cwd(), explicit=root))
    marked = _marks(project) if marks.strip() else {}
    chosen = choose(project, selection, marked)
    if as_json:
        output.document(_document(project, chosen))
    else:
        _show(project, chosen)
    output.problems(project.problems)
    return _exit(project, chosen)


def choose(project: Project, selection: select.Selection, marks: Mapping[str, Collection[str]]) -> tuple[Chosen, ...]:
    """The selected functions by endpoint; a broken endpoint whose functions cannot be told stays in view.

    Raises:
        UsageError: an id selects nothing.
    """
    tree = [Chosen(endpoint, functions(endpoint)) for endpoint in project.endpoints]
    ids = [node for endpoint, found in tree for node in (endpoint.id, *(function.id for function in found))]
    select.check_ids(selection, ids)
    chosen = []
    for endpoint, found in tree:
        kept = tuple(function for function in found if selection.takes(function.id, marks.get(function.id, ())))
        if kept or (not found and selection.takes(endpoint.id)):
            chosen.append(Chosen(endpoint, kept))
    return tuple(chosen)


def _marks(project: Project) -> dict[str, Collection[str]]:
    from flashfw.project.compile import compile as compile_project  # marks are configuration, the rest is not

    manifest, _ = compile_project(project)
    return {function.id: function.marks for endpoint in manifest.endpoints for function in endpoint.functions}


def _show(project: Project, chosen: tuple[Chosen, ...]) -> None:
    output.line(f"flashfw {flashfw.__version__}: {project.name}")
    output.line(f"root: {output.printable(str(project.root.path))}, config: {project.root.config.name}")
    rows = [_cells(function) for item in chosen for function in item.functions]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for endpoint, found in chosen:
        kind = [output.paint(endpoint.kind, "dim")] if found else []
        broken = [output.paint("broken", "red")] if endpoint.broken else []
        output.line(" ".join(["\n" + output.paint(output.printable(endpoint.id), "bold"), *kind, *broken]))
        for function in found:
            cells = [cell.ljust(width) for cell, width in zip(_cells(function), widths, strict=True)]
            output.line(output.printable(f"  {'  '.join(cells)}".rstrip()))
    output.line(f"\n{_count(chosen, sum(len(functions(endpoint)) for endpoint in project.endpoints))}")


def _cells(function: FunctionTree) -> tuple[str, str, str, str]:
    place = f"{function.handler.file}:{function.line}"
    return function.id, function.method or "POST", function.route, place


def _count(chosen: tuple[Chosen, ...], total: int) -> str:
    shown = sum(len(item.functions) for item in chosen)
    text = f"{output.plural(shown, 'function')} in {output.plural(len(chosen), 'endpoint')}"
    return f"{text}, {total - shown} deselected" if shown < total else text


def _exit(project: Project, chosen: tuple[Chosen, ...]) -> int:
    if any(problem.level == "error" for problem in project.problems):
        return Exit.PROBLEMS
    if chosen:
        return Exit.DONE
    output.failure(nothing(project), as_json=False)
    return Exit.NOTHING


def nothing(project: Project) -> NothingCollectedError:
    """Why a project without problems shows no function."""
    if project.endpoints:
        return NothingCollectedError("the selection matches nothing", hint="`flashfw collect` lists the ids")
    place = project.root.path / names.ENDPOINTS
    what = (
        f"{names.ENDPOINTS}/ holds no {names.HANDLER}" if place.is_dir() else f"there is no {names.ENDPOINTS}/ folder"
    )
    return NothingCollectedError(what, hint=f"write {names.ENDPOINTS}/NAME/{names.HANDLER} with `def handler(...)`")


def _document(project: Project, chosen: tuple[Chosen, ...]) -> dict[str, Any]:
    return {
        "project": project.name,
        "root": str(project.root.path),
        "config": str(project.root.config),
        "endpoints": [_endpoint(endpoint, found) for endpoint, found in chosen],
        "problems": [output.problem_json(problem) for problem in project.problems],
    }


def _endpoint(endpoint: EndpointTree, found: tuple[FunctionTree, ...]) -> dict[str, Any]:
    shown = [
        {
            "id": function.id,
            "kind": endpoint.kind,
            "method": function.method or "POST",
            "url": function.route,
            "file": function.handler.file,
            "line": function.line,
        }
        for function in found
    ]
    return {
        "id": endpoint.id,
        "kind": endpoint.kind,
        "directory": endpoint.directory,
        "broken": endpoint.broken,
        "functions": shown,
    }
