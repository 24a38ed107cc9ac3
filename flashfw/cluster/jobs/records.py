"""A job's record as the wire shows it: Runpod's field names and our own error object.

Field names and units are those of Runpod's job API: `delayTime` and `executionTime` are integer
milliseconds, `error` is a string that holds a JSON document, and a terminal record always has
`id`, `status`, `workerId`, `delayTime` and `executionTime`, because Flash's models require all five.
"""

from __future__ import annotations

import json
import math
from typing import Any

from flashfw.cluster.jobs.model import Job, State


def error_object(job: Job) -> dict[str, Any]:
    """Why a job did not complete, as one object: `reason`, `message`, and what the worker said."""
    error: dict[str, Any] = json.loads(job.error) if job.error else {}
    reason = job.reason.value if job.reason else "handler_error"
    return {**error, "reason": reason, "message": error.get("message") or error.get("type") or f"the job was {reason}"}


def stored(data: bytes) -> Any:
    """A JSON value as it was given, to be shown: a number beyond all floats is null, since JSON has no infinity.

    >>> stored(b'[1e400, -Infinity, 1.5]')
    [None, None, 1.5]
    """
    return json.loads(data, parse_float=_finite, parse_constant=lambda _: None)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def status_record(job: Job) -> dict[str, Any]:
    """The job as `status` and `runsync` answer it."""
    record: dict[str, Any] = {"id": job.id, "status": job.state.value}
    if job.state is State.IN_QUEUE:
        return record
    record["workerId"] = job.worker or ""
    record["delayTime"] = delay_ms(job)
    if job.attempt > 1:
        record["retries"] = job.attempt - 1
    if job.state is State.IN_PROGRESS:
        if job.progress is not None:
            record["output"] = json.loads(job.progress)
        return record
    record["executionTime"] = execution_ms(job)
    if job.state is State.COMPLETED:
        record["output"] = None if job.output is None else json.loads(job.output)
    else:
        record["error"] = _error_text(error_object(job))
        record["reason"] = None if job.reason is None else job.reason.value
    return record


def delay_ms(job: Job) -> int:
    """How long the job waited before the attempt that counts."""
    until = job.started_at or job.finished_at or job.submitted_at
    return max(0, round((until - job.submitted_at) * 1000))


def execution_ms(job: Job) -> int:
    """How long the attempt that counts has run."""
    if job.started_at is None or job.finished_at is None:
        return 0
    return max(0, round((job.finished_at - job.started_at) * 1000))


def _error_text(error: dict[str, Any]) -> str:
    document = {
        "error_type": error.get("type", error["reason"]),
        "error_message": error["message"],
        "error_traceback": error.get("traceback", ""),
    }
    return json.dumps({**document, **({"errors": error["errors"]} if "errors" in error else {})})
