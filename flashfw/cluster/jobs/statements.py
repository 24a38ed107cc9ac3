"""The statements of `sql/queries.sql` by name, and a row turned into a job and back."""

from __future__ import annotations

import dataclasses
import re
from importlib import resources
from operator import attrgetter
from typing import Any

from flashfw.cluster.jobs.model import Job, Reason, State

Row = tuple[Any, ...]

_FIELDS = tuple(field.name for field in dataclasses.fields(Job))
_STORED = tuple(name for name in _FIELDS if name != "input")
_CHANGING = (
    *("state", "reason", "expires_at", "available_at", "started_at", "finished_at", "attempt", "fence", "deaths"),
    *("boot", "worker", "output", "error", "progress"),
)
_OWN = ("parked", "forget_at")

_stored = attrgetter(*_STORED)
_changing = attrgetter(*_CHANGING)
_states = {state.value: state for state in State}
_reasons = {reason.value: reason for reason in Reason} | {None: None}
_STATE, _REASON = _FIELDS.index("state"), _FIELDS.index("reason")


def _load() -> dict[str, str]:
    text = (resources.files(__package__) / "sql" / "queries.sql").read_text(encoding="utf-8")
    places = {
        "{job}": ", ".join(f"inputs.{name}" if name == "input" else f"jobs.{name}" for name in _FIELDS) + ", jobs.seq",
        "{columns}": ", ".join(_STORED + _OWN),
        "{values}": ", ".join("?" * len(_STORED + _OWN)),
        "{changes}": ", ".join(f"{name} = ?" for name in _CHANGING + _OWN),
    }
    for place, columns in places.items():
        text = text.replace(place, columns)
    blocks = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    bodies = (re.sub(r"^--.*\n", "", body, flags=re.MULTILINE).strip() for body in blocks[1::2])
    return dict(zip(blocks[::2], bodies, strict=True))


SQL = _load()
"""Statements by name."""


def job_of(row: Row) -> tuple[int, Job]:
    """The seq and the job of a row selected by the columns `{job}`."""
    fields = dict(zip(_FIELDS, row, strict=False))
    fields["state"] = _states[row[_STATE]]
    fields["reason"] = _reasons[row[_REASON]]
    return row[-1], Job(**fields)


def inserted(job: Job, now: float) -> Row:
    """The values of `insert_job`."""
    return _stored(job) + _own(job, now)


def changed(job: Job, now: float, seq: int) -> Row:
    """The values of `update_job`."""
    return (*_changing(job), *_own(job, now), seq)


def _own(job: Job, now: float) -> tuple[bool, float | None]:
    parked = job.state is State.IN_QUEUE and job.available_at > now
    return parked, None if job.finished_at is None else job.finished_at + job.result_ttl_s
