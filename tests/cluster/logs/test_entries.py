"""Which events are for a log, and what stands there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.events import Event
from flashfw.cluster.logs.entries import Entry, entry_of, lines

FAILURE = {"type": "ValueError", "message": "no good", "traceback": "Traceback ...\n  line 3\n"}


def told(name: str, **fields: Any) -> list[dict[str, Any]]:
    entry = entry_of(Event(name, "gpu", fields), 1.0)
    return [] if entry is None else [json.loads(line) for line in lines(entry)]


def test_output_is_a_line_each_and_a_record_of_logging_stays_whole() -> None:
    output = {"worker": "w-1", "job": "j", "text": "one\n\ntwo\n"}
    common = {"at": 1.0, "endpoint": "gpu", "worker": "w-1", "job": "j"}

    assert told("output", stream="stdout", **output) == [
        {**common, "stream": "stdout", "text": text} for text in ("one", "", "two")
    ]
    assert told("output", stream="log", level="warning", **output) == [
        {**common, "stream": "log", "text": "one\n\ntwo", "level": "warning"}
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"state": "INITIALIZING", "why": ""}, "starting"),
        ({"state": "GONE", "why": "killed by SIGKILL"}, "gone: killed by SIGKILL"),
        ({"state": "SILENT", "why": "no beat for 60 s"}, "silent: no beat for 60 s"),
        (
            {"state": "IDLE", "why": "", "start_s": 2.13, "import_s": 1.2, "fixtures_s": {"a": 0.4, "b": 0.3}},
            "ready in 2.1 s (import 1.2 s, fixtures 700 ms)",
        ),
    ],
)
def test_workers_come_and_go(fields: dict[str, Any], text: str) -> None:
    (line,) = told("worker", worker="w-1", **fields)

    assert (line["stream"], line["worker"], line["text"]) == ("worker", "w-1", text)


def test_a_failed_start_is_told_with_its_traceback() -> None:
    (line,) = told("start_failed", worker="w-1", failure=FAILURE, failures=1, retry_in_s=0.0)

    assert line["text"] == "did not start: ValueError: no good\nTraceback ...\n  line 3"
    assert line["level"] == "error"


def test_jobs_are_told_that_fail_and_no_others() -> None:
    job = {"id": "j", "function": "gpu/up", "reason": "handler_error", "error": json.dumps(FAILURE)}
    (line,) = told("job", state="FAILED", **job)

    assert (line["job"], line["stream"]) == ("j", "job")
    assert line["text"].startswith("gpu/up FAILED (handler_error): ValueError: no good\nTraceback")
    assert told("job", **{**job, "state": "COMPLETED"}) == []
    (again,) = told("job_retry", id="j", function="gpu", attempt=1, in_s=2.0, error="odd")
    assert again["text"] == "gpu failed, the next attempt is in 2.0 s: odd"
    assert told("scale", wanted=1, have=0, reason="x") == []
    assert entry_of(Event("output", None, {}), 1.0) is None


@given(st.text())
def test_any_text_comes_back_from_its_lines(text: str) -> None:
    entry = Entry(at=1.0, endpoint="gpu", stream="stdout", text=text)

    assert "\n".join(json.loads(line)["text"] for line in lines(entry)) == text.removesuffix("\n")
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines(entry))
