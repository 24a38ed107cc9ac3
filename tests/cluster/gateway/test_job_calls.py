"""Jobs at a gateway: plain calls, Runpod's API and stories, with callers who wait, leave, or come in vain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import StoreError
from tests.cluster.bench import Call, an_endpoint, breaks, clustering, waits

pytestmark = pytest.mark.anyio


def stories(call: Call) -> list[tuple[str, Any]]:
    """The events of a stream, comments left out."""
    blocks = [block for block in call.body.decode().split("\n\n") if block and not block.startswith(":")]
    fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [(field["event"], json.loads(field["data"])) for field in fields]


# Workers that do not start


async def test_a_plain_call_waits_and_gets_503_with_all_that_is_known(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.placement.on_start = breaks("no weights here")
        call = await bench.post("/gpu", {})
        await bench.advance(1.0)

        assert (call.status, call.error["reason"], call.error["fixture"]) == (503, "startup", "model")
        assert (call.error["place"], call.error["message"]) == ("f.py:1", "no weights here")
        assert "Traceback" in call.error["traceback"]
        record = await bench.call("GET", f"/v2/gpu/status/{call.headers['flashfw-job']}")
        assert (json.loads(record.body)["status"], json.loads(record.body)["reason"]) == ("FAILED", "startup")


async def test_an_unhealthy_endpoint_refuses_who_would_wait_and_accepts_who_would_not(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.placement.on_start = breaks("no weights here")
        await bench.post("/gpu", {}, prefer="respond-async")
        await bench.advance(1.0)
        before = len(await bench.store.list())

        plain = await bench.post("/gpu", {})
        story = await bench.post("/gpu", {}, accept="text/event-stream")
        sync = await bench.post("/v2/gpu/runsync", {"input": {}})
        assert [call.status for call in (plain, story, sync)] == [503, 503, 503]
        assert plain.error["fixture"] == "model"
        assert len(await bench.store.list()) == before

        later = await bench.post("/gpu", {}, prefer="respond-async")
        run = await bench.post("/v2/gpu/run", {"input": {}})
        assert (later.status, run.status) == (202, 200)
        assert len(await bench.store.list()) == before + 2


class Slow(SqliteStore):
    """A store that keeps nothing before `goes_on` is set."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(None, clock=clock)
        self.goes_on = anyio.Event()

    async def submit(self, job: Job, **how: Any) -> Job:
        await self.goes_on.wait()
        return await super().submit(job, **how)


async def test_a_start_that_fails_while_a_job_is_being_kept_is_told_to_its_caller(tmp_path: Path) -> None:
    async with clustering(tmp_path, start_failures=1, store=Slow) as bench:
        assert isinstance(bench.store, Slow)
        bench.placement.on_start = waits
        bench.apply(an_endpoint(workers_min=1))
        await bench.settle()
        call = await bench.post("/gpu", {})
        bench.workers[-1].broken("no weights here")
        await bench.settle()
        bench.store.goes_on.set()
        await bench.settle()

        assert (call.status, call.error["message"]) == (503, "no weights here")


async def test_a_reader_of_a_story_hears_that_no_worker_starts(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), start_failures=1, retries_at_call=True) as bench:
        bench.placement.on_start = breaks("no weights here")
        call = await bench.post("/gpu", {}, accept="text/event-stream")

        assert [name for name, _ in stories(call)] == ["queued", "failed"]
        assert stories(call)[-1][1]["error"]["message"] == "no weights here"


async def test_jobs_that_were_refused_do_not_run_once_it_is_mended(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), start_failures=1, retries_at_call=True) as bench:
        bench.placement.on_start = breaks()
        for _ in range(3):
            assert (await bench.post("/gpu", {})).status == 503
        bench.apply(an_endpoint())
        bench.placement.on_start = lambda process: process.ready()
        call = await bench.post("/gpu", {"mine": 1})

        assert bench.worker.calls[1].body == b'{"mine": 1}'
        bench.worker.result(body=b"1")
        await bench.settle()
        assert (call.status, call.body) == (200, b"1")
        assert bench.worker.calls == {}


# Stores that fail


class Full(SqliteStore):
    """A store that keeps nothing new while `is_full`."""

    is_full = False

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(None, clock=clock)

    async def submit(self, job: Job, **how: Any) -> Job:
        if self.is_full:
            raise StoreError("the job store cannot do it: database or disk is full")
        return await super().submit(job, **how)


@pytest.mark.parametrize("path", ["/gpu", "/v2/gpu/run", "/v2/gpu/runsync"])
async def test_a_full_disk_is_503_and_nothing_is_accepted(tmp_path: Path, path: str) -> None:
    async with clustering(tmp_path, an_endpoint(), store=Full) as bench:
        assert isinstance(bench.store, Full)
        bench.store.is_full = True
        call = await bench.post(path, {"input": {}})

        assert (call.status, call.error["reason"], call.headers["retry-after"]) == (503, "store", "10")
        assert await bench.store.list() == []
        assert bench.cluster.watch.watched() == []


async def test_a_full_queue_is_429(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(max_queue=2)) as bench:
        bench.placement.on_start = waits
        calls = [await bench.post("/v2/gpu/run", {"input": {}}) for _ in range(3)]

        assert [call.status for call in calls] == [200, 200, 429]
        assert calls[2].headers["retry-after"]


# Waiting


async def test_a_call_that_waits_too_long_is_accepted_and_goes_on(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/gpu", {}, prefer="wait=10")
        await bench.advance(9.5)
        assert not call.is_over
        await bench.advance(1.0)

        assert call.status == 202
        assert call.headers["location"] == f"/v2/gpu/status/{call.headers['flashfw-job']}"
        assert len(bench.worker.calls) == 1
        assert bench.cluster.watch.watched() == []


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ({"reason": "validation", "errors": []}, 422, "validation"),
        ({"reason": "handler_error"}, 500, "handler_error"),
        ({"reason": "handler_error", "status": 418}, 418, "handler_error"),
        ({"reason": "encode"}, 500, "encode"),
    ],
)
async def test_what_the_worker_says_decides_the_status(
    tmp_path: Path, how: dict[str, Any], status: int, reason: str
) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/gpu", {})
        bench.workers[-1].failure(**how)
        await bench.settle()

        assert (call.status, call.error["reason"]) == (status, reason)


async def test_a_job_that_is_cancelled_answers_409_to_who_waits(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/gpu", {})
        job_id = bench.workers[-1].calls[1].meta["id"]
        cancel = await bench.call("POST", f"/v2/gpu/cancel/{job_id}")

        assert cancel.status == 200
        assert (call.status, call.error["reason"]) == (409, "cancelled")


# Stories


async def test_a_reader_that_leaves_gives_its_seat_back_though_the_job_goes_on(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/gpu", {}, accept="text/event-stream")
        assert len(bench.cluster.watch.watched()) == 1
        call.leave()
        await bench.settle()

        assert call.is_over
        assert bench.cluster.watch.watched() == []
        assert len(bench.worker.calls) == 1


class Counting(SqliteStore):
    """A store that notes how much each reading of chunks gave."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(None, clock=clock)
        self.given: list[int] = []

    async def chunks(self, job_id: str, **which: Any) -> Any:
        found = await super().chunks(job_id, **which)
        self.given.append(sum(len(chunk.data) for chunk in found))
        return found


async def test_a_slow_reader_of_a_long_story_holds_little_of_it(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), store=Counting) as bench:
        assert isinstance(bench.store, Counting)
        run = await bench.post("/v2/gpu/run", {"input": {}})
        job_id = json.loads(run.body)["id"]
        item = b'"' + b"x" * 20_000 + b'"'
        for _ in range(20):
            bench.workers[-1].chunk(item)
            await bench.settle(2)
        bench.workers[-1].result()
        await bench.settle()
        bench.store.given.clear()
        story = await bench.call("GET", f"/_flashfw/jobs/{job_id}/events")

        assert [name for name, _ in stories(story)] == ["queued", "started", *["chunk"] * 20, "completed"]
        assert max(bench.store.given) <= 250_000


async def test_a_quiet_story_is_kept_alive(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/gpu", {}, accept="text/event-stream")
        await bench.advance(31.0)

        assert call.body.count(b": waiting\n\n") == 2


async def test_who_reads_a_story_does_not_hold_up_the_end_of_a_server(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/gpu", {}, accept="text/event-stream")
        job_id = (await bench.store.list())[0].id
        reader = await bench.call("GET", f"/_flashfw/jobs/{job_id}/events")
        bench.cluster.watch.dismiss_followers()
        await bench.settle()

        assert (reader.is_over, call.is_over) == (True, False)
        assert not reader.body.endswith(b"event: completed")
        [cut] = [event for event in bench.events if event.name == "request" and "cut" in event.fields]
        assert cut.fields["path"].endswith("/events")
        bench.worker.result()
        await bench.settle()
        assert [name for name, _ in stories(call)] == ["queued", "started", "completed"]


async def test_a_story_tells_of_a_second_worker_as_a_restart(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/gpu", {}, accept="text/event-stream")
        bench.worker.chunk(b"1")
        await bench.settle()
        bench.worker.die(1)
        await bench.advance(1.0)
        bench.worker.chunk(b"2")
        await bench.settle()
        bench.worker.result()
        await bench.settle()

        told = [(name, data.get("output")) for name, data in stories(call)]
        assert told == [
            ("queued", None),
            ("started", None),
            ("chunk", 1),
            ("restart", None),
            ("chunk", 2),
            ("completed", "done"),
        ]


# Runpod's stream


async def test_stream_gives_each_item_once_and_waits_no_longer_than_asked(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        run = await bench.post("/v2/gpu/run", {"input": {}})
        path = f"/v2/gpu/stream/{json.loads(run.body)['id']}"
        bench.worker.chunk(b"1")
        await bench.settle()
        first = await bench.call("GET", path)
        second = await bench.call("GET", path, query="wait=3000")
        for _ in range(5):
            bench.worker.progress(b"0.5")  # news, but none that it asked for
            await bench.advance(1.0)

        assert json.loads(first.body)["stream"] == [{"output": 1}]
        assert second.is_over
        assert json.loads(second.body)["stream"] == []
