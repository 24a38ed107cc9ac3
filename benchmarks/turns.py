"""Contenders measured in turns, A B A B, and what their turns say together.

A turn is: start the contender, warm it up, measure every cell, stop it; so no contender shares the machine with
another that idles. Ratios are made within a round, of turns that lie next to each other, and then the median of the
rounds is taken, so that what slowly changes on a machine does not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import NamedTuple


class Missing(Exception):
    """Why a contender cannot be measured here."""


class Cell(NamedTuple):
    """One load: the size of the JSON object, and how many callers there are at once."""

    size_bytes: int
    connections: int


SIZES = (64, 10_000, 1_000_000)
CONNECTIONS = (1, 32)
SMALL = tuple(Cell(SIZES[0], connections) for connections in CONNECTIONS)
ALL = tuple(Cell(size, connections) for size in SIZES for connections in CONNECTIONS)


@dataclass(frozen=True)
class Turn:
    """What one turn showed of one cell; `cpu_us` is what the processes behind the address used per call."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


Measure = Callable[[Cell], Turn]


@dataclass(frozen=True)
class Contender:
    """Something that can be started, and then measured cell by cell."""

    name: str
    start: Callable[[], AbstractContextManager[Measure]]
    cells: Sequence[Cell] = ALL


@dataclass
class Measured:
    """All turns of a row: of each contender and cell one per round, None where it failed; and why something failed."""

    turns: dict[tuple[str, Cell], list[Turn | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def figures(self) -> list[dict[str, object]]:
        """As JSON: medians, and the turns that they are made of."""
        found: list[dict[str, object]] = []
        for (name, cell), turns in self.turns.items():
            whole = [turn for turn in turns if turn is not None]
            if whole:
                rounds = [turn and rounded(turn) for turn in turns]
                found.append({"contender": name, **cell._asdict(), **medians(whole), "rounds": rounds})
        return found


def interleaved(contenders: Sequence[Contender], *, rounds: int, large: int, told: Callable[[str], None]) -> Measured:
    """Every contender once per round; the cells of larger bodies only in the first `large` rounds.

    A contender that fails loses its turn and no other's. One that is missing, or failed twice, is not started again.
    """
    measured = Measured({(each.name, cell): [] for each in contenders for cell in each.cells})
    failed: dict[str, int] = {}
    for number in range(rounds):
        for each in contenders:
            cells = [cell for cell in each.cells if number < large or cell in SMALL]
            turns = dict.fromkeys(cells) if failed.get(each.name, 0) > 1 else _turn(each, cells, measured, failed, told)
            for cell, turn in turns.items():
                measured.turns[each.name, cell].append(turn)
    return measured


def _turn(
    contender: Contender,
    cells: Sequence[Cell],
    measured: Measured,
    failed: dict[str, int],
    told: Callable[[str], None],
) -> dict[Cell, Turn | None]:
    turns: dict[Cell, Turn | None] = dict.fromkeys(cells)
    try:
        with contender.start() as measure:
            for cell in cells:
                try:
                    turns[cell] = turn = measure(cell)
                    told(f"{contender.name:44} {cell.size_bytes:>9,} B {cell.connections:>3}  {shown(turn)}")
                except Exception as error:
                    _note(measured, contender.name, f"{cell.size_bytes:,} B, {cell.connections}: {error}", told)
    except Missing as error:
        failed[contender.name] = 2
        _note(measured, contender.name, str(error), told)
    except (Exception, SystemExit) as error:  # a server that did not start ends the script that wanted it
        failed[contender.name] = failed.get(contender.name, 0) + 1
        _note(measured, contender.name, f"{type(error).__name__}: {error}", told)
    return turns


def _note(measured: Measured, name: str, why: str, told: Callable[[str], None]) -> None:
    told(f"{name:44} failed: {why}")
    measured.failures.setdefault(name, " ".join(why.split())[:300])


def shown(turn: Turn) -> str:
    return f"{turn.per_s:9.0f} / s  p50 {turn.p50_ms:8.2f} ms  p99 {turn.p99_ms:8.2f} ms  CPU {turn.cpu_us:7.0f} us"


def rounded(turn: Turn) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in asdict(turn).items()}


def medians(turns: Sequence[Turn]) -> dict[str, float]:
    """The median of each figure over some turns."""
    columns = zip(*(rounded(turn).values() for turn in turns), strict=True)
    return dict(zip(rounded(turns[0]), map(statistics.median, columns), strict=True))


class Ratio(NamedTuple):
    """A median of ratios, each of one round, and the least and the most of them."""

    median: float
    least: float
    most: float


def ratio(
    ours: Sequence[Mapping[str, float] | None], theirs: Sequence[Mapping[str, float] | None], figure: str
) -> Ratio | None:
    """`figure` of ours as a multiple of theirs, round by round; None where no round has both."""
    pairs = zip(ours, theirs, strict=False)
    each = [our[figure] / their[figure] for our, their in pairs if our and their and their[figure]]
    return Ratio(statistics.median(each), min(each), max(each)) if each else None
