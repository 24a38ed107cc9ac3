from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from flashfw.client.client import Client, JobHandle
from flashfw.client.failures import (
    AmbiguousJobError,
    CallFailedError,
    StillRunningError,
    UnknownFunctionError,
    UnknownJobError,
)
from flashfw.client.options import CallOptions, headers
from flashfw.client.statuses import JobStatus
from flashfw.errors import Exit, JobFailedError, TargetError, UsageError
from tests.client.server import Wire


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as opened:
        yield opened


def test_call_answers_the_output(client: Client) -> None:
    assert client.call("echo", {"a": [1, "zwei", None]}) == {"a": [1, "zwei", None]}


def test_call_by_the_id_of_a_method(client: Client) -> None:
    assert client.call("tools::shout", {"text": "hello"}) == "HELLO"


def test_a_handler_that_raises_is_an_error_with_its_traceback(client: Client) -> None:
    with pytest.raises(JobFailedError, match="fail .*the handler raised: ValueError: no luck with 7") as caught:
        client.call("fail", {"number": 7})

    error = caught.value
    assert isinstance(error, CallFailedError)
    assert (error.reason, error.type, error.message) == ("handler_error", "ValueError", "no luck with 7")
    assert "Traceback" in error.traceback
    assert error.job
    assert error.exit is Exit.FAILED


def test_input_that_does_not_fit_names_the_field(client: Client) -> None:
    with pytest.raises(CallFailedError, match="the input does not fit: n: ") as caught:
        client.call("strict", {"n": "x"})

    assert caught.value.reason == "validation"


def test_an_unknown_function_has_a_suggestion(client: Client) -> None:
    with pytest.raises(UnknownFunctionError, match="no function 'ecco'.*did you mean 'echo'") as caught:
        client.call("ecco", {})

    assert caught.value.exit is Exit.NOTHING


@pytest.mark.parametrize(
    "text", ["", "../v2/echo/purge-queue", "v2/echo/purge-queue", "echo?x=1", "/echo", "a//b", "\n"]
)
def test_what_can_be_no_id_is_not_sent(client: Client, text: str) -> None:
    with pytest.raises(UnknownFunctionError, match="no id of a function; ids are such as gpu/upscale"):
        client.call(text)


def test_nobody_listening_says_where_and_what_to_do() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with Client(url) as client, pytest.raises(TargetError, match="flashfw dev") as caught:
            client.call("echo", {})

    assert url in str(caught.value)
    assert caught.value.exit is Exit.TARGET


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/_flashfw/jobs/1/files/o1", "//127.0.0.1:1/x", "/api", 1])
def test_only_files_of_the_server_are_fetched_since_the_key_goes_with_it(url: object, tmp_path: Path) -> None:
    with Client("http://127.0.0.1:1", key="secret") as client, pytest.raises(UsageError, match="no file of a job"):
        client.download({"$file": url}, tmp_path)


def test_a_spawned_job_is_watched_and_awaited(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "key"
    job = client.spawn("gate", {"file": str(file)})
    first = next(event for event in job.events() if event.name == "progress")

    assert first.data == {"value": "no key yet"}
    assert job.status().status == "IN_PROGRESS"
    assert job.status().output == "no key yet"
    file.touch()
    assert job.result(30) == "open"
    assert job.result() == "open"
    status = job.status()
    assert status == JobStatus(
        id=job.id,
        status="COMPLETED",
        output="open",
        delay_ms=status.delay_ms,
        execution_ms=status.execution_ms,
        worker=status.worker,
    )
    assert status.is_terminal


def test_a_wait_that_is_too_short_leaves_the_job_running(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(StillRunningError, match=r"gate \(job .*not done after 0\.2 s") as caught:
        client.call("gate", {"file": str(file)}, wait_s=0.2)
    with pytest.raises(StillRunningError):
        client.call("gate", {"file": str(file)}, wait_s=0)

    file.touch()
    assert client.job(caught.value.job).result(30) == "open"


def test_a_cancelled_job_ends_so(client: Client, tmp_path: Path) -> None:
    job = client.spawn("gate", {"file": str(tmp_path / "never")})

    assert job.cancel().status == "CANCELLED"
    with pytest.raises(CallFailedError, match="it was cancelled") as caught:
        job.result(30)
    assert caught.value.reason == "cancelled"
    assert job.cancel().status == "CANCELLED"


def test_stream_gives_each_item(client: Client) -> None:
    job = client.spawn("count", {"n": 4})

    assert list(job.stream()) == [0, 1, 2, 3]
    assert job.result() == [0, 1, 2, 3]


def test_stream_of_a_job_that_fails_raises(client: Client) -> None:
    job = client.spawn("fail", {"number": 1})

    with pytest.raises(CallFailedError, match="ValueError: no luck with 1"):
        list(job.stream())
    assert (job.status().error or {})["type"] == "ValueError"


def test_events_tell_the_story_in_order(client: Client) -> None:
    job = client.spawn("count", {"n": 2})
    names = [event.name for event in job.events() if event.name not in ("log", "progress")]

    assert names == ["queued", "started", "chunk", "chunk", "completed"]


def test_health_counts_jobs_and_workers(client: Client) -> None:
    client.call("echo", {})
    health = client.health("echo")

    assert health["jobs"]["completed"] >= 1
    assert set(health["workers"]) == {"idle", "initializing", "ready", "running", "throttled", "unhealthy"}


def test_an_unknown_job_says_where_it_was_looked_for(client: Client) -> None:
    with pytest.raises(UnknownJobError, match="has no job 'nothing'; it was never there.*flashfw jobs list") as caught:
        client.job("nothing")
    assert client.url in str(caught.value)
    assert caught.value.exit is Exit.NOTHING

    with pytest.raises(UnknownJobError, match="has no job 'gone-x' of echo"):
        JobHandle(client, "echo", "gone-x").status()
    with pytest.raises(UnknownJobError):
        JobHandle(client, "echo", "gone-x").result(5)


def test_a_job_is_found_by_any_part_of_its_id_that_no_other_has(client: Client) -> None:
    first, second = client.spawn("echo", {}), client.spawn("echo", {})
    common = os.path.commonprefix([first.id, second.id])

    assert client.job(second.id[-6:]).id == second.id
    assert client.job(first.id).id == first.id
    with pytest.raises(UnknownJobError, match="too short"):
        client.job("0-jo")
    with pytest.raises(AmbiguousJobError, match="is a part of several ids: .*give more of it") as caught:
        client.job(common[:6])
    assert caught.value.exit is Exit.USAGE


def test_jobs_are_listed_newest_first_over_pages(client: Client) -> None:
    made = [client.spawn("strict", {"n": n}).id for n in range(3)]

    assert [record["id"] for record in client.jobs(function="strict", limit=2)] == made[:0:-1]
    assert {record["function"] for record in client.jobs(function="strict")} == {"strict"}


def test_why_tells_moments(client: Client) -> None:
    job = client.spawn("echo", {})
    job.result(30)

    assert job.why()["moments"][0]["what"] == "queued"
    assert client.why(job.id)["id"] == job.id


def test_only_what_failed_is_tried_again(client: Client) -> None:
    failed, done = client.spawn("fail", {"number": 1}), client.spawn("echo", {})
    with pytest.raises(CallFailedError):
        failed.result(30)
    done.result(30)

    assert client.retry(failed.id).status == "IN_QUEUE"
    with pytest.raises(TargetError, match="409.*COMPLETED"):
        done.retry()


def test_progress_is_the_latest_of_a_running_job(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "key"
    job = client.spawn("gate", {"file": str(file)})
    next(event for event in job.events() if event.name == "progress")

    assert job.progress() == "no key yet"
    file.touch()
    assert job.result(30) == "open"
    assert job.progress() is None


def test_options_travel_as_headers(wire: Wire, wire_url: str) -> None:
    with Client(wire_url) as client:
        job = client.spawn(
            "echo", {}, timeout_s=90, ttl_s=0.5, priority="low", webhook="http://x/y", idempotency_key="k"
        )
        client.call("echo", {}, timeout_s=1e7)

    sent = wire.jobs[job.id].headers
    assert {name: text for name, text in sent.items() if name.startswith("flashfw-") or name == "idempotency-key"} == {
        "flashfw-timeout": "90",
        "flashfw-ttl": "0.5",
        "flashfw-priority": "low",
        "flashfw-webhook": "http://x/y",
        "idempotency-key": "k",
    }
    assert list(wire.jobs.values())[-1].headers["flashfw-timeout"] == "10000000"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"timeout_s": "30s"}, "timeout_s is '30s'; it takes a number of seconds"),
    ({"ttl_s": float("inf")}, "ttl_s is inf"),
    ({"priority": 1}, "priority is 1; it takes low, normal, high"),
    ({"idempotency_key": "a\nb"}, "idempotency_key is 'a\\\\nb'; it takes printable ASCII"),
    ({"timeout": 3}, "there is no option 'timeout'; it can be timeout_s, ttl_s"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(options) for options, _ in WRONG])
def test_options_of_a_wrong_kind_are_refused_before_anything_is_sent(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        headers(cast(CallOptions, options))


def test_options_out_of_range_are_the_callers_mistake(gateway_url: str) -> None:
    with Client(gateway_url) as client, pytest.raises(UsageError, match="echo: Flashfw-Ttl is '1'; it takes 10s to 7d"):
        client.call("echo", {}, ttl_s=1)


def test_an_input_that_is_too_large_is_no_result_that_is(gateway_url: str) -> None:
    with Client(gateway_url) as client, pytest.raises(TargetError, match="413 for echo: the body is larger"):
        client.call("echo", {"text": "x" * 10_000_001})


def test_a_story_goes_on_where_its_connection_broke(wire: Wire, wire_url: str) -> None:
    wire.cut_after = 2
    before = wire.connections
    try:
        with Client(wire_url) as client:
            assert list(client.spawn("count", {"n": 5}).stream()) == [0, 1, 2, 3, 4]
    finally:
        wire.cut_after = None

    assert wire.connections == before + 4


def test_a_story_goes_on_once_its_server_is_back(wire: Wire, wire_url: str) -> None:
    wire.connections = 0
    wire.cut_after, wire.refused = 2, 2
    try:
        with Client(wire_url) as client:
            assert list(client.spawn("count", {"n": 3}).stream()) == [0, 1, 2]
    finally:
        wire.cut_after, refused = None, wire.refused

    assert refused == 0


def test_a_story_whose_server_stays_away_is_an_error(
    wire: Wire, wire_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashfw.client.client._RECONNECT_S", (0.0, 0.0))
    wire.connections = 0
    wire.cut_after, wire.refused = 2, 3
    try:
        with Client(wire_url) as client, pytest.raises(TargetError, match="503.*starting anew"):
            list(client.spawn("count", {"n": 3}).stream())
    finally:
        wire.cut_after, wire.refused = None, 0


def test_a_story_that_says_nothing_is_an_error(wire: Wire, wire_url: str) -> None:
    wire.cut_after = 0
    try:
        with Client(wire_url) as client, pytest.raises(TargetError, match="before the job"):
            client.spawn("count", {"n": 5}).result(5)
    finally:
        wire.cut_after = None


def test_refusals_of_the_server_are_no_failures_of_a_job(wire_url: str) -> None:
    with Client(wire_url) as client, pytest.raises(TargetError, match="429 for busy: 10000 jobs.*again in 7 s"):
        client.call("busy", {})


def test_a_start_that_failed_says_so_with_its_traceback(wire_url: str) -> None:
    with Client(wire_url) as client, pytest.raises(CallFailedError, match="no worker could start: OSError") as caught:
        client.spawn("broken", {})

    assert caught.value.traceback == "Traceback ..."
