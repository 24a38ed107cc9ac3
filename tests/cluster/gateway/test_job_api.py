"""Runpod's job API, operation by operation, with workers and a clock that do as they are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.gateway import drains
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.worker.frames import Kind
from tests.cluster.bench import Call, ClusterBench, a_function, an_endpoint, clustering, waits

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0
GONE = "it was never here, or its result_ttl is over"


async def run(bench: ClusterBench, function: str = "gpu") -> str:
    """A job that is stored; its id."""
    return str((await ask(bench, f"/{function}/run", "POST", body=b'{"input": {}}'))["id"])


async def ask(bench: ClusterBench, path: str, method: str = "GET", **more: Any) -> Any:
    call = await bench.call(method, f"/v2{path}", **more)
    with anyio.move_on_after(DEADLINE_S):  # some ask the store several times
        while not call.is_over:
            await bench.settle()
    assert (call.status, call.is_over) == (200, True), call.body
    return json.loads(call.body)


async def begun(bench: ClusterBench) -> None:
    """Once the worker has a call: a file, or much input, takes the store a while."""
    with anyio.fail_after(DEADLINE_S):
        while not bench.workers or not bench.worker.calls:
            await bench.settle()


def refused(call: Call) -> tuple[int, str]:
    return call.status, call.error["reason"]


# Records


async def test_a_record_says_what_is_known_so_far(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.placement.on_start = waits
        job = await run(bench)
        assert await ask(bench, f"/gpu/status/{job}") == {"id": job, "status": "IN_QUEUE"}

        bench.clock.advance(2.0)
        bench.worker.ready()
        await bench.settle()
        running = await ask(bench, f"/gpu/status/{job}", "POST")
        assert (running["status"], running["delayTime"], "output" in running) == ("IN_PROGRESS", 2_000, False)
        bench.worker.progress(b"0.5")
        await bench.settle()
        assert (await ask(bench, f"/gpu/status/{job}"))["output"] == 0.5

        bench.clock.advance(0.25)
        bench.worker.result(body=b'{"a": null}')
        await bench.settle()
        done = await ask(bench, f"/gpu/status/{job}", query="ttl=60000")
        assert done == {**running, "status": "COMPLETED", "executionTime": 250, "output": {"a": None}}


async def test_a_job_that_lost_its_worker_says_how_often_it_was_tried_again(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        job = await run(bench)
        assert "retries" not in await ask(bench, f"/gpu/status/{job}")
        bench.worker.die()
        await bench.advance(3.0)
        assert (await ask(bench, f"/gpu/status/{job}"))["retries"] == 1
        bench.worker.result()
        await bench.settle()

        done = await ask(bench, f"/gpu/status/{job}")
        assert (done["status"], done["retries"], done["delayTime"] > 0) == ("COMPLETED", 1, True)
        health = await ask(bench, "/gpu/health")
        assert health["jobs"] == {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 1}


async def test_status_sync_answers_at_the_end_or_when_its_wait_is_over(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        job = await run(bench)
        short = await bench.call("GET", f"/v2/gpu/status-sync/{job}", query="wait=1000")
        long = await bench.call("GET", f"/v2/gpu/status-sync/{job}")
        await bench.advance(1.5)
        assert (short.is_over, json.loads(short.body)["status"], long.is_over) == (True, "IN_PROGRESS", False)

        bench.worker.result(body=b"7")
        await bench.settle()
        assert json.loads(long.body)["output"] == 7
        assert (await ask(bench, f"/gpu/status-sync/{job}"))["status"] == "COMPLETED"


# Streams


async def stream(bench: ClusterBench, job: str) -> tuple[str, list[Any]]:
    answer = await ask(bench, f"/gpu/stream/{job}")
    return answer["status"], [item["output"] for item in answer["stream"]]


async def until(bench: ClusterBench, job: str, count: int) -> list[Any]:
    """So many items, by as many calls as it takes."""
    items: list[Any] = []
    with anyio.fail_after(DEADLINE_S):
        while len(items) < count:
            items += (await stream(bench, job))[1]
    return items


async def test_a_stream_is_over_with_its_last_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client stops at a terminal state, though chunks may be left: then the state is not told yet."""
    monkeypatch.setattr(drains, "STREAM_BYTES", 10)
    async with clustering(tmp_path, an_endpoint()) as bench:
        job = await run(bench)
        for chunk in (b'"aaaaaa"', b'"bbbbbb"', b'"cccccc"'):
            bench.worker.chunk(chunk)
        bench.worker.result(body=b"[]")
        await bench.settle(20)

        answers = [await stream(bench, job) for _ in range(4)]
        assert [status for status, _ in answers] == ["IN_PROGRESS", "IN_PROGRESS", "COMPLETED", "COMPLETED"]
        assert [[item[0] for item in items] for _, items in answers] == [["a"], ["b"], ["c"], []]


async def test_a_stream_that_fails_gives_its_chunks_before_its_error(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        job = await run(bench)
        bench.worker.chunk(b"1")
        bench.worker.failure(reason="handler_error", type="ValueError", message="no more")
        await bench.settle()

        assert await stream(bench, job) == ("IN_PROGRESS", [1])
        last = await ask(bench, f"/gpu/stream/{job}")
        assert (last["status"], last["stream"], "no more" in last["error"]) == ("FAILED", [], True)


async def test_a_stream_goes_on_where_it_was_with_another_server(tmp_path: Path) -> None:
    def store(clock: ManualClock) -> SqliteStore:
        return SqliteStore(tmp_path / "jobs.sqlite", clock=clock)

    async with clustering(tmp_path, an_endpoint(), store=store) as bench:
        job = await run(bench)
        await begun(bench)
        for number in range(3):
            bench.worker.chunk(str(number).encode())
        await bench.settle()
        assert await until(bench, job, 3) == [0, 1, 2]
        bench.worker.chunk(b"3")
        bench.worker.result(body=b"[]")
        with anyio.fail_after(DEADLINE_S):
            while (await ask(bench, f"/gpu/status/{job}"))["status"] != "COMPLETED":
                await bench.settle()

    async with clustering(tmp_path, an_endpoint(), store=store) as bench:
        assert await stream(bench, job) == ("COMPLETED", [3])
        assert await stream(bench, job) == ("COMPLETED", [])


async def test_a_stream_of_another_attempt_begins_anew(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        job = await run(bench)
        bench.worker.chunk(b"0")
        bench.worker.chunk(b"1")
        await bench.settle()
        assert await stream(bench, job) == ("IN_PROGRESS", [0, 1])
        bench.worker.die()
        await bench.advance(3.0)
        bench.worker.chunk(b"0")
        bench.worker.result(body=b"[0]")
        await bench.settle()

        assert await stream(bench, job) == ("COMPLETED", [0])


# Cancel, retry, purge


async def test_a_cancel_says_how_the_job_ended_however_often_it_comes(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        job = await run(bench)
        assert await ask(bench, f"/gpu/cancel/{job}", "POST") == {"id": job, "status": "CANCELLED"}
        assert await ask(bench, f"/gpu/cancel/{job}", "POST", body=b"{}") == {"id": job, "status": "CANCELLED"}
        assert len(bench.worker.said(Kind.CANCEL)) == 1
        record = await ask(bench, f"/gpu/status/{job}")
        assert record.keys() >= {"id", "status", "workerId", "delayTime", "executionTime"}

        done = await run(bench)
        await bench.advance(0.5)
        bench.worker.result()
        await bench.settle()
        assert await ask(bench, f"/gpu/cancel/{done}", "POST") == {"id": done, "status": "COMPLETED"}
        retry = await bench.call("POST", f"/v2/gpu/retry/{done}")
        assert (refused(retry), "COMPLETED" in retry.error["message"]) == ((409, "not_ended"), True)


async def test_only_what_failed_is_retried(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        job = await run(bench)
        early = await bench.call("POST", f"/v2/gpu/retry/{job}")
        assert (refused(early), "IN_PROGRESS" in early.error["message"]) == ((409, "not_ended"), True)
        bench.worker.failure(reason="handler_error", type="ValueError", message="no")
        await bench.settle()

        assert await ask(bench, f"/gpu/retry/{job}", "POST") == {"id": job, "status": "IN_QUEUE"}
        await bench.settle()
        bench.worker.result(body=b"1")
        await bench.settle()
        assert (await ask(bench, f"/gpu/status/{job}"))["output"] == 1


async def test_jobs_of_another_function_are_unknown(tmp_path: Path) -> None:
    functions = (a_function("gpu"), a_function("gpu/upscale"))
    async with clustering(tmp_path, an_endpoint(functions=functions)) as bench:
        job = await run(bench, "gpu/upscale")
        for operation in ("status", "stream", "status-sync", "cancel", "retry"):
            call = await bench.call("POST", f"/v2/gpu/{operation}/{job}")
            assert (refused(call), call.error["message"]) == ((404, "not_found"), f"gpu has no job {job!r}: {GONE}")
        assert (await ask(bench, f"/gpu/upscale/status/{job}"))["id"] == job


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "run", "POST"),
        ("PUT", "runsync", "POST"),
        ("DELETE", "health", "GET, POST"),
        ("GET", "purge-queue", "POST"),
    ],
)
async def test_other_methods_are_405(tmp_path: Path, method: str, path: str, allow: str) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.call(method, f"/v2/gpu/{path}")
        assert (refused(call), call.headers["allow"]) == ((405, "method"), allow)

        job = await run(bench)
        call = await bench.call("GET", f"/v2/gpu/cancel/{job}")
        assert (refused(call), call.headers["allow"]) == ((405, "method"), "POST")


# Functions that are gone


async def test_jobs_of_a_function_that_is_gone_can_be_looked_at_and_cancelled(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), an_endpoint("other")) as bench:
        job = await run(bench)
        bench.worker.chunk(b"1")
        await bench.settle()
        worker, waiting = bench.worker, await run(bench)
        bench.apply(an_endpoint("other"))
        await bench.settle()

        assert (await ask(bench, f"/gpu/status/{job}"))["status"] == "IN_PROGRESS"
        assert await stream(bench, job) == ("IN_PROGRESS", [1])
        assert (await ask(bench, f"/gpu/cancel/{job}", "POST"))["status"] == "CANCELLED"
        assert [frame.kind for frame in worker.said(Kind.CANCEL)] == [Kind.CANCEL]
        assert (await ask(bench, f"/gpu/cancel/{waiting}", "POST"))["status"] == "CANCELLED"
        assert refused(await bench.call("POST", f"/v2/gpu/retry/{job}")) == (409, "function_gone")
        for path in ("gpu/status/nobody", "gpu/health", f"other/status/{job}"):
            assert refused(await bench.call("GET", f"/v2/{path}")) == (404, "not_found")
        assert refused(await bench.post("/v2/gpu/run", {"input": {}})) == (404, "not_found")


# Names


async def test_the_sdk_may_name_the_function_by_a_header(tmp_path: Path) -> None:
    functions = (a_function("gpu"), a_function("gpu/upscale"), a_function("gpu::crop", route="/gpu/crop"))
    async with clustering(tmp_path, an_endpoint(functions=functions)) as bench:
        for name in ("gpu/upscale", "gpu::crop", "gpu"):
            call = await bench.post("/v2/flash/run", {"input": {}}, x_flash_endpoint=name, x_flash_app="any")
            job = json.loads(call.body)["id"]
            record = await ask(bench, f"/flash/status/{job}", x_flash_endpoint=name)
            assert record["id"] == job
            assert (await ask(bench, f"/{name}/status/{job}"))["id"] == job

        unknown = await bench.post("/v2/flash/run", {"input": {}}, x_flash_endpoint="gpu/upscal")
        hint = (
            "no job function at /v2/flash/run, which X-Flash-Endpoint names 'gpu/upscal'; did you mean /v2/gpu/upscale?"
        )
        assert unknown.error["message"] == hint
        nameless = await bench.post("/v2/flash/run", {"input": {}})
        assert (refused(unknown), refused(nameless)) == ((404, "not_found"), (404, "not_found"))


# Sizes


@pytest.mark.parametrize(
    ("max_body", "operation", "limit"),
    [
        (10_000_000, "run", 10_000_000),
        (10_000_000, "runsync", 20_000_000),
        (1_000, "run", 1_000),
        (1_000, "runsync", 1_000),
        (30_000_000, "run", 30_000_000),
    ],
)
async def test_bodies_have_limits(tmp_path: Path, max_body: int, operation: str, limit: int) -> None:
    async with clustering(tmp_path, an_endpoint(max_body_bytes=max_body)) as bench:
        fits = b'{"input": "' + b"x" * (limit - 13) + b'"}'
        taken = await bench.call("POST", f"/v2/gpu/{operation}", fits)
        await begun(bench)
        call = await bench.call("POST", f"/v2/gpu/{operation}", fits + b" ")

        assert (len(fits), len(bench.worker.calls)) == (limit, 1)
        assert taken.status in (0, 200)
        assert (refused(call), f"({limit} bytes)" in call.error["message"]) == ((413, "too_large"), True)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"inputs": 1}', b"{", b"\xff", b'{"input": NaN}', b"[" * 100_000, b'"\\ud800"']
)
async def test_bodies_that_are_no_request(tmp_path: Path, body: bytes) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        for operation in ("run", "runsync"):
            assert refused(await bench.call("POST", f"/v2/gpu/{operation}", body)) == (400, "validation")
        assert await bench.store.list() == []


@pytest.mark.parametrize("path", ["/gpu", "/v2/gpu/run"])
async def test_compressed_bodies_are_refused(tmp_path: Path, path: str) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.call("POST", path, b"...", content_encoding="gzip")

        assert (refused(call), call.headers["accept-encoding"]) == ((415, "media_type"), "identity")
        assert "Content-Encoding 'gzip'; send it uncompressed" in call.error["message"]
        as_it_is = await bench.call("POST", path, b'{"input": 1}', content_encoding="identity", prefer="respond-async")
        assert as_it_is.status in (200, 202)


@pytest.mark.parametrize("value", [{}, [], None, 0, "", False, {"__empty": True}, {"input": {}}])
async def test_any_input_reaches_the_worker(tmp_path: Path, value: Any) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        await bench.post("/v2/gpu/run", {"input": value})
        ((_, call),) = bench.worker.calls.items()
        assert json.loads(call.body) == value


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2/gpo/run", "no job function at /v2/gpo/run; did you mean /v2/gpu?"),
        ("/v2/nothing/like/it/run", "no job function at /v2/nothing/like/it/run; GET /docs lists what is served"),
        ("/v2/gpo/status/x", "no job function at /v2/gpo/status/x; did you mean /v2/gpu?"),
        (
            "/v2/gpu/runs",
            "no operation of a job function at /v2/gpu/runs; there is run, runsync, health, purge-queue, stat",
        ),
        ("/v2/gpu", "no operation of a job function at /v2/gpu; there is run"),
        ("/v2/gpu/state/x", "no operation of a job function at /v2/gpu/state/x; there is run"),
        ("/v2/api/run", "api is HTTP, which has no jobs: /api takes GET itself"),
        ("/v2/api/status/x", "api is HTTP, which has no jobs: /api takes GET itself"),
    ],
)
async def test_paths_that_are_nearly_right(tmp_path: Path, path: str, words: str) -> None:
    async with clustering(tmp_path, an_endpoint(), an_endpoint("api", kind="http")) as bench:
        call = await bench.call("POST", path, b"{}")
        assert (call.status, call.error["message"][: len(words)]) == (404, words)
