"""What is told of a job: the events of its life, from its record."""

from __future__ import annotations

from flashfw.cluster.events import Event
from flashfw.cluster.jobs.model import Job


def queued(job: Job) -> Event:
    """It is kept."""
    return Event("job_queued", job.endpoint, {"id": job.id, "function": job.function, "priority": job.priority})


def started(job: Job) -> Event:
    """A worker has it."""
    fields = {
        "id": job.id,
        "function": job.function,
        "worker": job.worker,
        "attempt": job.attempt,
        "delay_s": (job.started_at or job.submitted_at) - job.submitted_at,
    }
    return Event("job_started", job.endpoint, fields)


def requeued(job: Job, why: str) -> Event:
    """It is back in the queue, since its worker is not to be had any more."""
    fields = {"id": job.id, "function": job.function, "why": why, "deaths": job.deaths, "alone": job.alone}
    return Event("job_requeued", job.endpoint, fields)


def retry(job: Job, in_s: float) -> Event:
    """Its handler raised, and it is to be tried again; `attempt` is the one that failed."""
    fields = {
        "id": job.id,
        "function": job.function,
        "attempt": job.attempt,
        "in_s": in_s,
        "error": None if job.error is None else job.error.decode(),
    }
    return Event("job_retry", job.endpoint, fields)


def again(job: Job) -> Event:
    """Somebody asked for it anew; the fields are those of its end before."""
    fields = {
        "id": job.id,
        "function": job.function,
        "state": job.state.value,
        "reason": None if job.reason is None else job.reason.value,
        "attempt": job.attempt,
        "error": None if job.error is None else job.error.decode(),
    }
    return Event("job_again", job.endpoint, fields)


def ended(job: Job) -> Event:
    """It has its terminal record; `webhook` is where that is told."""
    started = job.started_at or job.finished_at or job.submitted_at
    fields = {
        "id": job.id,
        "function": job.function,
        "state": job.state.value,
        "reason": None if job.reason is None else job.reason.value,
        "delay_s": started - job.submitted_at,
        "run_s": (job.finished_at or started) - started,
        "error": None if job.error is None else job.error.decode(),
        "webhook": job.webhook,
    }
    return Event("job", job.endpoint, fields)
