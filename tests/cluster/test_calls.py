"""How a job is called: wait, respond-async, story, and Runpod's API, on one served project."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.served import Served, ended, serving

pytestmark = pytest.mark.anyio

FILES = {
    "endpoints/echo/handler.py": """
        def handler(text: str, times: int = 1) -> str:
            return text * times
        """,
    "endpoints/count/handler.py": """
        import flashfw

        def handler(n: int, job: flashfw.Job):
            for number in range(n):
                job.progress(number)
                yield number
            return "done"
        """,
    "endpoints/bad/handler.py": """
        def handler(how: str):
            if how == "raise":
                raise ValueError("no good")
            return object()
        """,
    "endpoints/stuck/endpoint.toml": "timeout = '5s'\nworkers = 1\n",
    "endpoints/stuck/handler.py": """
        import time

        def handler() -> None:
            time.sleep(60)
        """,
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, dev_environ: dict[str, str]) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("shop"), FILES, environ=dev_environ) as served:
        yield served


@pytest.fixture
def shop(server: Served) -> Served:
    """One server for all tests of this file but those that end it, with the events since the test began."""
    server.events.clear()
    return server


@pytest.fixture
async def alone(tmp_path: Path, dev_environ: dict[str, str]) -> AsyncIterator[Served]:
    """A server that no other test has used, for what is counted."""
    async with serving(tmp_path, FILES, environ=dev_environ) as served:
        yield served


async def test_a_plain_post_waits_for_the_output(shop: Served) -> None:
    answer = await shop.post("/echo", {"text": "ab", "times": 2})

    assert (answer.status_code, answer.json()) == (200, "abab")
    assert answer.headers["content-type"] == "application/json"


async def test_a_caller_may_go_away_with_a_job_id(shop: Served) -> None:
    answer = await shop.post("/echo", {"text": "ab"}, prefer="respond-async")

    assert answer.status_code == 202
    job_id = answer.json()["id"]
    assert f"/v2/echo/status/{job_id}" == answer.headers["location"]
    record = await shop.status(job_id, "echo", until=ended)
    assert (record["status"], record["output"]) == ("COMPLETED", "ab")
    assert {"id", "status", "workerId", "delayTime", "executionTime", "output"} == record.keys()


async def test_a_job_is_read_as_a_story(shop: Served) -> None:
    answer = await shop.post("/count", {"n": 3}, accept="text/event-stream")

    events = [dict(line.split(": ", 1) for line in block.split("\n")) for block in answer.text.strip().split("\n\n")]
    names = [event["event"] for event in events if event["event"] != "progress"]
    assert names == ["queued", "started", "chunk", "chunk", "chunk", "completed"]
    assert json.loads(events[-1]["data"])["output"] == "done"
    numbers = [int(event["id"]) for event in events if "id" in event]
    assert sorted(set(numbers)) == numbers


async def test_a_reader_goes_on_where_it_was_cut_off(shop: Served) -> None:
    job_id = (await shop.post("/v2/count/run", {"input": {"n": 3}})).json()["id"]
    await shop.status(job_id, "count", until=ended)
    whole = (await shop.get(f"/_flashfw/jobs/{job_id}/events")).text
    second = [line for line in whole.split("\n") if line.startswith("id: ")][3].removeprefix("id: ")

    rest = (await shop.get(f"/_flashfw/jobs/{job_id}/events", last_event_id=second)).text

    assert [line.removeprefix("event: ") for line in rest.split("\n") if line.startswith("event: ")] == [
        "chunk",
        "completed",
    ]


async def test_the_vendors_api_runs_streams_and_counts(alone: Served) -> None:
    submitted = await alone.post("/v2/count/run", {"input": {"n": 2}})
    assert submitted.json()["status"] == "IN_QUEUE"
    job_id = submitted.json()["id"]
    await alone.status(job_id, "count", until=ended)

    first = (await alone.get(f"/v2/count/stream/{job_id}")).json()
    second = (await alone.get(f"/v2/count/stream/{job_id}")).json()

    assert first["stream"] == [{"output": 0}, {"output": 1}]
    assert (second["status"], second["stream"]) == ("COMPLETED", [])
    health = (await alone.get("/v2/count/health")).json()
    assert health["jobs"] == {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}
    assert {"idle", "initializing", "ready", "running", "throttled", "unhealthy"} == health["workers"].keys()
    sync = (await alone.post("/v2/echo/runsync", {"input": {"text": "x"}})).json()
    assert (sync["status"], sync["output"]) == ("COMPLETED", "x")


async def test_a_handlers_error_is_answered_whole(shop: Served) -> None:
    answer = await shop.post("/bad", {"how": "raise"})

    error = answer.json()["error"]
    assert (
        answer.status_code,
        error["reason"],
        error["type"],
        error["message"],
    ) == (500, "handler_error", "ValueError", "no good")
    assert "endpoints/bad/handler.py" in error["traceback"]
    assert "flashfw/worker" not in error["traceback"]
    sync = (await shop.post("/v2/bad/runsync", {"input": {"how": "raise"}})).json()
    assert sync["status"] == "FAILED"
    assert json.loads(sync["error"])["error_message"] == "no good"


async def test_an_output_that_cannot_be_encoded_is_an_error(shop: Served) -> None:
    answer = await shop.post("/bad", {"how": "object"})

    assert (answer.status_code, answer.json()["error"]["reason"]) == (500, "encode")


async def test_a_cancelled_job_says_so_to_whoever_waits(shop: Served) -> None:
    job_id = (await shop.post("/v2/stuck/run", {"input": {}})).json()["id"]
    await shop.status(job_id, "stuck", until=lambda record: record["status"] == "IN_PROGRESS")

    cancelled = await shop.post(f"/v2/stuck/cancel/{job_id}", {})
    again = await shop.post(f"/v2/stuck/cancel/{job_id}", {})

    assert [{"id": job_id, "status": "CANCELLED"}] * 2 == [cancelled.json(), again.json()]
    record = (await shop.get(f"/v2/stuck/status/{job_id}")).json()
    assert {"id", "status", "workerId", "delayTime", "executionTime"} <= record.keys()


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status", "words"),
    [
        ("/echo", b"{no json", "application/json", 422, "no JSON"),
        ("/echo", b'{"text": "x"}', "text/plain", 415, "text/plain"),
        ("/echo", b"{}", "application/json", 422, "text: Field required"),
        ("/echo", b'{"text": "x", "tims": 2}', "application/json", 422, "did you mean 'times'"),
        ("/echo", b'{"text": "x", "times": "many"}', "application/json", 422, "times"),
        ("/v2/echo/run", b"{no json", "application/json", 400, "no JSON"),
        ("/v2/echo/run", b'{"text": "x"}', "application/json", 400, '"input"'),
        ("/v2/echo/run", b'{"input": {}, "policy": {"ttl": -1}}', "application/json", 400, "policy.ttl is -1"),
        ("/v2/nope/run", b"{}", "application/json", 404, "/nope/run"),
        ("/v2/echo/status/no-such-job", b"", "application/json", 404, "no-such-job"),
        ("/ecko", b"{}", "application/json", 404, "did you mean /echo?"),
    ],
)
async def test_bad_requests_are_refused_with_their_reason(
    shop: Served, path: str, body: bytes, content_type: str, status: int, words: str
) -> None:
    answer = await shop.client.post(shop.url + path, content=body, headers={"content-type": content_type})

    assert status == answer.status_code
    assert words in answer.json()["error"]["message"]


async def test_the_documents_name_every_function(shop: Served) -> None:
    document = (await shop.get("/openapi.json")).json()

    assert {"/echo", "/count", "/bad", "/stuck"} <= document["paths"].keys()
    assert b"<html" in (await shop.get("/docs")).content.lower()


async def test_foreign_pages_may_not_call(shop: Served) -> None:
    assert (await shop.get("/openapi.json", host="evil.example")).status_code == 403
    assert (await shop.post("/echo", {"text": "x"}, origin="http://evil.example")).status_code == 403


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/_flashfw/status", "/_flashfw/jobs/x/events"])
async def test_the_servers_own_pages_are_only_read(shop: Served, path: str) -> None:
    answer = await shop.post(path, {})

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_only_what_failed_is_retried(shop: Served) -> None:
    failed = (await shop.post("/v2/bad/runsync", {"input": {"how": "raise"}})).json()["id"]
    done = (await shop.post("/v2/echo/runsync", {"input": {"text": "x"}})).json()["id"]
    cancelled = (await shop.post("/v2/stuck/run", {"input": {}})).json()["id"]
    await shop.post(f"/v2/stuck/cancel/{cancelled}", {})

    assert (await shop.post(f"/v2/bad/retry/{failed}", {})).json() == {"id": failed, "status": "IN_QUEUE"}
    record = await shop.status(failed, "bad", until=ended)
    assert (record["status"], (await shop.get("/v2/bad/health")).json()["jobs"]["retried"]) == ("FAILED", 1)
    for path in (f"/v2/echo/retry/{done}", f"/v2/stuck/retry/{cancelled}"):
        refused = await shop.post(path, {})
        assert (refused.status_code, "only FAILED and TIMED_OUT" in refused.text) == (409, True)
