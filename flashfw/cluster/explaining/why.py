"""Why a job went as it did: its record and what was noted beside it, to a story in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flashfw.cluster.explaining.coldstart import cold_start
from flashfw.cluster.explaining.moments import Moment, duration, error_of, failure_line, number, plural, text
from flashfw.cluster.jobs.model import QUARANTINE_DEATHS, Job, Reason, State
from flashfw.cluster.jobs.store import Entry

_RETURNS = frozenset({"job_requeued", "job_retry", "job_again"})
"""What puts a job back into the queue."""

QUICK_S = 0.05
"""A job that waited no longer was claimed as it came: nothing is to be explained."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """The jobs that the endpoint had not done yet when this one came: how many (at least, if not `is_all`)."""

    jobs: int = 0
    running: int = 0
    is_all: bool = True

    def __str__(self) -> str:
        count = plural(self.jobs, "job") if self.is_all else f"{self.jobs} or more jobs"
        return f"{count} ahead of it, {self.running} of them running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A job from its submission on. `summary` is the whole in one line, `moments` are in the order of time."""

    job: str
    function: str
    state: str
    reason: str | None
    submitted_at: float
    summary: str
    moments: tuple[Moment, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """The story as JSON values; `offset_s` counts from the submission."""
        return {
            "id": self.job,
            "function": self.function,
            "state": self.state,
            "reason": self.reason,
            "submitted_at": self.submitted_at,
            "summary": self.summary,
            "moments": [moment.to_json(self.submitted_at) for moment in self.moments],
        }


def explain(
    job: Job, entries: Iterable[Entry], *, ahead: Ahead | None = None, now: Moment | None = None, at: float = 0.0
) -> Story:
    """The story of a job: what it waited for, each attempt, deaths, retries, deliveries, the end.

    `entries` are those of the job and those of its endpoint and server, in any order; those that did not matter to it
    are left out. `now` is what holds for a job that has not ended, `at` the present moment. It never raises, whatever
    the entries hold.
    """
    known = sorted(entries, key=lambda entry: entry.at)
    own = [entry for entry in known if entry.job == job.id]
    waits = _waits(job, own, at)
    workers = {entry.worker for entry in own if entry.worker} | ({job.worker} if job.worker else set())
    starts = {entry.worker: entry.at for entry in known if entry.fields.get("state") == "INITIALIZING"}
    moments = [
        _queued(job, ahead),
        *(moment for entry in own for moment in _of_the_job(entry, job, own)),
        *(moment for entry in known if entry.job is None for moment in _beside(entry, waits, workers, starts)),
        *_attempt(job),
        *_end(job),
        *([] if now is None else [now]),
    ]
    told = (moment.since(job.submitted_at) for moment in moments)
    ordered = tuple(sorted(filter(None, told), key=lambda moment: (moment.at, moment.rank)))
    return Story(
        job=job.id,
        function=job.function,
        state=job.state.value,
        reason=None if job.reason is None else job.reason.value,
        submitted_at=job.submitted_at,
        summary=_summary(job, ordered, ahead, at),
        moments=ordered,
    )


def _queued(job: Job, ahead: Ahead | None) -> Moment:
    details: dict[str, Any] = {"ttl_s": job.expires_at - job.submitted_at, "timeout_s": job.timeout_s}
    said = f"queued for {job.function}"
    if job.priority:
        details["priority"] = job.priority
        said += ", with low priority" if job.priority < 0 else ", with high priority"
    if ahead is not None and ahead.jobs:
        details["ahead"] = ahead.jobs
        said += f": {ahead}"
    return Moment(job.submitted_at, "queued", said, details, rank=0)


def _waits(job: Job, own: Sequence[Entry], at: float) -> list[tuple[float, float]]:
    """When it was in the queue: from the submission or from each return, until the next attempt, the end or now."""
    begins = [entry.at for entry in own if entry.name == "job_started"]
    begins += [job.started_at] if job.started_at is not None else []
    last = job.finished_at if job.finished_at is not None else max(at, job.submitted_at)
    returns = [entry.at for entry in own if entry.name in _RETURNS]
    return [
        (back, min((begin for begin in begins if begin >= back), default=last)) for back in (job.submitted_at, *returns)
    ]


def _of_the_job(entry: Entry, job: Job, own: Sequence[Entry]) -> Iterator[Moment]:
    teller = _OF_THE_JOB.get(entry.name)
    if teller is None:
        return
    took_s: float | None = None
    if entry.name == "job_started":  # noted with what ended the attempt
        ends = (other.at - entry.at for other in own if other.name in _RETURNS and other.at >= entry.at)
        took_s = min(ends, default=None)
    yield Moment(entry.at, entry.name, teller(entry, job), {**entry.fields, **_named(entry)}, took_s, rank=5)


def _beside(
    entry: Entry, waits: Sequence[tuple[float, float]], workers: set[str], starts: Mapping[str | None, float]
) -> Iterator[Moment]:
    """What the endpoint or the server did while the job waited, and what its own workers did."""
    if not any(begin <= entry.at <= end for begin, end in waits):
        return
    if entry.name == "scale" and entry.fields.get("wanted") == entry.fields.get("have"):
        return
    if entry.name == "worker":
        yield from _worker(entry, workers, starts)
    elif (teller := _BESIDE.get(entry.name)) is not None:
        yield Moment(entry.at, entry.name, teller(entry), {**entry.fields, **_named(entry)}, rank=2)


def _worker(entry: Entry, workers: set[str], starts: Mapping[str | None, float]) -> Iterator[Moment]:
    state, why, name = text(entry.fields.get("state")), text(entry.fields.get("why")), entry.worker or "a worker"
    if state == "INITIALIZING":
        yield Moment(entry.at, "worker", f"worker {name} starts", _named(entry), rank=2)
    elif "start_s" in entry.fields and entry.worker in workers:
        yield from cold_start(entry, since=starts.get(entry.worker))
    elif "start_s" in entry.fields:
        took = duration(number(entry.fields["start_s"]))
        yield Moment(entry.at, "worker", f"worker {name}, another one, is ready after {took}", _named(entry), rank=2)
    elif state == "GONE":
        yield Moment(entry.at, "worker", f"worker {name} is gone{_because(why)}", _named(entry), rank=2)
    elif state == "THROTTLED":
        yield Moment(entry.at, "worker", f"worker {name} waits{_because(why)}", _named(entry), rank=2)
    elif state in ("UNHEALTHY", "SILENT"):
        yield Moment(entry.at, "worker", f"worker {name} takes no calls{_because(why)}", _named(entry), rank=2)


def _attempt(job: Job) -> Iterator[Moment]:
    if job.started_at is None:
        return
    took = None if job.finished_at is None else max(0.0, job.finished_at - job.started_at)
    which = f"attempt {job.attempt}" if job.attempt != 1 else "the call"
    said = f"{which} runs on worker {job.worker or 'unknown'}"
    yield Moment(job.started_at, "started", said, {"attempt": job.attempt, "worker": job.worker}, took, rank=4)


def _end(job: Job) -> Iterator[Moment]:
    if job.finished_at is None:
        return
    error = error_of(job.error)
    said = _ENDS.get(job.reason, "failed") if job.state is not State.COMPLETED else "done"
    if job.reason is Reason.TIMEOUT:
        said += f" ({job.timeout_s:g} s)"
    if job.reason in (Reason.WORKER_LOST, Reason.OOM):
        said += f", {plural(job.deaths, 'time')} by now; it is not tried again"
    line = failure_line(error)
    said += f": {line}" if line else ""
    yield Moment(job.finished_at, job.state.value.lower(), f"{job.state.value}: {said}", {"error": error}, rank=7)


def _summary(job: Job, moments: Sequence[Moment], ahead: Ahead | None, at: float) -> str:
    until = job.finished_at if job.finished_at is not None else max(at, job.submitted_at)
    begun = job.started_at if job.started_at is not None else until
    state = job.state.value if job.reason is None else f"{job.state.value} ({job.reason.value})"
    parts = [f"waited {duration(max(0.0, begun - job.submitted_at))}"]
    cold_s = sum(moment.took_s or 0.0 for moment in moments if moment.is_cold)
    if cold_s:
        parts.append(f"{duration(cold_s)} of it a cold start")
    if ahead is not None and ahead.jobs:
        parts.append(f"{'' if ahead.is_all else 'at least '}{plural(ahead.jobs, 'job')} ahead of it")
    again = [moment for moment in moments if moment.what in _RETURNS]
    parts += [f"went back into the queue {plural(len(again), 'time')}"] if again else []
    if job.started_at is not None:
        parts.append(f"{'ran' if job.state.is_terminal else 'runs for'} {duration(max(0.0, until - begun))}")
    return f"{state}: {', '.join(parts)}"


def _started(entry: Entry, job: Job) -> str:
    return f"attempt {text(entry.fields.get('attempt')) or '?'} runs on worker {entry.worker or 'unknown'}"


def _requeued(entry: Entry, job: Job) -> str:
    deaths = _count(entry, "deaths")
    why = failure_line(entry.fields.get("why")) or "its worker had to go"
    said = f"back in the queue: {why}"
    if deaths:
        left = QUARANTINE_DEATHS - deaths
        said += f"; {plural(deaths, 'worker')} lost with it, {left} more would end it"
    if entry.fields.get("alone"):
        said += "; it runs alone from now on, since others were in flight beside it"
    return said


def _retry(entry: Entry, job: Job) -> str:
    attempt, wait_s = text(entry.fields.get("attempt")), number(entry.fields.get("in_s"))
    why = failure_line(entry.fields.get("error")) or "it failed"
    return f"attempt {attempt or '?'} failed: {why}; tried again in {duration(wait_s)}"


def _again(entry: Entry, job: Job) -> str:
    before, why = text(entry.fields.get("state")), failure_line(entry.fields.get("error"))
    return "somebody asked for it again" + (f", after it was {before}{_because(why)}" if before else "")


def _webhook(entry: Entry, job: Job) -> str:
    fields = entry.fields
    url, status, tries = text(fields.get("url")), text(fields.get("status")), _count(entry, "tries")
    why = failure_line(fields.get("error")) or (f"status {status}" if status else "")
    if fields.get("state") == "delivered":
        return f"webhook delivered to {url}" + (f" at try {tries}" if tries > 1 else "")
    if fields.get("state") == "given_up":
        return f"webhook to {url} given up after {plural(tries, 'try', 'tries')}{_because(why)}"
    wait = duration(number(fields.get("retry_in_s")))
    return f"webhook to {url} failed{_because(why)}; tried again in {wait}"


def _start_failed(entry: Entry) -> str:
    said = f"worker {entry.worker or ''} does not start: {failure_line(entry.fields.get('failure')) or 'unknown why'}"
    wait_s = number(entry.fields.get("retry_in_s"))
    return said + (f"; the next try is in {duration(wait_s)}" if wait_s else "")


def _server(entry: Entry) -> str:
    if text(entry.fields.get("state")) == "STOPPED":
        return "the server stopped"
    return "the server started"


def _count(entry: Entry, key: str) -> int:
    return int(number(entry.fields.get(key)))


def _named(entry: Entry) -> dict[str, Any]:
    return {"worker": entry.worker} if entry.worker else {}


def _because(why: str) -> str:
    return f": {why}" if why else ""


_OF_THE_JOB: dict[str, Callable[[Entry, Job], str]] = {
    "job_started": _started,
    "job_requeued": _requeued,
    "job_retry": _retry,
    "job_again": _again,
    "webhook": _webhook,
    "schedule": lambda entry, job: f"submitted by the schedule {text(entry.fields.get('cron'))!r}",
}
_BESIDE: dict[str, Callable[[Entry], str]] = {
    "scale": lambda entry: f"scaler: {text(entry.fields.get('reason'))}",
    "start_failed": _start_failed,
    "rolled": lambda entry: "the endpoint's code or configuration changed: its workers were replaced",
    "renewed": lambda entry: "the endpoint's code was saved: its workers took it in",
    "store_failed": lambda entry: f"the job store failed: {text(entry.fields.get('error'))}",
    "recovered": lambda entry: f"jobs that a dead server had begun were queued again: {_count(entry, 'jobs')}",
    "server": _server,
    "journal_lost": lambda entry: f"notes from before this were lost: {_count(entry, 'entries')}",
}
_ENDS = {
    None: "failed",
    Reason.VALIDATION: "the input does not fit",
    Reason.HANDLER_ERROR: "the handler raised",
    Reason.WORKER_LOST: "its worker was lost",
    Reason.OOM: "its worker ran out of memory",
    Reason.TIMEOUT: "not done within its timeout",
    Reason.EXPIRED: "it waited longer than its ttl",
    Reason.CANCELLED: "somebody cancelled it",
    Reason.ENCODE: "its result cannot be JSON",
    Reason.TOO_LARGE: "its result is too large",
    Reason.STARTUP: "no worker could be started",
    Reason.FUNCTION_GONE: "its function is not served any more",
}
