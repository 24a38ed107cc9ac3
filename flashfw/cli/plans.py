"""A plan as a table for people and as a document for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flashfw.build.words import some
from flashfw.cli import output
from flashfw.manifest import Endpoint, encode
from flashfw.project.compile import FIELDS
from flashfw.project.explain import render
from flashfw.ship.changes import Change
from flashfw.ship.plan import Plan, Row

SHOWN = 12
"""How many names of endpoints that stay one line holds."""

_KEYS = {field: key for key, field in FIELDS.items()}
_COLOURS = {"create": "green", "change": "yellow", "delete": "red", "keep": "dim"}
_PLACES = frozenset({"module", "attribute", "file", "line", "middleware", "files"})
"""Fields of a function that say where its code lies; the files say that better."""


def lines(rows: Sequence[Row]) -> list[str]:
    """A table with a line per thing that changes; what stays is one line."""
    cells = [cell for row in rows if row.action != "keep" for cell in _cells(row)]
    shown = [f"  {line}" for line in output.columns(cells)] if cells else []
    return [*shown, *_kept(rows)]


def document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    return {
        "release": plan.new,
        "current": plan.old,
        "endpoints": [row_document(row) for row in plan.rows],
        "deletes": list(plan.removes),
        "queued_jobs": plan.jobs,
        "problems": [output.problem_json(problem) for problem in plan.problems],
    }


def tally(rows: Sequence[Row]) -> str:
    """How many of each, in words.

    >>> tally([])
    'nothing changes'
    """
    words = {"create": "to create", "change": "to change", "delete": "to delete", "keep": "unchanged"}
    counts = {action: sum(row.action == action for row in rows) for action in words}
    if not any(counts[action] for action in ("create", "change", "delete")):
        return "nothing changes"
    return ", ".join(f"{counts[action]} {text}" for action, text in words.items() if counts[action])


def _cells(row: Row) -> Iterator[list[str]]:
    """The first line names the endpoint; each further one is one thing more that changes in it."""
    head = [output.paint(row.action, _COLOURS[row.action]), output.printable(row.endpoint), row.strategy]
    details = list(_details(row)) or [("", "")]
    for number, (what, how) in enumerate(details):
        yield [*(head if number == 0 else ["", "", ""]), output.printable(what), output.printable(how)]


def _details(row: Row) -> Iterator[tuple[str, str]]:
    if row.action == "create" and row.new:
        yield "", output.plural(len(row.new.functions), "function")
    if row.action == "delete" and not row.jobs:
        yield "", "no job waits there"
    if row.action == "change":
        yield from _values(row)
        for package in row.packages:
            yield package.name, f"{package.old or 'none'} -> {package.new or 'none'}"
        for path, fate in row.files:
            yield "file", f"{path} ({fate})"
    if row.jobs:
        yield "jobs", f"{output.plural(row.jobs, 'job')} of {', '.join(row.gone)} will end: function_gone"


def _values(row: Row) -> Iterator[tuple[str, str]]:
    """Effective values as an endpoint.toml says them, old -> new."""
    for change in row.changes:
        match change.path:
            case ("functions", name):
                yield "function", f"{name} ({'new' if change.old is None else 'removed'})"
            case ("functions", name, field) if field not in _PLACES:
                yield f"{name}: {_KEYS.get(field, field)}", _arrow(change, field)
            case ("workers_min",) | ("workers_max",):
                continue
            case (field,) if field not in ("fingerprint", "environment"):
                yield _KEYS.get(field, field), _arrow(change, field)
    if row.old and row.new and _workers(row.old) != _workers(row.new):
        yield "workers", f"{_workers(row.old)} -> {_workers(row.new)}"
    if {change.path for change in row.changes} <= {("fingerprint",), ("environment",)} and not row.packages:
        yield "environment", "its packages are others"


def _arrow(change: Change, field: str) -> str:
    return f"{render(change.old, field)} -> {render(change.new, field)}"


def _workers(endpoint: Endpoint) -> str:
    return f"[{endpoint.workers_min}, {endpoint.workers_max}]"


def _kept(rows: Sequence[Row]) -> Iterator[str]:
    kept = [output.printable(row.endpoint) for row in rows if row.action == "keep" and not row.spared]
    if kept:
        yield output.paint(f"  keep    {some(kept, SHOWN)}", "dim")
    for row in rows:
        if row.spared:
            yield f"  keep    {output.printable(row.endpoint)}  what is in the tree cannot be read"


def row_document(row: Row) -> dict[str, Any]:
    """One row as JSON values."""
    shown = [change for change in row.changes if change.path[0] not in ("sources", "fingerprint", "environment")]
    return {
        "id": row.endpoint,
        "action": row.action,
        "strategy": row.strategy or None,
        "changes": [
            {"field": ".".join(change.path), "old": encode(change.old), "new": encode(change.new)} for change in shown
        ],
        "packages": [{"name": found.name, "old": found.old, "new": found.new} for found in row.packages],
        "files": [{"path": path, "fate": fate} for path, fate in row.files],
        "functions_gone": list(row.gone),
        "queued_jobs": row.jobs,
        "spared": row.spared,
    }
