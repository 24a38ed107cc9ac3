"""A database's statements by name, and a row turned into a job and back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from flashfw.cluster.jobs.model import Job, Reason, State

Row = tuple[Any, ...]

_FIELDS = tuple(field.name for field in dataclasses.fields(Job))
_STORED = tuple(name for name in _FIELDS if name != "input")
_CHANGING = (
    *("state", "reason", "expires_at", "available_at", "started_at", "finished_at", "attempt", "fence", "deaths"),
    *("boot", "worker", "output", "error", "progress", "alone"),
)
_OWN = ("parked", "forget_at")
_VALUE = {"state": "state._value_"}

# Not the state itself: the SQLite module looks for a way to write what is no plain text, which takes longer.
_stored = attrgetter(*(_VALUE.get(name, name) for name in _STORED))
_changing = attrgetter(*(_VALUE.get(name, name) for name in _CHANGING))
_ending = attrgetter("output", "error", "finished_at")
_states = {state.value: state for state in State}
_reasons = {reason.value: reason for reason in Reason} | {None: None}
_STATE, _REASON, _ALONE = (_FIELDS.index(name) for name in ("state", "reason", "alone"))


_LARGE = ("output", "progress")


def _line(name: str, no_input: str) -> str:
    """A column of a job in a list: what may be large is left out, so that a thousand of them are not."""
    return no_input if name == "input" else "NULL" if name in _LARGE else name


class Kept(NamedTuple):
    """A job as the store holds it: with its place in the order of submission, and whether it waits for a retry."""

    seq: int
    job: Job
    parked: bool = False


class Cursor(Protocol):
    """What a statement gave, in any database."""

    @property
    def rowcount(self) -> int: ...

    @property
    def lastrowid(self) -> int | None: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def close(self) -> None: ...

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """A connection inside a transaction, as far as the ledger and the shelf need it."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor: ...


def load(file: str, *, value: str = "?", input_of: str = "inputs.input", no_input: str = "x''") -> dict[str, str]:
    """The statements in a file of `sql/`, by name.

    `value` is the database's mark for a parameter, `input_of` and `no_input` its words for a job's input and for none.
    """
    text = (resources.files(__package__) / "sql" / file).read_text(encoding="utf-8")
    places = {
        "{job}": ", ".join(input_of if name == "input" else f"jobs.{name}" for name in _FIELDS)
        + ", jobs.parked, jobs.seq",
        "{record}": ", ".join(no_input if name == "input" else name for name in _FIELDS) + ", parked, seq",
        "{line}": ", ".join(_line(name, no_input) for name in _FIELDS) + ", parked, seq",
        "{columns}": ", ".join(_STORED + _OWN),
        "{values}": ", ".join([value] * len(_STORED + _OWN)),
        "{changing}": ", ".join(_CHANGING),
        "{changing_of_jobs}": ", ".join(f"jobs.{name}" for name in _CHANGING),
        "{changes}": ", ".join(f"{name} = {value}" for name in _CHANGING + _OWN),
    }
    for place, columns in places.items():
        text = text.replace(place, columns)
    blocks = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    bodies = (re.sub(r"^--.*\n", "", body, flags=re.MULTILINE).strip() for body in blocks[1::2])
    return dict(zip(blocks[::2], bodies, strict=True))


SQL = load("queries.sql")
"""Those of SQLite."""


def job_of(row: Row) -> Kept:
    """The job of a row selected by the columns `{job}`."""
    fields = dict(zip(_FIELDS, row, strict=False))
    fields["state"] = _states[row[_STATE]]
    fields["reason"] = _reasons[row[_REASON]]
    fields["alone"] = row[_ALONE] == 1
    return Kept(row[-1], Job(**fields), row[-2] == 1)


def record_of(job: Job, row: Row) -> Job:
    """The job with what was kept of an earlier end of it, by the columns `{changing}`."""
    fields = dict(zip(_CHANGING, row, strict=True))
    fields["state"] = _states[fields["state"]]
    fields["reason"] = _reasons[fields["reason"]]
    fields["alone"] = fields["alone"] == 1
    return dataclasses.replace(job, **fields)


def inserted(job: Job, now: float) -> Row:
    """The values of `insert_job`."""
    return _stored(job) + _own(job, now)


def changed(job: Job, now: float, seq: int) -> Row:
    """The values of `update_job`."""
    return (*_changing(job), *_own(job, now), seq)


def ended(job: Job, seq: int) -> Row:
    """The values of `end_job`."""
    reason = None if job.reason is None else job.reason._value_
    return (job.state._value_, reason, *_ending(job), _forget_at(job), seq)


def _own(job: Job, now: float) -> tuple[bool, float | None]:
    parked = job.state is State.IN_QUEUE and job.available_at > now
    return parked, _forget_at(job)


def _forget_at(job: Job) -> float | None:
    return None if job.finished_at is None else job.finished_at + job.result_ttl_s
