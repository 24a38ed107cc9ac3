"""What stands in an endpoint's log: entries, made from events, as lines of JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flashfw.cluster.events import Event
from flashfw.cluster.explaining.moments import duration

OUTPUT = "output"
WORKER, JOB, LOGS = "worker", "job", "logs"
"""The streams that are not the user's code's: how workers fare, jobs that failed, and what the log says of itself."""

_SPLIT = ("stdout", "stderr")
"""Streams of lines; a record of `logging` stays whole, traceback and all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a log. `at` is in seconds since the epoch; `stream` is stdout, stderr, log, worker, job or logs."""

    at: float
    endpoint: str
    worker: str = ""
    job: str | None = None
    stream: str
    text: str
    level: str = ""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.text) + 200


def entry_of(event: Event, at: float) -> Entry | None:
    """What an event adds to its endpoint's log, if anything.

    >>> entry_of(Event("output", "a", {"worker": "w-1", "job": None, "stream": "stdout", "text": "hi\\n"}), 1.0)
    Entry(at=1.0, endpoint='a', worker='w-1', job=None, stream='stdout', text='hi\\n', level='')
    """
    if event.endpoint is None:
        return None
    fields = event.fields
    if event.name == OUTPUT:
        return Entry(
            at=at,
            endpoint=event.endpoint,
            worker=fields["worker"],
            job=fields.get("job"),
            stream=fields.get("stream") or "log",
            text=fields["text"],
            level=fields.get("level") or "",
        )
    if event.name == "worker":
        return Entry(at=at, endpoint=event.endpoint, worker=fields["worker"], stream=WORKER, text=_worker(fields))
    if event.name == "start_failed":
        text = f"did not start: {failure_text(fields['failure'])}"
        worker = fields["worker"]
        return Entry(at=at, endpoint=event.endpoint, worker=worker, stream=WORKER, text=text, level="error")
    if event.name in ("job", "job_retry"):
        return _job(event, at)
    return None


def failure_text(failure: dict[str, Any]) -> str:
    """A failure in full: type, message, traceback."""
    kind, message = failure.get("type") or "", str(failure.get("message") or "")
    head = f"{kind}: {message}" if kind and message else message or str(kind)
    trace = str(failure.get("traceback") or "").rstrip()
    return f"{head}\n{trace}" if trace else head


def lines(entry: Entry) -> Iterator[bytes]:
    """The entry as it is kept and sent: a line of JSON for each line of output."""
    if entry.stream in _SPLIT:
        for text in entry.text.removesuffix("\n").split("\n"):
            yield _line(entry, text)
    else:
        yield _line(entry, entry.text.rstrip("\n"))


def _line(entry: Entry, text: str) -> bytes:
    # By hand: `asdict` takes five times as long as the rest, for each line that user code prints.
    document = {
        "at": entry.at,
        "endpoint": entry.endpoint,
        "worker": entry.worker,
        "job": entry.job,
        "stream": entry.stream,
        "text": text,
    }
    if entry.level:
        document["level"] = entry.level
    try:
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(document).encode() + b"\n"


def _worker(fields: dict[str, Any]) -> str:
    state, why = fields["state"], fields.get("why") or ""
    if "start_s" in fields:
        parts = f"import {duration(fields['import_s'])}, fixtures {duration(sum(fields['fixtures_s'].values()))}"
        return f"ready in {duration(fields['start_s'])} ({parts})"
    word = {"INITIALIZING": "starting", "GONE": "gone"}.get(state, state.lower())
    return f"{word}: {why}" if why else word


def _job(event: Event, at: float) -> Entry | None:
    assert event.endpoint is not None
    fields = event.fields
    state = fields.get("state", "RETRY")
    if state in ("COMPLETED", "CANCELLED"):
        return None
    what = f"failed, the next attempt is in {fields['in_s']:.1f} s" if state == "RETRY" else state
    reason = f" ({fields['reason']})" if fields.get("reason") else ""
    error = _error(fields.get("error"))
    text = f"{fields['function']} {what}{reason}" + (f": {error}" if error else "")
    return Entry(at=at, endpoint=event.endpoint, job=fields["id"], stream=JOB, text=text, level="error")


def _error(text: str | None) -> str:
    if not text:
        return ""
    try:
        failure = json.loads(text)
    except ValueError:
        return text
    return failure_text(failure) if isinstance(failure, dict) else str(failure)
