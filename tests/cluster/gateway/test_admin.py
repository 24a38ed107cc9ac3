"""What the server's own pages tell of jobs: lists, records, reasons."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.gateway import admin
from flashfw.cluster.gateway.answers import Refused
from flashfw.cluster.gateway.guard import KeyGuard
from tests.cluster.bench import ClusterBench, a_function, an_endpoint, clustering, waits

pytestmark = pytest.mark.anyio

JOBS = "/_flashfw/jobs"


async def read(bench: ClusterBench, path: str, query: str = "") -> Any:
    call = await bench.call("GET", path, query=query)
    assert call.status == 200, call.body
    return json.loads(call.body)


async def ids(bench: ClusterBench, query: str = "") -> list[str]:
    return [job["id"] for job in (await read(bench, JOBS, query))["jobs"]]


async def spawned(bench: ClusterBench, path: str = "/gpu") -> str:
    call = await bench.post(path, {"n": 1}, prefer="respond-async")
    made: str = json.loads(call.body)["id"]
    return made


async def test_jobs_are_listed_newest_first_by_filters_and_in_pages(tmp_path: Path) -> None:
    endpoint = an_endpoint(functions=(a_function("gpu"), a_function("gpu/up")))
    async with clustering(tmp_path, endpoint) as bench:
        first, second, third = await spawned(bench), await spawned(bench, "/gpu/up"), await spawned(bench)

        assert await ids(bench) == [third, second, first]
        assert await ids(bench, "function=gpu") == [third, first]
        assert await ids(bench, "state=in_progress") == [first]
        assert await ids(bench, "state=IN_QUEUE&function=gpu/up") == [second]
        assert await ids(bench, "dead=1") == []
        page = await read(bench, JOBS, "limit=2")
        assert [job["id"] for job in page["jobs"]] == [third, second]
        assert await ids(bench, f"limit=2&before={page['before']}") == [first]
        assert await ids(bench, f"part={first[-8:]}") == [first]


BAD = [
    ("fucntion=gpu", "there is no filter 'fucntion'; did you mean 'function'? it can be function, state, dead"),
    ("state=QUEUED", "state 'QUEUED' is none; did you mean 'IN_QUEUE'? it can be IN_QUEUE, IN_PROGRESS"),
    ("dead=maybe", "dead is 'maybe'; it can be 1, 0"),
    ("limit=0", "limit is '0'; it takes a number from 1 to 1000"),
    ("limit=x", "limit is 'x'; it takes a number from 1 to 1000"),
    ("function=gup", "function 'gup' is not served and has no jobs here; did you mean 'gpu'? it can be gpu"),
    ("part=abc", "part is 'abc'; it takes at least 6 characters of an id"),
    ("part=abcdef&state=FAILED", "state does not go with part; it can be part, limit"),
]


@pytest.mark.parametrize(("query", "message"), BAD, ids=[query for query, _ in BAD])
async def test_a_bad_filter_names_the_allowed_ones(tmp_path: Path, query: str, message: str) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.call("GET", JOBS, query=query)

        assert (call.status, call.error["reason"]) == (400, "validation")
        assert call.error["message"].startswith(message)


values = st.tuples(st.sampled_from(["limit", "state", "dead", "part"]), st.text(max_size=9)).map("=".join)


@given(st.text(max_size=30) | values)
def test_any_other_query_is_refused_in_words(query: str) -> None:
    with contextlib.suppress(Refused):
        asked = admin._filters({"query_string": query.encode("utf-8", "replace")})
        admin._limit(asked.get("limit"))
        admin._state(asked.get("state"))
        admin._flag("dead", asked.get("dead"))


async def test_a_job_is_shown_whole(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        made = await spawned(bench)
        bench.worker.result(body=b'{"n": 2}')
        await bench.settle()
        job = await read(bench, f"{JOBS}/{made}")

        assert (job["id"], job["state"], job["input"], job["output"]) == (made, "COMPLETED", {"n": 1}, {"n": 2})
        assert (job["attempt"], job["deaths"], job["error"], job["dead"]) == (1, 0, None, False)


async def test_a_number_beyond_all_floats_is_null(tmp_path: Path) -> None:
    """JSON has no infinity, and Python writes one that no other reader takes."""
    async with clustering(tmp_path, an_endpoint()) as bench:
        made = await bench.call("POST", "/v2/gpu/run", b'{"input": [1e400, 1.5]}')
        await bench.settle()
        job = await read(bench, f"{JOBS}/{json.loads(made.body)['id']}")

        assert job["input"] == [None, 1.5]


async def test_a_job_tells_why_it_waits_and_what_it_waited_for(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.placement.on_start = waits
        await bench.advance(1.0)
        made = await spawned(bench)
        now = (await read(bench, f"{JOBS}/{made}/why"))["moments"][-1]
        assert now["text"].startswith("waits: 1 worker of gpu starting. It must be ready. It expires in")

        await bench.advance(1.0)
        bench.worker.ready()
        await bench.settle()
        bench.worker.result()
        await bench.settle()
        story = await read(bench, f"{JOBS}/{made}/why")

        assert story["state"] == "COMPLETED"
        assert "of it a cold start" in story["summary"]
        whats = [moment["what"] for moment in story["moments"]]
        assert whats == ["queued", "scale", "worker", "process", "import", "worker", "started", "completed"]


@pytest.mark.parametrize("path", [f"{JOBS}/nope", f"{JOBS}/nope/why", f"{JOBS}/nope/events"])
async def test_an_unknown_job_is_404(tmp_path: Path, path: str) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        call = await bench.call("GET", path)

        assert (call.status, call.error["message"]) == (
            404,
            "there is no job 'nope': it was never here, or its result_ttl is over",
        )


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}/x", f"{JOBS}/x/why", "/_flashfw/status"])
async def test_they_are_reads_and_guarded(tmp_path: Path, path: str) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        assert (await bench.call("POST", path, b"{}")).status == 405
        bench.gateway._guard = KeyGuard("secret")
        assert (await bench.call("GET", path)).status == 401


@pytest.mark.parametrize("path", [f"{JOBS}/", f"{JOBS}/x/nothing", f"/a{JOBS}/x", f"{JOBS}/x/why/more"])
async def test_nothing_else_is_served_there(tmp_path: Path, path: str) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        assert (await bench.call("GET", path)).status == 404
