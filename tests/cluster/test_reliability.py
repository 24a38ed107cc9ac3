"""docs/reliability.md names a test for each promise: those tests are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_promise_names_a_test_that_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8").partition("## Rounds of faults")[0]  # figures follow
    rows = [line for line in text.splitlines() if line[:2] == "| "]
    promises = [row for row in rows if not row.startswith(("| promise", "| ---"))]

    missing = []
    for row in promises:
        named = NAMED.findall(row)
        assert named, f"no test is named: {row}"
        for file, name in named:
            path = ROOT / file if file.startswith("tests/") else HERE / file
            if f"def {name}(" not in path.read_text("utf-8"):
                missing.append(f"{file}::{name}")

    assert missing == []
    assert len(promises) > 30
