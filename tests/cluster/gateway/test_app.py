"""The gateway's own answers: every error is JSON and an event, and what cannot be finished is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import StoreError
from tests.cluster.bench import an_endpoint, clustering

pytestmark = pytest.mark.anyio


class Unreadable(SqliteStore):
    """A store whose reads fail once `error` is set."""

    error: Exception | None = None

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(None, clock=clock)

    async def peek(self, job_id: str) -> Job | None:
        if self.error is not None:
            raise self.error
        return await super().peek(job_id)


async def test_a_defect_of_ours_is_a_500_with_its_words_and_an_event_with_its_traceback(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), store=Unreadable) as bench:
        assert isinstance(bench.store, Unreadable)
        bench.store.error = ZeroDivisionError("no such thing")
        call = await bench.call("GET", "/v2/gpu/status/x")

        assert (call.status, call.headers["content-type"]) == (500, "application/json")
        assert call.error == {"reason": "internal", "message": "ZeroDivisionError: no such thing"}
        (internal,) = bench.named("internal")
        assert internal["where"] == "GET /v2/gpu/status/x"
        assert "test_app.py" in internal["traceback"]
        assert bench.named("request")[-1]["status"] == 500


async def test_a_store_that_fails_is_503_and_no_defect(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), store=Unreadable) as bench:
        assert isinstance(bench.store, Unreadable)
        bench.store.error = StoreError("the job store cannot do it: disk I/O error")
        call = await bench.call("GET", "/v2/gpu/status/x")

        assert (call.status, call.error["reason"], call.headers["retry-after"]) == (503, "store", "1")
        assert "disk I/O error" in bench.named("request")[-1]["refused"]
        assert bench.named("internal") == []


async def test_a_story_that_cannot_go_on_is_cut(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), store=Unreadable) as bench:
        assert isinstance(bench.store, Unreadable)
        call = await bench.post("/gpu", {}, accept="text/event-stream")
        bench.store.error = StoreError("the job store cannot do it: disk I/O error")
        bench.workers[-1].chunk(b"1")
        await bench.settle()

        assert (call.status, call.is_whole, call.is_over) == (200, False, True)
        assert "disk I/O error" in bench.named("request")[-1]["cut"]
        assert bench.named("internal") == []


async def test_requests_are_told_with_their_status(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        for method, path in (("GET", "/_flashfw/live"), ("GET", "/nope"), ("GET", "/gpu")):
            await bench.call(method, path)

        told = [
            (fields["path"], fields["status"], {"cut", "refused"} & fields.keys()) for fields in bench.named("request")
        ]
        assert told == [("/_flashfw/live", 200, set()), ("/nope", 404, set()), ("/gpu", 405, set())]


async def test_text_that_is_no_unicode_is_answered_all_the_same(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.post("/v2/gpu/runsync", {"input": {}})
        bench.workers[-1].result(body=b'"\\ud800"')
        await bench.settle()

        assert call.status == 200
        assert b'"\\ud800"' in call.body
