"""What is to be reached, and whether the results do: one line of `GOALS` per figure, judged from the JSON alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turns import SIZES, Ratio, ratio

Figure = Mapping[str, Any]
Results = Mapping[str, Any]
"""The document of `run.py`: `rows` by name, each with its `figures`."""

STARLETTE = "bare Starlette"
HTTP, NORMAL, FULL = "flashfw", "flashfw job, NORMAL", "flashfw job, FULL"


@dataclass(frozen=True)
class Verdict:
    """One line of the table of what is to be reached; `reached` is None where something was not measured."""

    what: str
    ours: str
    beside: str
    ratio: str
    target: str
    reached: bool | None


@dataclass(frozen=True)
class Against:
    """A figure of turns at 64 B as a multiple of a peer's: the best of those whose whole name matches."""

    what: str
    row: str
    ours: str
    peers: str
    figure: str
    connections: int
    limit: float

    def judge(self, results: Results) -> Verdict:
        # A rate has to be so many times the peer's at least, a time at most.
        is_rate = self.figure == "per_s"
        target = f"{'≥' if is_rate else '≤'} {self.limit:g} x"
        figures = [each for each in figures_of(results, self.row) if _small(each, self.connections)]
        ours = next((each for each in figures if each["contender"] == self.ours), None)
        theirs = [each for each in figures if re.fullmatch(self.peers, each["contender"])]
        if ours is None or not theirs:
            return Verdict(self.what, shown(ours, self.figure), "not measured", "", target, None)
        best = (max if is_rate else min)(theirs, key=lambda each: each[self.figure])
        found = ratio(ours["rounds"], best["rounds"], self.figure)
        beside = f"{shown(best, self.figure)} ({best['contender']})"
        if found is None:
            return Verdict(self.what, shown(ours, self.figure), beside, "", target, None)
        reached = found.median >= self.limit if is_rate else found.median <= self.limit
        return Verdict(self.what, shown(ours, self.figure), beside, times(found), target, reached)


@dataclass(frozen=True)
class Within:
    """A figure that a script gave, in its unit, at most so much; beside it that of a peer, if there is one."""

    what: str
    row: str
    which: str
    figure: str
    unit: str
    limit: float
    beside: str = ""

    def judge(self, results: Results) -> Verdict:
        target = f"≤ {self.limit:g} {self.unit}"
        ours, theirs = (value_of(results, self.row, name, self.figure) for name in (self.which, self.beside))
        told = f"{theirs:.3g} {self.unit} ({self.beside})" if theirs is not None else ""
        if ours is None:
            return Verdict(self.what, "not measured", told, "", target, None)
        relation = f"{ours / theirs:.2f}" if theirs else ""
        return Verdict(self.what, f"{ours:.3g} {self.unit}", told, relation, target, ours <= self.limit)


@dataclass(frozen=True)
class Single:
    """A time of turns at 64 B, at most so many milliseconds."""

    what: str
    row: str
    ours: str
    connections: int
    limit_ms: float

    def judge(self, results: Results) -> Verdict:
        figures = [each for each in figures_of(results, self.row) if _small(each, self.connections)]
        ours = next((each for each in figures if each["contender"] == self.ours), None)
        reached = ours["p50_ms"] <= self.limit_ms if ours else None
        return Verdict(self.what, shown(ours, "p50_ms"), "", "", f"≤ {self.limit_ms:g} ms", reached)


@dataclass(frozen=True)
class Slower:
    """A rate that a script gave for two cases: the second at most so many times slower than the first."""

    what: str
    row: str
    empty: str
    full: str
    figure: str
    limit: float

    def judge(self, results: Results) -> Verdict:
        target = f"≤ {self.limit:g} x slower"
        empty, full = (value_of(results, self.row, name, self.figure) for name in (self.empty, self.full))
        if empty is None or full is None:
            return Verdict(self.what, "not measured", "", "", target, None)
        slower = empty / full
        beside = f"{empty:,.0f} / s (empty queue)"
        return Verdict(self.what, f"{full:,.0f} / s", beside, f"{slower:.2f}", target, slower <= self.limit)


def figures_of(results: Results, row: str) -> Sequence[Figure]:
    return results.get("rows", {}).get(row, {}).get("figures", ())  # type: ignore[no-any-return]


def value_of(results: Results, row: str, name: str, figure: str) -> float | None:
    """A number of the first line that a script gave under that name."""
    lines = (each for each in figures_of(results, row) if name_of(each) == name)
    return next((float(each[figure]) for each in lines if each.get(figure) is not None), None)


def name_of(figure: Figure) -> str:
    """What a script calls a line: its words."""
    return ", ".join(value for value in figure.values() if isinstance(value, str))


def _small(figure: Figure, connections: int) -> bool:
    return bool(figure["size_bytes"] == SIZES[0] and figure["connections"] == connections)


def shown(figure: Figure | None, name: str) -> str:
    """A rate or a time as the tables have it."""
    if figure is None:
        return "not measured"
    return f"{figure[name]:,.0f} / s" if name == "per_s" else f"{figure[name]:.3g} ms"


def times(found: Ratio) -> str:
    return f"{found.median:.2f} ({found.least:.2f} - {found.most:.2f})"


ANY_QUEUE = "(Celery|arq|huey).*"
FIRST, BARE_FIRST = "flashfw, /items, first", "starlette, /items, first"
MILLION = "submit, claim, finish beside {} waiting, NORMAL"

GOALS: tuple[Against | Within | Single | Slower, ...] = (
    Against("HTTP echo, 32 connections", "http", HTTP, STARLETTE, "per_s", 32, 1.2),
    Against("... beside Mosec", "http", HTTP, "Mosec", "per_s", 32, 2),
    Against("... beside Mosec that batches", "http", HTTP, "Mosec, .*", "per_s", 32, 2),
    Against("... beside LitServe", "http", HTTP, "LitServe.*", "per_s", 32, 8),
    Against("HTTP echo, 1 connection, p50", "http", HTTP, STARLETTE, "p50_ms", 1, 1.6),
    Against("durable job, 32 connections", "http", NORMAL, STARLETTE, "per_s", 32, 0.7),
    Against("... with `FULL`", "http", FULL, STARLETTE, "per_s", 32, 0.7),
    Against("... beside Celery", "queues", NORMAL, "Celery.*", "per_s", 32, 8),
    Against("... beside arq", "queues", NORMAL, "arq.*", "per_s", 32, 8),
    Against("... beside huey", "queues", NORMAL, "huey.*", "per_s", 32, 8),
    Against("... with `FULL`, beside `appendfsync always`", "queues", FULL, ".*always", "per_s", 32, 8),
    Single("durable job, 1 connection, p50", "http", NORMAL, 1, 1.5),
    Against("... beside the best queue", "queues", NORMAL, ANY_QUEUE, "p50_ms", 1, 0.4),
    Within("cold start to first answer, p50", "cold", "stdlib: again", "p50_ms", "ms", 30),
    Within("... the first since the server started", "cold", "stdlib: first", "p50_ms", "ms", 30),
    Within("... with torch preloaded", "torch", "torch: again", "p50_ms", "ms", 60),
    Within("saved file to new answer, p50", "reload", "flashfw dev", "p50_ms", "ms", 80, "uvicorn --reload"),
    Within("first item of a stream after its `yield`, p50", "streams", FIRST, "p50_ms", "ms", 2, BARE_FIRST),
    Within("`flashfw --help`", "cli", "flashfw --help", "median_s", "s", 0.2),
    Within("`flashfw collect` of 1,000 endpoints", "cli", "flashfw collect", "median_s", "s", 0.6),
    Within("rebuild, nothing changed", "build", "flashfw, unchanged", "p50_s", "s", 0.3, "flash, unchanged"),
    Within("rebuild, one line changed", "build", "flashfw, one line", "p50_s", "s", 1, "flash, one line"),
    Slower(
        "10^6 jobs queued: submit, claim, finish",
        "million",
        MILLION.format(0),
        MILLION.format("1,000,000"),
        "per_s",
        1.5,
    ),
)
