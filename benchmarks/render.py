"""The page and its plot from the results: `docs/benchmarks.md`, `docs/benchmarks.svg`.

    python benchmarks/render.py [--results benchmarks/results/latest.json]

The words are in `page.md`; only what stands in double braces comes from here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import goals
import plot
from turns import ALL, Cell

HERE = Path(__file__).resolve().parent
LATEST = HERE / "results/latest.json"
DOCS = HERE.parent / "docs"
YES_NO = {True: "yes", False: "**no**", None: "not measured"}
SIZES = {64: "64 B", 10_000: "10 kB", 1_000_000: "1 MB"}


def page(results: goals.Results, words: str) -> str:
    """The page's text with its tables filled in."""
    filled = {"machine": machine(results), "reached": reached(results), "failures": failures(results)}
    for row in ("http", "queues", "larger"):
        filled[row] = turns_table(results, row)
    for row in ("cold", "torch", "reload", "cli", "build", "million", "scale", "streams"):
        filled[row] = lines_table(results, row)
    for name, text in filled.items():
        words = words.replace(f"{{{{{name}}}}}", text)
    return words


def reached(results: goals.Results) -> str:
    verdicts = [goal.judge(results) for goal in goals.GOALS]
    rows = ([v.what, v.ours, v.beside, v.ratio, v.target, YES_NO[v.reached]] for v in verdicts)
    return table(("", "flashfw", "beside", "ratio (least - most)", "to reach", "reached"), rows)


def turns_table(results: goals.Results, row: str) -> str:
    """A line per contender: p50 of one caller, calls per second of many, at each size; and the CPU time of a call."""
    figures = goals.figures_of(results, row)
    if not figures:
        return not_measured(results, row)
    found = {(each["contender"], Cell(each["size_bytes"], each["connections"])): each for each in figures}
    head = ["", *(f"{SIZES[cell.size_bytes]}, {cell.connections}" for cell in ALL), "CPU µs, 64 B, 32"]
    lines = []
    for name in dict.fromkeys(each["contender"] for each in figures):
        cells = (found.get((name, cell)) for cell in ALL)
        values = [_cell(each) for each in cells]
        busy = found.get((name, Cell(64, 32)))
        lines.append([name, *values, f"{busy['cpu_us']:,.0f}" if busy else ""])
    return f"{table(head, lines)}\n\n{measured(results, row)}"


def _cell(figure: goals.Figure | None) -> str:
    return goals.shown(figure, "p50_ms" if figure["connections"] == 1 else "per_s") if figure else ""


def lines_table(results: goals.Results, row: str) -> str:
    """What a script printed, as it is."""
    figures = goals.figures_of(results, row)
    if not figures:
        return not_measured(results, row)
    head = list(dict.fromkeys(name for each in figures for name in each))
    lines = ([_value(each.get(name)) for name in head] for each in figures)
    return f"{table([_words(name) for name in head], lines)}\n\n{measured(results, row)}"


def _value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(name: str) -> str:
    if "_per_" in name:
        return name.replace("_", " ").replace("mb ", "MB ").replace("cpu ", "CPU ").replace(" gb", " GB")
    what, _, unit = name.rpartition("_")
    units = {"ms": "ms", "s": "s", "us": "µs", "bytes": "bytes", "mb": "MB", "percent": "%"}
    return f"{what.replace('_', ' ')}, {units[unit]}" if unit in units and what else name.replace("_", " ")


def not_measured(results: goals.Results, row: str) -> str:
    why = results.get("rows", {}).get(row, {}).get("failures", {})
    return "Not measured" + (f": {'; '.join(map(str, why.values()))}." if why else ".")


def measured(results: goals.Results, row: str) -> str:
    about = results["rows"][row]
    return f"Measured {about['measured_at']} at load {about['load']}: `{about['command']}`."


def failures(results: goals.Results) -> str:
    """What could not be measured, or failed in some turn."""
    lines = [
        f"- {row}, {name}: {why}"
        for row, about in results.get("rows", {}).items()
        for name, why in about.get("failures", {}).items()
    ]
    return "\n".join(line if len(line) < 160 else f"{line[:156]}..." for line in lines) or "Nothing."


def machine(results: goals.Results) -> str:
    items = (f"- {name}: {value}" for name, value in results.get("machine", {}).items())
    return "\n".join(fill(item, 156, subsequent_indent="  ", break_on_hyphens=False) for item in items)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)


def panels(results: goals.Results) -> list[plot.Panel]:
    """What the plot shows: rates at 32 connections, times at one, of small bodies."""
    shown = (
        ("HTTP echo, 64 B, 32 connections: answers per second", "http", 32, "per_s"),
        ("Job, 64 B, 32 callers, from submission to result: per second", "queues", 32, "per_s"),
        ("HTTP echo, 64 B, 1 connection: p50 in ms", "http", 1, "p50_ms"),
        ("Job, 64 B, 1 caller, from submission to result: p50 in ms", "queues", 1, "p50_ms"),
    )
    return [
        plot.Panel(
            title,
            [
                (each["contender"], each[name], goals.shown(each, name))
                for each in goals.figures_of(results, row)
                if (each["size_bytes"], each["connections"]) == (64, connections)
            ],
        )
        for title, row, connections, name in shown
    ]


def write(results: dict[str, Any], docs: Path = DOCS) -> None:
    (docs / "benchmarks.md").write_text(page(results, (HERE / "page.md").read_text("utf-8")), encoding="utf-8")
    (docs / "benchmarks.svg").write_text(plot.svg(panels(results)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=LATEST)
    write(json.loads(parser.parse_args().results.read_text("utf-8")))


if __name__ == "__main__":
    main()
