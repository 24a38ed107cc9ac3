"""What a server counts: events in, Prometheus' text out, and the page that lists it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from flashfw.cluster.events import Event
from flashfw.cluster.metrics.metrics import Metrics
from flashfw.cluster.metrics.series import Histogram
from tests.cluster.bench import an_endpoint, clustering

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"

EVENTS = [
    Event("request", None, {"method": "POST", "path": "/gpu", "function": "gpu", "status": 200, "duration_s": 0.2}),
    Event("request", None, {"method": "GET", "path": "/x", "function": None, "status": 404, "duration_s": 0.001}),
    Event("request", None, {"method": "GET", "path": "/gpu", "function": "gpu", "status": 0, "duration_s": 9.0}),
    Event("job_queued", "gpu", {"id": "1", "function": "gpu", "priority": 0}),
    Event("job_started", "gpu", {"id": "1", "function": "gpu", "worker": "w", "attempt": 1, "delay_s": 0.03}),
    Event("job_requeued", "gpu", {"id": "1", "function": "gpu", "why": "x", "deaths": 1, "alone": False}),
    Event("job_retry", "gpu", {"id": "1", "function": "gpu", "attempt": 1, "in_s": 1.0, "error": None}),
    Event("job", "gpu", {"id": "1", "function": "gpu", "state": "COMPLETED", "reason": None, "run_s": 0.3}),
    Event("job", "gpu", {"id": "2", "function": "gpu", "state": "FAILED", "reason": "oom", "run_s": None}),
    Event("worker", "gpu", {"worker": "w", "state": "INITIALIZING", "why": ""}),
    Event(
        "worker",
        "gpu",
        {
            "worker": "w",
            "state": "IDLE",
            "why": "",
            "import_s": 0.5,
            "fixtures_s": {"model": 2.0, "x": 0.5},
            "start_s": 3.5,
            "environment_s": 0.1,
        },
    ),
    Event("start_failed", "gpu", {"worker": "w", "failure": {}, "failures": 1, "retry_in_s": 1.0}),
    Event("store_failed", None, {"error": "disk"}),
    Event("rolled", "gpu", {"release": "x"}),
    Event("rollout", None, {"number": 1, "release": "3f2a", "state": "running", "by": "me"}),
    Event(
        "rollout", None, {"number": 1, "release": "3f2a", "state": "failed", "by": "me", "endpoint": "gpu", "why": "x"}
    ),
    Event("webhook", "gpu", {"id": "1", "url": "https://x", "state": "delivered"}),
    Event("schedule", "gpu", {"function": "gpu", "cron": "* * * * *", "job": "1"}),
    Event("schedule", "gpu", {"function": "gpu", "cron": "* * * * *", "skipped": "overlap"}),
    Event("internal", None, {"where": "x", "error": "y", "traceback": "z"}),
    Event("output", "gpu", {"worker": "w", "job": "1", "stream": "stdout", "text": "hi"}),
]


def counted() -> Metrics:
    metrics = Metrics()
    for event in EVENTS:
        metrics.take(event)
    return metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus itself reads the text."""
    return {
        f"{sample.name}{dict(sorted(sample.labels.items()))}": sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_events_are_counted_by_function_and_not_by_path() -> None:
    found = samples(counted())

    assert found["flashfw_http_requests_total{'function': 'gpu', 'status': '2xx'}"] == 1
    assert found["flashfw_http_requests_total{'function': '-', 'status': '4xx'}"] == 1
    assert found["flashfw_http_requests_total{'function': 'gpu', 'status': 'none'}"] == 1
    assert found["flashfw_jobs_ended_total{'function': 'gpu', 'reason': 'oom', 'state': 'FAILED'}"] == 1
    assert found["flashfw_job_wait_seconds_bucket{'function': 'gpu', 'le': '0.025'}"] == 0
    assert found["flashfw_job_wait_seconds_bucket{'function': 'gpu', 'le': '0.05'}"] == 1
    assert found["flashfw_job_wait_seconds_count{'function': 'gpu'}"] == 1
    assert found["flashfw_schedule_ticks_total{'function': 'gpu', 'outcome': 'skipped'}"] == 1
    assert "/x" not in counted().text().decode()


def test_the_parts_of_a_cold_start_are_the_whole() -> None:
    found = samples(counted())

    parts = {
        part: found[f"flashfw_cold_start_seconds_sum{{'endpoint': 'gpu', 'part': '{part}'}}"]
        for part in ("environment", "process", "import", "fixtures")
    }
    assert parts == {"environment": 0.1, "process": pytest.approx(0.4), "import": 0.5, "fixtures": 2.5}


@pytest.mark.anyio
async def test_a_cluster_is_told_as_it_stands(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        metrics = Metrics()
        metrics.look_at(bench.cluster)
        await bench.post("/gpu", {}, prefer="respond-async")

        found = samples(metrics)

    assert found["flashfw_workers{'endpoint': 'gpu', 'state': 'RUNNING'}"] == 1
    assert found["flashfw_workers{'endpoint': 'gpu', 'state': 'IDLE'}"] == 0
    assert found["flashfw_queue_jobs{'doing': 'running', 'function': 'gpu'}"] == 1
    assert found["flashfw_oldest_wait_seconds{'endpoint': 'gpu'}"] == 0
    assert any(name.startswith("flashfw_info{'environment': 'dev', 'project': 'shop'") for name in found)


@pytest.mark.anyio
async def test_the_page_lists_all_of_them_and_no_others(tmp_path: Path) -> None:
    """Names, kinds and labels of docs/metrics.md are those that a server tells, but for those of its process."""
    async with clustering(tmp_path, an_endpoint()) as bench:
        metrics = counted()
        metrics.look_at(bench.cluster)
        text = metrics.text().decode()

    told = {
        (sample_name(family.name, family.type), family.type, tuple(sorted(labels - {"le"})))
        for family in text_string_to_metric_families(text)
        if family.name.startswith("flashfw")
        for labels in [{label for sample in family.samples for label in sample.labels}]
    }
    rows = re.findall(r"^\| `(flashfw\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text("utf-8"), re.MULTILINE)
    listed = {(name, kind, tuple(sorted(re.findall(r"`(\w+)`", labels)))) for name, kind, labels in rows}
    assert listed == told


def sample_name(family: str, kind: str) -> str:
    return f"{family}_total" if kind == "counter" and not family.endswith("_total") else family


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1))
def test_a_histogram_holds_every_observation_in_each_bucket_that_is_wide_enough(seconds: list[float]) -> None:
    bounds = (0.1, 1.0, 10.0)
    histogram = Histogram("x_seconds", "X.", ("f",), bounds_s=bounds)
    for one in seconds:
        histogram.observe(one, "a")

    found = {sample.labels.get("le"): sample.value for sample in histogram.family().samples}
    assert [found[repr(bound)] for bound in bounds] == [sum(one <= bound for one in seconds) for bound in bounds]
    assert found["+Inf"] == len(seconds)
