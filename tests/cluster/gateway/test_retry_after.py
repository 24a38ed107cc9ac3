"""`Retry-After` is measured: by how fast jobs and calls are done, or by when the next start is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.bench import an_endpoint, breaks, clustering

pytestmark = pytest.mark.anyio


async def test_a_full_queue_tells_when_a_tenth_of_it_is_done(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(max_queue=40)) as bench:
        for _ in range(41):
            await bench.post("/gpu", {}, prefer="respond-async")
        assert (await bench.post("/gpu", {}, prefer="respond-async")).headers["retry-after"] == "10"  # not known yet
        for _ in range(10):
            await bench.advance(2.0)
            bench.worker.result()
        await bench.settle()
        for _ in range(10):
            await bench.post("/gpu", {}, prefer="respond-async")

        call = await bench.post("/gpu", {}, prefer="respond-async")
        assert (call.status, call.headers["retry-after"]) == (429, "8")  # 4 jobs of 2 s each
        await bench.advance(60.0)
        call = await bench.post("/gpu", {})
        assert (call.status, call.headers["retry-after"]) == (429, "34")  # and nothing was done since


async def test_held_calls_that_are_too_many_are_told_by_the_pace_of_calls(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint("api", kind="http", max_queue=100, concurrency=1)) as bench:
        calls = [await bench.call("GET", "/api") for _ in range(101)]
        for _ in range(10):
            await bench.advance(1.0)
            bench.worker.head()
        await bench.settle()
        calls += [await bench.call("GET", "/api") for _ in range(11)]

        assert (calls[-1].status, calls[-1].headers["retry-after"]) == (429, "9")


async def test_workers_that_do_not_start_tell_when_the_next_try_is(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), start_failures=1) as bench:
        bench.placement.on_start = breaks()
        await bench.post("/gpu", {}, prefer="respond-async")
        for _ in range(4):
            await bench.advance(8.0)
        retry_in_s = bench.named("start_failed")[-1]["retry_in_s"]
        call = await bench.post("/gpu", {})

        assert call.status == 503
        assert 1 <= int(call.headers["retry-after"]) <= retry_in_s
        assert retry_in_s >= 8
