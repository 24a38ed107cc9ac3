"""Turns of contenders: their order, what a failure costs, and the ratios of rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from turns import ALL, SMALL, Cell, Contender, Measure, Missing, Turn, interleaved, medians, ratio

ONE = Cell(64, 1)


def turn(per_s: float) -> Turn:
    return Turn(per_s, 1000 / per_s, 2000 / per_s, 10.0)


def contender(
    name: str, order: list[str], answer: Callable[[Cell], Turn], cells: tuple[Cell, ...] = (ONE,)
) -> Contender:
    @contextmanager
    def start() -> Iterator[Measure]:
        order.append(name)
        yield answer

    return Contender(name, start, cells)


def test_contenders_take_turns() -> None:
    order: list[str] = []
    both = [contender(name, order, lambda cell: turn(100)) for name in "AB"]

    measured = interleaved(both, rounds=2, large=2, told=lambda line: None)

    assert order == ["A", "B", "A", "B"]
    assert measured.turns == {("A", ONE): [turn(100)] * 2, ("B", ONE): [turn(100)] * 2}


def test_large_bodies_are_measured_in_the_first_rounds_only() -> None:
    measured = interleaved([contender("A", [], lambda cell: turn(1), ALL)], rounds=3, large=1, told=lambda line: None)

    assert {cell: len(turns) for (_, cell), turns in measured.turns.items()} == {
        cell: 3 if cell in SMALL else 1 for cell in ALL
    }


def test_a_cell_that_fails_costs_no_other() -> None:
    def answer(cell: Cell) -> Turn:
        if cell.size_bytes > 64:
            raise ValueError("Non-2xx or 3xx responses: 7")
        return turn(100)

    measured = interleaved([contender("A", [], answer, ALL)], rounds=1, large=1, told=lambda line: None)

    assert measured.turns["A", ONE] == [turn(100)]
    assert measured.turns["A", Cell(1_000_000, 32)] == [None]
    assert measured.failures == {"A": "10,000 B, 1: Non-2xx or 3xx responses: 7"}
    assert len(measured.figures()) == 2


@pytest.mark.parametrize(
    ("error", "starts"), [(Missing("no wrk"), 1), (OSError("no port"), 2), (SystemExit("no start"), 2)]
)
def test_what_does_not_start_is_told_and_not_tried_for_ever(error: BaseException, starts: int) -> None:
    tries: list[str] = []

    @contextmanager
    def start() -> Iterator[Measure]:
        tries.append("A")
        raise error
        yield

    after: list[str] = []
    both = [Contender("A", start, (ONE,)), contender("B", after, lambda cell: turn(1))]

    measured = interleaved(both, rounds=4, large=4, told=lambda line: None)

    assert len(tries) == starts
    assert len(after) == 4
    assert str(error) in measured.failures["A"]
    assert measured.turns["A", ONE] == [None] * 4


def test_a_ratio_is_of_one_round() -> None:
    ours = [{"per_s": 100.0}, {"per_s": 50.0}, {"per_s": 300.0}]
    theirs = [{"per_s": 50.0}, {"per_s": 50.0}, {"per_s": 100.0}]

    assert ratio(ours, theirs, "per_s") == (2.0, 1.0, 3.0)


def test_a_ratio_wants_a_round_that_has_both() -> None:
    assert ratio([None, {"per_s": 1.0}], [{"per_s": 1.0}, None], "per_s") is None
    assert ratio([{"per_s": 1.0}], [], "per_s") is None


def test_medians_are_of_each_figure() -> None:
    assert medians([turn(100), turn(200), turn(1000)]) == {"per_s": 200, "p50_ms": 5, "p99_ms": 10, "cpu_us": 10}
