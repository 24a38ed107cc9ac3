"""Results of functions that anybody may call, read without a key by the id of the job."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flashfw.cluster.gateway.app import Gateway
from flashfw.cluster.gateway.guard import KeyGuard
from flashfw.cluster.gateway.intake import Intake
from flashfw.worker import files
from tests.cluster.bench import ClusterBench, a_function, an_endpoint, clustering

pytestmark = pytest.mark.anyio

KEY = "Bearer secret"


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[ClusterBench]:
    """A server with a key, one function that needs it and one that does not."""
    endpoints = [an_endpoint(name, functions=(a_function(name, public=name == "open"),)) for name in ("open", "shut")]
    async with clustering(folder, *endpoints) as bench:
        intake = Intake(bench.cluster.watch, bench.clock, bench.store)
        bench.gateway = Gateway(
            bench.cluster, intake=intake, store=bench.store, guard=KeyGuard("secret"), emit=bench.events.append
        )
        yield bench


async def done(bench: ClusterBench, name: str) -> str:
    """A job that has ended, with one file that came and one that it answers with; its id."""
    call = await bench.post(f"/{name}", {}, prefer="respond-async", authorization=KEY)
    await finish(bench, job := call.headers["flashfw-job"])
    return job


async def finish(bench: ClusterBench, job: str) -> None:
    folder = bench.cluster.job_files.folder / job
    folder.mkdir(parents=True)
    for entry in ("i0", "o0"):
        (folder / entry).write_text(entry)
        files.note(folder, entry, files.Particulars("a.txt", "text/plain", 2))
    bench.workers[-1].result(body=json.dumps({"$file": files.url(job, "o0")}).encode())
    await bench.settle()


async def test_who_called_a_public_function_reads_its_result_by_the_jobs_id(tmp_path: Path) -> None:
    async with guarded(tmp_path) as bench:
        called = await bench.post("/open", {}, prefer="respond-async")
        waiting = await bench.call("GET", called.headers["location"])
        await finish(bench, job := called.headers["flashfw-job"])
        reads = [await bench.call("GET", f"/v2/open/{verb}/{job}") for verb in ("status", "status-sync", "stream")]
        record = json.loads(reads[0].body)
        file = await bench.call("GET", record["output"]["$file"])
        head = await bench.call("HEAD", record["output"]["$file"])
        await bench.until(lambda: file.is_whole and head.is_whole)  # a file is read on a thread

    assert [called.status, waiting.status] == [202, 200]
    assert [call.status for call in reads] == [200, 200, 200]
    assert (file.status, file.body, head.status) == (200, b"o0", 200)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_flashfw/jobs/{open}/files/i0"),
        ("GET", "/_flashfw/jobs/{open}/files/../files/o0"),
        ("GET", "/_flashfw/jobs/{open}"),
        ("GET", "/_flashfw/jobs/{open}/why"),
        ("GET", "/_flashfw/jobs/{open}/events"),
        ("GET", "/_flashfw/jobs"),
        ("POST", "/v2/open/cancel/{open}"),
        ("GET", "/v2/open/cancel/{open}"),
        ("POST", "/v2/open/retry/{open}"),
        ("POST", "/v2/open/status/{open}"),
        ("POST", "/v2/open/run"),
        ("POST", "/v2/open/purge-queue"),
        ("GET", "/v2/open/health"),
        ("GET", "/_flashfw/jobs/{shut}/files/o0"),
        ("GET", "/_flashfw/jobs/01a00000-0000-7000-8000-000000000000/files/o0"),
        ("GET", "/v2/shut/status/{shut}"),
        ("GET", "/v2/shut/status/{open}"),
        ("GET", "/v2/status/{shut}"),
    ],
)
async def test_the_id_of_a_job_opens_nothing_else(tmp_path: Path, method: str, path: str) -> None:
    async with guarded(tmp_path) as bench:
        jobs = {name: await done(bench, name) for name in ("open", "shut")}
        call = await bench.call(method, path.format(**jobs), b"{}" if method == "POST" else None)

    assert call.status == 401


async def test_a_public_function_shows_its_own_jobs_alone(tmp_path: Path) -> None:
    async with guarded(tmp_path) as bench:
        job = await done(bench, "shut")
        named = await bench.call("GET", f"/v2/open/status/{job}", x_flash_endpoint="shut")

    assert named.status == 404
