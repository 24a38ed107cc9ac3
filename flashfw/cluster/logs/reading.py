"""What is asked of a log, and the lines that answer it: the newest ones of one or several endpoints, oldest first."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flashfw.cluster.logs.entries import Entry
from flashfw.cluster.logs.files import Segment

MOST_BYTES = 32_000_000
"""An answer holds at most so much, the newest of it."""

_CLOCK_SLACK_S = 600.0
"""A clock that was set back leaves lines out of order; so much further back one is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which lines: at most `lines`, not before `since` (seconds since the epoch), of jobs with `job` in their id."""

    lines: int = 100
    since: float | None = None
    job: str | None = None

    def wants(self, entry: Entry) -> bool:
        """Whether an entry is among them."""
        return (self.job is None or self.job in (entry.job or "")) and (self.since is None or entry.at >= self.since)


class Line(NamedTuple):
    """A line of a log with its time."""

    at: float
    text: bytes


def newest(segments: Sequence[Segment], query: Query) -> list[Line]:
    """The lines that a query asks for, of one endpoint's log (its newest file first), oldest first."""
    found: list[Line] = []
    size = 0
    for line in _matching(segments, query):
        if len(found) >= query.lines or size + len(line.text) > MOST_BYTES:
            break
        found.append(line)
        size += len(line.text)
    return found[::-1]


def merged(logs: Sequence[Sequence[Line]], query: Query) -> list[bytes]:
    """The lines of several logs by their times, the newest that a query asks for."""
    ordered = list(heapq.merge(*logs, key=lambda line: line.at))
    found: list[bytes] = []
    size = 0
    for line in reversed(ordered[len(ordered) - query.lines :] if len(ordered) > query.lines else ordered):
        size += len(line.text)
        if size > MOST_BYTES:
            break
        found.append(line.text)
    return found[::-1]


def _matching(segments: Sequence[Segment], query: Query) -> Iterator[Line]:
    job = None if query.job is None else query.job.encode()
    for segment in segments:
        for text in segment.backwards():
            if job is not None and job not in text:  # most lines, and reading JSON takes its time
                continue
            try:
                document = json.loads(text)
                at, of = float(document["at"]), document["job"] or ""
            except (ValueError, TypeError, KeyError):  # the last line of a server that was killed
                continue
            if query.since is not None and at < query.since:
                if at < query.since - _CLOCK_SLACK_S:
                    return
                continue
            if query.job is None or query.job in of:
                yield Line(at, text + b"\n")
