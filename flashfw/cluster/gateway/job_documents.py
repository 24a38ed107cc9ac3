"""A job's record as the server's own pages show it: our names, seconds, and nothing left out."""

from __future__ import annotations

from typing import Any

from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.records import error_object, stored


def summary(job: Job) -> dict[str, Any]:
    """One line of a list: all but what it took and gave. Times are seconds since the epoch, or null."""
    return {
        "id": job.id,
        "function": job.function,
        "endpoint": job.endpoint,
        "state": job.state.value,
        "reason": None if job.reason is None else job.reason.value,
        "dead": job.is_dead_letter,
        "priority": job.priority,
        "attempt": job.attempt,
        "deaths": job.deaths,
        "alone": job.alone,
        "worker": job.worker,
        "submitted_at": job.submitted_at,
        "available_at": job.available_at or job.submitted_at,
        "expires_at": job.expires_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "timeout_s": job.timeout_s,
        "error": _error(job),
    }


def details(job: Job) -> dict[str, Any]:
    """The whole record; `progress` is the latest, `output` that of a completed job."""
    return {
        **summary(job),
        "result_ttl_s": job.result_ttl_s,
        "webhook": job.webhook,
        "idempotency_key": job.idempotency_key,
        "input": _value(job.input),
        "progress": _value(job.progress),
        "output": _value(job.output),
    }


def _error(job: Job) -> dict[str, Any] | None:
    """Why it did not complete, or why it is tried again."""
    if job.error is None and (not job.state.is_terminal or job.state is State.COMPLETED):
        return None
    error = error_object(job)
    return error if job.state.is_terminal else {key: value for key, value in error.items() if key != "reason"}


def _value(data: bytes | None) -> Any:
    return None if data is None else stored(data)
