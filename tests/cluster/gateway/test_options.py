"""What a caller may ask for one job, by headers and in the body of Runpod's API; and jobs that are asked for twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.gateway.answers import Refused
from flashfw.cluster.gateway.options import of_headers, of_request
from flashfw.cluster.jobs.making import Options, input_digest
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.webhooks.sending import Sending
from flashfw.cluster.webhooks.signing import new_secret
from tests.cluster.bench import Call, ClusterBench, an_endpoint, breaks, clustering, waits

pytestmark = pytest.mark.anyio

KEY = "Idempotency-Key"


async def only_job(bench: ClusterBench) -> Job:
    (job,) = await bench.store.list()
    return job


def record(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call.body)
    return found


# What is taken


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        ({}, Options()),
        ({"flashfw-timeout": "30s"}, Options(timeout_s=30.0)),
        ({"flashfw-timeout": "30"}, Options(timeout_s=30.0)),
        ({"flashfw-timeout": "5000ms"}, Options(timeout_s=5.0)),
        ({"flashfw-timeout": "1.5 m"}, Options(timeout_s=90.0)),
        ({"flashfw-ttl": "7d"}, Options(ttl_s=604_800.0)),
        ({"flashfw-priority": "low"}, Options(priority=-1)),
        ({"flashfw-priority": "High"}, Options(priority=1)),
        ({"flashfw-webhook": "https://example.com/x?y=1"}, Options(webhook="https://example.com/x?y=1")),
        ({"idempotency-key": " order 17 "}, Options(idempotency_key="order 17")),
    ],
)
def test_headers_of_a_plain_post(headers: dict[str, str], options: Options) -> None:
    assert of_headers(Call("POST", "/gpu", headers).scope, local_webhooks=True) == options


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({}, Options()),
        ({"policy": None, "webhook": None}, Options()),
        ({"policy": {"executionTimeout": 5_000, "ttl": 10_000.0}}, Options(timeout_s=5.0, ttl_s=10.0)),
        ({"policy": {"lowPriority": True}}, Options(priority=-1)),
        ({"policy": {"lowPriority": False, "more": 1}, "s3Config": {}, "webhookV2": 1}, Options()),
        ({"webhook": "http://127.0.0.1:9/"}, Options(webhook="http://127.0.0.1:9/")),
    ],
)
def test_fields_of_a_request(body: dict[str, Any], options: Options) -> None:
    assert of_request(Call("POST", "/v2/gpu/run", {}).scope, body, local_webhooks=True) == options


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["flashfw-timeout", "flashfw-ttl", "flashfw-priority", "flashfw-webhook", "idempotency-key"]


@given(
    st.dictionaries(
        st.sampled_from(NAMES), st.binary(max_size=40) | st.from_regex(rb"[0-9.]{1,5}(ms|s|m|h|d)?"), max_size=5
    )
)
def test_headers_are_options_or_refused(given_ones: dict[str, bytes]) -> None:
    scope = Call("POST", "/gpu", {}).scope
    scope["headers"] = [(name.encode(), value) for name, value in given_ones.items()]
    options = outcome(lambda: of_headers(scope, local_webhooks=True))

    if isinstance(options, Refused):
        wrong = {error["loc"][1].lower() for error in options.body["error"]["errors"]}
        assert (options.status, bool(wrong), wrong <= given_ones.keys()) == (422, True, True)
    else:
        assert options.timeout_s is None or 5.0 <= options.timeout_s <= 604_800.0
        assert options.ttl_s is None or 10.0 <= options.ttl_s <= 604_800.0
        assert options.priority in (-1, 0, 1)


@given(
    st.fixed_dictionaries(
        {"webhook": JSON},
        optional={"policy": JSON | st.fixed_dictionaries({"ttl": JSON, "executionTimeout": JSON, "lowPriority": JSON})},
    )
)
def test_fields_are_options_or_refused(body: dict[str, Any]) -> None:
    options = outcome(lambda: of_request(Call("POST", "/v2/gpu/run", {}).scope, body, local_webhooks=True))

    if isinstance(options, Refused):
        assert (options.status, bool(options.body["error"]["errors"])) == (400, True)


def outcome(read: Callable[[], Options]) -> Options | Refused:
    try:
        return read()
    except Refused as refused:
        return refused


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_a_webhook_to_this_machine_is_refused_where_none_is_sent_there(tmp_path: Path, is_allowed: bool) -> None:
    here = "http://127.0.0.1:9/done"
    sending = Sending(secret=new_secret(), allow_loopback=is_allowed)
    async with clustering(tmp_path, an_endpoint(), webhooks=sending) as bench:
        plain = await bench.post("/gpu", {}, prefer="respond-async", **{"flashfw-webhook": here})
        run = await bench.post("/v2/gpu/run", {"input": {}, "webhook": here})

        assert [plain.status, run.status] == ([202, 200] if is_allowed else [422, 400])
        assert is_allowed or "no address of the public internet" in record(run)["error"]["message"]
        assert len(await bench.store.list()) == (2 if is_allowed else 0)


async def test_options_are_the_jobs_own(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        headers = {"flashfw-timeout": "30s", "flashfw-ttl": "10m", "flashfw-priority": "high", "idempotency-key": "k"}
        await bench.post("/gpu", {}, **headers, flashfw_webhook="https://example.com/")
        job = await only_job(bench)

        assert (job.timeout_s, job.expires_at - job.submitted_at, job.priority) == (30.0, 600.0, 1)
        assert (job.webhook, job.idempotency_key) == ("https://example.com/", "k")


async def test_more_urgent_jobs_go_first(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.placement.on_start = waits
        for name in ("low", "normal", "high"):
            await bench.post("/gpu", name, prefer="respond-async", flashfw_priority=name)
        await bench.post("/v2/gpu/run", {"input": "v2 low", "policy": {"lowPriority": True}})
        bench.worker.ready()
        for name in ("high", "normal", "low", "v2 low"):
            await bench.settle()
            ((number, call),) = bench.worker.calls.items()
            assert json.loads(call.body) == name
            bench.worker.result(number, b"1")


# What is refused


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("flashfw-timeout", "soon", "Flashfw-Timeout is 'soon'; it takes a duration such as"),
        ("flashfw-timeout", "4s", "Flashfw-Timeout is '4s'; it takes 5s to 7d"),
        ("flashfw-timeout", "-5", "Flashfw-Timeout is '-5'"),
        ("flashfw-timeout", "1e3", "Flashfw-Timeout is '1e3'"),
        ("flashfw-timeout", "\u0663\u0660", "Flashfw-Timeout is"),
        ("flashfw-timeout", "9" * 5_000, "Flashfw-Timeout is"),
        ("flashfw-ttl", "8d", "Flashfw-Ttl is '8d'; it takes 10s to 7d"),
        ("flashfw-ttl", "", "Flashfw-Ttl is ''"),
        ("flashfw-priority", "5", "Flashfw-Priority is '5'; it takes low, normal or high"),
        ("flashfw-webhook", "example.com", "Flashfw-Webhook is 'example.com'"),
        ("flashfw-webhook", "ftp://example.com/", "Flashfw-Webhook is 'ftp://example.com/'"),
        ("flashfw-webhook", "https://u:p@example.com/", "Flashfw-Webhook is"),
        ("flashfw-webhook", "https:///x", "Flashfw-Webhook is"),
        ("flashfw-webhook", "http://[::1", "Flashfw-Webhook is"),
        ("idempotency-key", "", "Idempotency-Key has 0 characters; it takes 1 to 255"),
        ("idempotency-key", "k" * 256, "Idempotency-Key has 256 characters"),
        (
            "idempotency-key",
            "\u00e9",
            "Idempotency-Key holds '\u00e9'; it takes 1 to 255 characters of printable ASCII",
        ),
    ],
)
async def test_a_header_that_is_wrong(tmp_path: Path, name: str, value: str, words: str) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/gpu", {}, **{name: value})

        assert (call.status, call.error["reason"], words in call.error["message"]) == (422, "validation", True)
        assert call.error["errors"][0]["loc"][0] == "header"
        assert await bench.store.list() == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"policy": []}, "policy must be an object"),
        ({"policy": 0}, "policy must be an object"),
        ({"policy": {"ttl": 9_999}}, "policy.ttl is 9999; it takes milliseconds from 10000 to 604800000"),
        ({"policy": {"executionTimeout": 4_999}}, "policy.executionTimeout is 4999"),
        ({"policy": {"executionTimeout": "5000"}}, "policy.executionTimeout is '5000'"),
        ({"policy": {"executionTimeout": 1e400}}, "policy.executionTimeout is inf"),
        ({"policy": {"lowPriority": "yes"}}, "policy.lowPriority is 'yes'; it takes true or false"),
        ({"policy": {"lowPriority": 1}}, "policy.lowPriority is 1"),
        ({"webhook": 1}, "webhook is 1; it takes a URL"),
        ({"webhook": ""}, "webhook is ''"),
        ({"webhook": "x" * 5_000}, "webhook is"),
    ],
)
async def test_a_field_that_is_wrong(tmp_path: Path, body: dict[str, Any], words: str) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        text = json.dumps({"input": {}, **body}).replace("Infinity", "1e400").encode()
        call = await bench.call("POST", "/v2/gpu/run", text)

        assert (call.status, call.error["reason"], words in call.error["message"]) == (400, "validation", True)
        assert await bench.store.list() == []


async def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        policy = {"ttl": 1, "executionTimeout": 1, "lowPriority": "no"}
        call = await bench.post("/v2/gpu/run", {"input": {}, "policy": policy, "webhook": 2}, idempotency_key="")
        plain = await bench.post("/gpu", {}, flashfw_ttl="1", flashfw_priority="most")

        fields = [error["loc"] for error in call.error["errors"]]
        named = [["body", "policy", "executionTimeout"], ["body", "policy", "ttl"], ["body", "policy", "lowPriority"]]
        assert fields == [*named, ["body", "webhook"], ["header", KEY]]
        assert [error["loc"][1] for error in plain.error["errors"]] == ["Flashfw-Ttl", "Flashfw-Priority"]


# Asked for twice


def test_a_digest_is_of_what_the_input_says() -> None:
    same = [b'{"a": [1, 2], "b": {"c": null}}', b'{"b":{"c":null},"a":[1,2]}', b' {"a" : [1,2],"b" : {"c":null} }']

    assert len({input_digest(body) for body in same}) == 1
    assert len({input_digest(body) for body in (b"", b"{}", b'{"__empty": true}')}) == 1
    assert len({input_digest(body) for body in (b"[1,2]", b"[2,1]", b'"1"', b"1", b"null", b"{}", b'"\\ud800"')}) == 7


async def test_duplicates_wait_on_the_same_job(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        first = await bench.post("/gpu", {"a": 1, "b": 2}, idempotency_key="k")
        second = await bench.call("POST", "/gpu", b'{"b":2,"a":1}', idempotency_key="k")
        third = await bench.post("/v2/gpu/runsync", {"input": {"b": 2, "a": 1}}, idempotency_key="k")
        story = await bench.post("/gpu", {"a": 1, "b": 2}, idempotency_key="k", accept="text/event-stream")
        run = await bench.post("/v2/gpu/run", {"input": {"a": 1, "b": 2}}, idempotency_key="k")
        later = await bench.post("/gpu", {"a": 1, "b": 2}, idempotency_key="k", prefer="respond-async")
        assert not first.is_over | second.is_over | third.is_over | story.is_over
        bench.worker.result(body=b'"done"')
        await bench.settle()

        job = await only_job(bench)
        assert [(call.status, call.body) for call in (first, second)] == [(200, b'"done"')] * 2
        assert (record(third)["id"], record(third)["output"]) == (job.id, "done")
        assert b"event: completed" in story.body
        assert (record(run), later.status) == ({"id": job.id, "status": "IN_PROGRESS"}, 202)
        assert "idempotency-replayed" not in first.headers
        assert {call.headers["idempotency-replayed"] for call in (second, third, run, later)} == {"true"}


async def test_an_ended_job_answers_again(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        failed = await bench.post("/gpu", {}, idempotency_key="k")
        bench.worker.failure(reason="handler_error", type="ValueError", message="no such image")
        await bench.settle()
        again = await bench.call("POST", "/gpu", idempotency_key="k")
        sync = await bench.post("/v2/gpu/runsync", {"input": {"__empty": True}}, idempotency_key="k")
        run = await bench.post("/v2/gpu/run", {"input": {}}, idempotency_key="k")

        assert (failed.status, again.status, again.body == failed.body) == (500, 500, True)
        assert (record(sync)["status"], "no such image" in record(sync)["error"]) == ("FAILED", True)
        assert record(run)["status"] == "FAILED"
        assert len(bench.worker.calls) == 0


async def test_an_ended_job_answers_again_though_no_worker_starts(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.placement.on_start = breaks()
        made = await bench.post("/v2/gpu/run", {"input": {"a": 1}}, idempotency_key="k")
        await bench.advance(1.0)
        waiting = await bench.post("/gpu", {"a": 1}, idempotency_key="k")
        await bench.call("POST", f"/v2/gpu/cancel/{record(made)['id']}")

        again = await bench.post("/gpu", {"a": 1}, idempotency_key="k")
        sync = await bench.post("/v2/gpu/runsync", {"input": {"a": 1}}, idempotency_key="k")
        conflict = await bench.post("/gpu", {"a": 2}, idempotency_key="k")
        fresh = await bench.post("/gpu", {"a": 1}, idempotency_key="l")

        assert [call.status for call in (waiting, again, conflict, fresh)] == [503, 409, 409, 503]
        assert (again.error["reason"], again.headers["idempotency-replayed"]) == ("cancelled", "true")
        assert (record(sync)["status"], conflict.error["reason"]) == ("CANCELLED", "idempotency_conflict")
        await only_job(bench)


async def test_who_waits_by_the_key_of_a_job_is_told_that_no_worker_starts(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.placement.on_start = waits
        await bench.post("/v2/gpu/run", {"input": {"a": 1}}, idempotency_key="k")  # whose caller is gone
        waiting = await bench.post("/gpu", {"a": 1}, idempotency_key="k")
        for _ in range(3):
            assert not waiting.is_over
            bench.worker.broken()
            await bench.advance(0.5)

        assert waiting.status == 503


async def test_a_key_with_another_input_is_a_conflict(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        await bench.post("/gpu", {"a": 1}, idempotency_key="k")
        calls = [
            await bench.post("/gpu", {"a": 2}, idempotency_key="k"),
            await bench.post("/v2/gpu/run", {"input": {"a": 2}}, idempotency_key="k"),
            await bench.post("/v2/gpu/runsync", {"input": {"a": 2}}, idempotency_key="k"),
        ]
        other = await bench.post("/v2/gpu/run", {"input": {"a": 2}}, idempotency_key="l")

        assert [(call.status, call.error["reason"]) for call in calls] == [(409, "idempotency_conflict")] * 3
        assert "idempotency key 'k' of gpu" in calls[0].error["message"]
        assert other.status == 200


async def test_duplicates_that_come_at_once_are_one_job(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(concurrency=8)) as bench:
        calls = await asyncio.gather(*(bench.post("/gpu", {"a": 1}, idempotency_key="k") for _ in range(20)))
        ((number, _),) = bench.worker.calls.items()
        bench.worker.result(number, b"7")
        await bench.settle()

        assert {(call.status, call.body) for call in calls} == {(200, b"7")}
        assert sum("idempotency-replayed" not in call.headers for call in calls) == 1
        await only_job(bench)


async def test_a_duplicate_hears_that_no_worker_starts(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), start_failures=1) as bench:
        bench.placement.on_start = waits
        calls = [await bench.post("/gpu", {}, idempotency_key="k") for _ in range(2)]
        bench.placement.on_start = breaks()
        bench.worker.broken("no weights here")
        await bench.settle()

        assert [call.status for call in calls] == [503, 503]
