"""A worker that became ready, split into what its start was spent on."""

from __future__ import annotations

from collections.abc import Iterator

from flashfw.cluster.explaining.moments import Moment, duration, number, text
from flashfw.cluster.jobs.store import Entry

SHOWN_ENVIRONMENT_S = 0.001
"""An environment that was there already took less, and is no part worth a line."""


def cold_start(entry: Entry, *, since: float | None = None) -> Iterator[Moment]:
    """Environment, process, imports, each fixture: each with its begin and how long it took; at the end, ready.

    No part begins before `since`, when the start was told of: that is a moment after it began.
    """
    fields, details = entry.fields, {"worker": entry.worker}
    start_s = max(0.0, number(fields.get("start_s")))
    begun = entry.at - start_s if since is None else min(entry.at, max(entry.at - start_s, since))
    for what, said, took_s in _parts(entry, start_s):
        yield Moment(begun, what, said, details, took_s, rank=3, is_cold=True)
        begun = min(entry.at, begun + took_s)
    said = f"worker {entry.worker or ''} is ready after {duration(start_s)}"
    yield Moment(entry.at, "worker", said, {**details, "state": text(fields.get("state")), "start_s": start_s}, rank=3)


def _origin(process: str) -> str:
    """How a process came to be, from what its placement said of it.

    >>> [_origin(said) for said in ("forked", "spawned", "spawned: CUDA is initialised", "")]
    ['is forked off a warm one', 'starts', 'starts, not forked: CUDA is initialised', 'starts']
    """
    if process == "forked":
        return "is forked off a warm one"
    _, _, why = process.partition(": ")
    return f"starts, not forked: {why}" if why else "starts"


def _parts(entry: Entry, start_s: float) -> Iterator[tuple[str, str, float]]:
    fields = entry.fields
    fixtures = fields.get("fixtures_s")
    named = {
        text(name): max(0.0, number(took)) for name, took in (fixtures if isinstance(fixtures, dict) else {}).items()
    }
    import_s, environment_s = (max(0.0, number(fields.get(key))) for key in ("import_s", "environment_s"))
    process_s = start_s - environment_s - import_s - sum(named.values())
    if environment_s >= SHOWN_ENVIRONMENT_S:
        yield "environment", "cold start: its environment is made ready", environment_s
    yield "process", f"cold start: its process {_origin(text(fields.get('process')))}", max(0.0, process_s)
    yield "import", "cold start: the handlers are imported", import_s
    for name, took_s in named.items():
        yield "fixture", f"cold start: fixture {name!r} is built", took_s
