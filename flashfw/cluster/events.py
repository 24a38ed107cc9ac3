"""What the cluster tells whoever runs it: named events with fields, never printed text."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)  # frozen, it would take twice as long to make, and each job tells four
class Event:
    """One thing that happened, which nobody changes. `name` is stable; `fields` are JSON values.

    | name | fields |
    | --- | --- |
    | `request` | method, path, function, status, duration_s, cut: why it was not finished, refused: why we said no |
    | `job_queued` | id, function, priority |
    | `job_started` | id, function, worker, attempt, delay_s |
    | `job` | its end: id, function, state, reason, delay_s, run_s, error, webhook |
    | `job_requeued` | id, function, why, deaths, alone |
    | `job_retry` | id, function, attempt, in_s, error |
    | `job_again` | somebody asked for it anew: id, function, and of its end before state, reason, attempt, error |
    | `webhook` | id, url, state: delivered, failed or given_up, status, tries, error, retry_in_s |
    | `schedule` | function, cron, tz, tick, and job, or skipped: why |
    | `function_missing` | function, jobs: how many of its queued ones end if it is not back in_s later |
    | `function_gone` | function, jobs: how many of its queued ones have ended |
    | `output` | worker, job, stream, text |
    | `worker` | worker, state, why, and for a ready one import_s, fixtures_s, start_s, environment_s, process |
    | `start_failed` | worker, failure, failures, retry_in_s |
    | `scale` | wanted, have, reason |
    | `environment` | text |
    | `described` | functions, or failure |
    | `rolled` | release |
    | `renewed` | running workers have taken in what was saved: files, took_s, release |
    | `replacing` | they cannot, and others start: files, why |
    | `rollout` | its end: number, release, state, by, and where it failed endpoint, why |
    | `removed` | by: everything that was shipped is gone |
    | `system_missing` | packages, install |
    | `store_failed`, `store_back` | error; it does again |
    | `recovered` | jobs: how many of a dead server are queued again |
    | `serving`, `stopping` | of `dev`: url, key, manifest, gpus, webhook_secret: its file; running, queued, grace_s |
    | `schedules` | of `dev`: on, count, next: the first tick, function: whose it is |
    | `waiting` | of `dev`: jobs of the last run by function |
    | `problems` | of `dev`: problems, held: endpoints that keep their last good code |
    | `reloaded` | of `dev`, what a save changes: roll, of these restart for sure, added, removed, changed |
    | `internal` | where, error, traceback: a defect of flashfw that was survived |
    """

    name: str
    endpoint: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


Emit = Callable[[Event], None]
"""Takes an event; must not block and must not raise."""


def request(
    method: str,
    path: str,
    function: str | None,
    status: int,
    *,
    duration_s: float,
    cut: str | None = None,
    refused: str | None = None,
) -> Event:
    """A request that has its answer, whichever way it went."""
    fields = {"method": method, "path": path, "function": function, "status": status, "duration_s": duration_s}
    if cut:
        fields["cut"] = cut
    if refused:
        fields["refused"] = refused
    return Event("request", None, fields)


def internal(where: str, error: BaseException, endpoint: str | None = None) -> Event:
    """An error that should not have been: what was done, and all that helps to mend it."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Event(
        "internal", endpoint, {"where": where, "error": f"{type(error).__name__}: {error}", "traceback": trace}
    )


def store_failed(error: Exception, endpoint: str | None = None) -> Event:
    """The job store did not keep or tell something; whoever asked tries again, or was told so."""
    return Event("store_failed", endpoint, {"error": str(error)})


def all_of(*listeners: Emit) -> Emit:
    """One `Emit` that tells each of them, in this order."""
    return _All(listeners)


class _All:
    """Listeners as one; those that are some themselves are told as if they were named, since each job tells much."""

    __slots__ = ("listeners",)

    def __init__(self, listeners: Iterable[Emit]) -> None:
        self.listeners: list[Emit] = []
        for listener in listeners:
            self.listeners += listener.listeners if isinstance(listener, _All) else [listener]

    def __call__(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def silent(event: Event) -> None:
    """An `Emit` for when nobody listens."""
