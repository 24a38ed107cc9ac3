"""The metrics of a server: events in, Prometheus' text out.

Labels are ids of functions and endpoints, and words of a fixed set: never a path, a job, a worker or a key, whose
number has no bound. docs/metrics.md lists all of them, and a test compares.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

import flashfw
from flashfw.cluster.events import Event
from flashfw.cluster.metrics.series import Counter, Histogram
from flashfw.cluster.workers.autoscaler import WorkerState

CALLS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
STARTS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
OWN = "-"
"""The function of a request to one of the server's own pages, or to nothing at all."""

F, E = ("function",), ("endpoint",)


class Measured(Protocol):
    """What is looked at when somebody asks: the cluster as it stands."""

    def status(self) -> dict[str, object]:
        """Endpoints with their workers and queues."""
        ...


class Metrics(Collector):
    """All metrics of one server, in a registry of their own. `take` is an `Emit`."""

    def __init__(self) -> None:
        self._measured: Measured | None = None
        self._registry = CollectorRegistry()
        self._submitted = Counter("flashfw_jobs_submitted", "Jobs that were accepted.", F)
        self._ended = Counter("flashfw_jobs_ended", "Jobs that ended, by how.", ("function", "state", "reason"))
        self._attempts = Counter("flashfw_job_attempts", "Attempts at jobs that began.", F)
        self._requeued = Counter(
            "flashfw_jobs_requeued", "Jobs that went back into the queue: their worker was lost.", F
        )
        self._retried = Counter("flashfw_job_retries", "Attempts that failed and are made again.", F)
        self._waits = Histogram("flashfw_job_wait_seconds", "From submission to the attempt.", F, bounds_s=CALLS_S)
        self._runs = Histogram("flashfw_job_run_seconds", "What ended jobs ran for.", F, bounds_s=CALLS_S)
        self._requests = Counter("flashfw_http_requests", "Requests that were answered.", ("function", "status"))
        self._answers = Histogram(
            "flashfw_http_request_duration_seconds", "From a request to the end of its answer.", F, bounds_s=CALLS_S
        )
        self._starts = Counter("flashfw_worker_starts", "Workers that became ready.", E)
        self._failed_starts = Counter("flashfw_worker_start_failures", "Workers that did not.", E)
        self._cold = Histogram(
            "flashfw_cold_start_seconds",
            "What starts of workers were spent on.",
            ("endpoint", "part"),
            bounds_s=STARTS_S,
        )
        self._store = Counter("flashfw_store_failures", "Times that the job store did not keep or tell something.")
        self._rolled = Counter("flashfw_releases_rolled", "Releases that an endpoint's workers were replaced for.", E)
        self._rollouts = Counter("flashfw_rollouts", "Rollouts of releases that ended.", ("state",))
        self._webhooks = Counter("flashfw_webhooks", "Tries to tell a webhook.", ("state",))
        self._schedules = Counter("flashfw_schedule_ticks", "Ticks of schedules.", ("function", "outcome"))
        self._defects = Counter("flashfw_defects", "Defects of flashfw that were survived.")
        self._takers: dict[str, Callable[[Event], None]] = {
            "request": self._request,
            "job_queued": lambda event: self._submitted.add(event.fields["function"]),
            "job_started": self._started,
            "job": self._job,
            "job_requeued": lambda event: self._requeued.add(event.fields["function"]),
            "job_retry": lambda event: self._retried.add(event.fields["function"]),
            "worker": self._worker,
            "start_failed": lambda event: self._failed_starts.add(event.endpoint or OWN),
            "store_failed": lambda event: self._store.add(),
            "rolled": lambda event: self._rolled.add(event.endpoint or OWN),
            "rollout": self._rollout,
            "webhook": lambda event: self._webhooks.add(event.fields["state"]),
            "schedule": self._schedule,
            "internal": lambda event: self._defects.add(),
        }
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def take(self, event: Event) -> None:
        """Count what an event tells."""
        if (taker := self._takers.get(event.name)) is not None:
            taker(event)

    def look_at(self, measured: Measured) -> None:
        """Tell the state of this cluster, too."""
        self._measured = measured

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """What is collected, before there is anything: so the registry need not ask at once."""
        return []

    def collect(self) -> Iterator[Metric]:
        """As the library asks for them."""
        for series in vars(self).values():
            if isinstance(series, Counter | Histogram):
                yield series.family()
        if self._measured is not None:
            yield from standing(self._measured.status())

    def _request(self, event: Event) -> None:
        fields = event.fields
        function = fields["function"] or OWN
        self._requests.add(function, _CLASSES.get(fields["status"] // 100, "none"))
        self._answers.observe(fields["duration_s"], function)

    def _started(self, event: Event) -> None:
        function = event.fields["function"]
        self._attempts.add(function)
        self._waits.observe(event.fields["delay_s"], function)

    def _job(self, event: Event) -> None:
        fields = event.fields
        self._ended.add(fields["function"], str(fields["state"]), str(fields["reason"] or ""))
        self._runs.observe(fields["run_s"] or 0.0, fields["function"])

    def _worker(self, event: Event) -> None:
        fields = event.fields
        if "start_s" not in fields or event.endpoint is None:
            return
        self._starts.add(event.endpoint)
        parts = {name: fields.get(f"{name}_s") or 0.0 for name in ("environment", "import")}
        parts["fixtures"] = sum(fields["fixtures_s"].values())
        parts["process"] = max(0.0, fields["start_s"] - sum(parts.values()))
        for part, seconds in parts.items():
            self._cold.observe(seconds, event.endpoint, part)

    def _rollout(self, event: Event) -> None:
        if event.fields["state"] != "running":
            self._rollouts.add(event.fields["state"])

    def _schedule(self, event: Event) -> None:
        self._schedules.add(event.fields["function"], "started" if "job" in event.fields else "skipped")


_CLASSES = {number: f"{number}xx" for number in range(1, 6)}


def standing(status: dict[str, object]) -> Iterator[Metric]:
    """What a cluster's status says, as gauges."""
    workers = GaugeMetricFamily("flashfw_workers", "Workers that there are.", labels=("endpoint", "state"))
    wanted = GaugeMetricFamily("flashfw_workers_max", "Workers that there may be at most.", labels=E)
    queued = GaugeMetricFamily("flashfw_queue_jobs", "Jobs by what they do.", labels=("function", "doing"))
    held = GaugeMetricFamily("flashfw_calls_waiting", "Jobs and HTTP calls that wait for a worker.", labels=E)
    oldest = GaugeMetricFamily(
        "flashfw_oldest_wait_seconds", "How long the one that waits longest has waited.", labels=E
    )
    for endpoint in status["endpoints"]:  # type: ignore[attr-defined]
        name = endpoint["id"]
        states = Tally(worker["state"] for worker in endpoint["workers"])
        for state in WorkerState:
            workers.add_metric((name, state.value), states[state.value])
        wanted.add_metric((name,), endpoint["workers_max"])
        held.add_metric((name,), endpoint["queued"])
        oldest.add_metric((name,), endpoint["oldest_s"])
        for queue in endpoint["queues"]:
            for doing in ("claimable", "parked", "running"):
                queued.add_metric((queue["function"], doing), queue[doing])
    about = {
        "version": flashfw.__version__,
        "project": str(status["project"]),
        "environment": str(status["environment"]),
    }
    yield from (
        workers,
        wanted,
        queued,
        held,
        oldest,
        InfoMetricFamily("flashfw", "Which server this is.", value=about),
    )
