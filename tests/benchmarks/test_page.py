"""Results become verdicts, a page and a plot."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import environments
import goals
import plot
import pytest
import render
import run
from goals import Against, Slower, Within


def figure(name: str, *rates: float, connections: int = 32) -> dict[str, Any]:
    rounds = [{"per_s": rate, "p50_ms": 1000 / rate, "p99_ms": 1.0, "cpu_us": 50.0} for rate in rates]
    middle = sorted(rounds, key=lambda each: each["per_s"])[len(rounds) // 2]
    return {"contender": name, "size_bytes": 64, "connections": connections, **middle, "rounds": rounds}


def results(row: str, *figures: dict[str, Any], **failures: str) -> dict[str, Any]:
    about = {"measured_at": "today", "load": "0.1", "command": "python benchmarks/run.py", "failures": failures}
    return {"machine": {"Python": "3.11"}, "rows": {row: {**about, "figures": list(figures)}}}


def test_a_rate_is_judged_against_the_best_of_the_peers_that_match() -> None:
    found = results(
        "http", figure("flashfw", 800, 900), figure("LitServe", 50), figure("LitServe, fast_queue", 100, 90)
    )

    verdict = Against("echo", "http", "flashfw", "LitServe.*", "per_s", 32, 8).judge(found)

    assert verdict.reached
    assert verdict.ratio == "9.00 (8.00 - 10.00)"
    assert verdict.beside.endswith("(LitServe, fast_queue)")
    assert verdict.target == "≥ 8 x"


def test_a_time_is_to_be_less() -> None:
    found = results("http", figure("flashfw", 100, connections=1), figure("peer", 200, connections=1))

    assert not Against("p50", "http", "flashfw", "peer", "p50_ms", 1, 1.6).judge(found).reached
    assert Against("p50", "http", "flashfw", "peer", "p50_ms", 1, 2).judge(found).reached


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    for goal in goals.GOALS:
        assert goal.judge({"rows": {}}).reached is None
        assert goal.judge({}).reached is None


def test_figures_of_scripts_are_found_by_their_words() -> None:
    lines = (
        {"tool": "flashfw", "what": "unchanged", "count": 3, "p50_s": 0.25},
        {"tool": "flash", "what": "unchanged", "p50_s": 1.0},
    )
    found = results("build", *lines)

    verdict = Within("rebuild", "build", "flashfw, unchanged", "p50_s", "s", 0.3, "flash, unchanged").judge(found)

    assert verdict.reached
    assert (verdict.ours, verdict.beside, verdict.ratio) == ("0.25 s", "1 s (flash, unchanged)", "0.25")


def test_a_full_queue_may_be_slower_by_so_much() -> None:
    found = results("million", {"what": "empty", "per_s": 150.0}, {"what": "full", "per_s": 90.0})

    verdict = Slower("queue", "million", "empty", "full", "per_s", 1.5).judge(found)

    assert verdict.ratio == "1.67"
    assert verdict.reached is False


def test_the_page_has_every_row_and_says_what_failed() -> None:
    found = results(
        "http", figure("flashfw", 900), figure("flashfw", 2000, connections=1), mosec="no wheel for this Python"
    )

    text = render.page(found, (render.HERE / "page.md").read_text("utf-8"))

    assert "{{" not in text
    assert "| flashfw | 0.5 ms | 900 / s |" in text
    assert "- http, mosec: no wheel for this Python" in text
    assert "Not measured." in text  # the rows that nobody ran


def test_rows_of_the_page_and_of_the_command_are_the_same() -> None:
    words = (render.HERE / "page.md").read_text("utf-8")

    for row in run.ROWS:
        assert f"{{{{{row}}}}}" in words
    assert {goal.row for goal in goals.GOALS} <= set(run.ROWS)


def test_figures_of_a_script_are_read_with_and_without_its_machine() -> None:
    figures = [{"what": "again", "p50_ms": 3.0}]

    assert run.lines({"machine": {}, "figures": figures}) == figures
    assert run.lines(figures) == figures


def test_bars_are_as_long_as_their_values() -> None:
    panel = plot.Panel("A < B", [("flashfw", 200.0, "200 / s"), ("peer", 50.0, "50 / s"), ("none", 0.0, "")])

    drawn = xml.fromstring(plot.svg([panel, panel]))

    bars = list(drawn.iter("{http://www.w3.org/2000/svg}rect"))[1:]
    lengths = [int(each.attrib["width"]) for each in bars]
    assert lengths[0] == 4 * lengths[1]
    assert lengths[2] == 1
    assert [each.attrib["fill"] for each in bars[:2]] == [plot.OURS, plot.THEIRS]


def test_the_page_in_the_documentation_is_that_of_the_results(tmp_path: Path) -> None:
    render.write(json.loads(render.LATEST.read_text("utf-8")), tmp_path)

    for name in ("benchmarks.md", "benchmarks.svg"):
        assert (tmp_path / name).read_text("utf-8") == (render.DOCS / name).read_text("utf-8"), (
            "python benchmarks/render.py"
        )


@pytest.mark.parametrize(
    "folder", sorted(environments.PEERS.glob("*/requirements.txt")), ids=lambda path: path.parent.name
)
def test_peers_are_pinned(folder: Path) -> None:
    head, *lines = folder.read_text("utf-8").splitlines()

    assert all("==" in line for line in lines)
    assert len(environments.pinned(folder.parent.name)) == len(head.lstrip("# ").split())
