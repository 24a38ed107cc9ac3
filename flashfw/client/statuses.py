"""A job at one moment, as its server tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flashfw.client.failures import error_of

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job at one moment. `output` of a running job is its latest progress; times are None until known."""

    id: str
    status: str
    output: Json = None
    error: Mapping[str, Json] | None = None
    delay_ms: int | None = None
    execution_ms: int | None = None
    worker: str = ""

    @property
    def is_terminal(self) -> bool:
        return self.status not in ("IN_QUEUE", "IN_PROGRESS")


def status_of(record: Mapping[str, Json]) -> JobStatus:
    """The status that a record of the job API tells.

    >>> status_of({"id": "a", "status": "IN_QUEUE"}).is_terminal
    False
    """
    return JobStatus(
        id=record["id"],
        status=record["status"],
        output=record.get("output"),
        error=error_of(record["error"]) if record.get("error") is not None else None,
        delay_ms=record.get("delayTime"),
        execution_ms=record.get("executionTime"),
        worker=record.get("workerId") or "",
    )
