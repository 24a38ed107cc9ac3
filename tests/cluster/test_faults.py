"""Workers that die, hang, block, flood or break: what happens to their jobs and to their neighbours."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.served import Served, ended, serving

pytestmark = pytest.mark.anyio

FILES = {
    "endpoints/wait/endpoint.toml": "workers = 1\n",
    "endpoints/wait/handler.py": """
        import os
        import time
        from pathlib import Path

        def handler(gate: str) -> int:
            while not Path(gate).exists():
                time.sleep(0.01)
            return os.getpid()
        """,
    "endpoints/die/endpoint.toml": "workers = 1\n",
    "endpoints/die/handler.py": """
        import os

        def handler() -> None:
            os._exit(7)
        """,
    "endpoints/flood/handler.py": """
        def handler(megabytes: int) -> str:
            line = "x" * 1023
            for _ in range(megabytes * 1024):
                print(line)
            return "done"
        """,
    "endpoints/block/handler.py": """
        import time

        async def handler(seconds: float) -> str:
            time.sleep(seconds)
            return "done"
        """,
    "endpoints/eat/endpoint.toml": "memory = '200MB'\nworkers = 1\n",
    "endpoints/eat/handler.py": """
        import time

        def handler() -> None:
            hoard = []
            while len(hoard) < 50:
                hoard.append(bytearray(20_000_000))
                time.sleep(0.01)
        """,
    "endpoints/broken/fixtures.py": """
        def model() -> str:
            raise RuntimeError("no weights here")
        """,
    "endpoints/broken/handler.py": """
        def handler(model) -> str:
            return model
        """,
    "endpoints/slow/endpoint.toml": "workers = 1\n",
    "endpoints/slow/handler.py": """
        import time
        import flashfw

        def handler(job: flashfw.Job) -> None:
            while True:
                job.progress(1)
                time.sleep(0.01)
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


async def started(shop: Served, function: str, value: object) -> tuple[str, str]:
    """A job that a worker has begun, and that worker."""
    job_id = (await shop.post(f"/v2/{function}/run", {"input": value})).json()["id"]
    record = await shop.status(job_id, function, until=lambda record: record["status"] == "IN_PROGRESS")
    return job_id, record["workerId"]


async def pid_of(shop: Served, worker: str) -> int:
    status = (await shop.get("/_flashfw/status")).json()
    return next(item["pid"] for endpoint in status["endpoints"] for item in endpoint["workers"] if item["id"] == worker)


async def test_a_killed_workers_job_is_done_by_another(shop: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job_id, worker = await started(shop, "wait", {"gate": str(gate)})
    killed = await pid_of(shop, worker)

    os.kill(killed, signal.SIGKILL)
    gate.touch()
    record = await shop.status(job_id, "wait", until=ended)

    assert record["status"] == "COMPLETED"
    assert killed != record["output"]
    assert worker != record["workerId"]


async def test_a_job_that_kills_three_workers_is_quarantined(shop: Served) -> None:
    answer = await shop.post("/die", {})

    assert (answer.status_code, answer.json()["error"]["reason"]) == (502, "worker_lost")
    assert "exited with code 7" in answer.json()["error"]["message"]
    assert len(shop.named("job_requeued")) == 2


async def test_a_flood_of_output_harms_nobody(shop: Served) -> None:
    answer = await shop.post("/flood", {"megabytes": 100})

    assert answer.json() == "done"
    printed = sum(len(event.fields["text"]) for event in shop.named("output"))
    assert printed <= 100 * 1024 * 1024


async def test_a_handler_that_blocks_its_loop_keeps_its_worker(shop: Served) -> None:
    answer = await shop.post("/block", {"seconds": 3})

    assert answer.json() == "done"
    assert not [event for event in shop.named("worker") if event.fields["state"] in ("SILENT", "UNHEALTHY")]


async def test_a_worker_above_its_memory_is_ended_and_the_rest_serves(shop: Served) -> None:
    answer = await shop.post("/eat", {})

    assert (answer.status_code, answer.json()["error"]["reason"]) == (502, "oom")
    assert "memory" in answer.json()["error"]["message"]
    assert (await shop.post("/block", {"seconds": 0})).json() == "done"


async def test_a_fixture_that_raises_answers_with_its_place(shop: Served) -> None:
    answer = await shop.post("/broken", {})

    error = answer.json()["error"]
    assert (answer.status_code, error["reason"], error["fixture"]) == (503, "startup", "model")
    assert "no weights here" in error["message"]
    assert error["place"] == "endpoints/broken/fixtures.py:3"


async def test_a_cancelled_sync_job_stops_at_its_next_progress(shop: Served) -> None:
    job_id, worker = await started(shop, "slow", {})

    await shop.post(f"/v2/slow/cancel/{job_id}", {})
    second, same = await started(shop, "slow", {})

    assert worker == same
    await shop.post(f"/v2/slow/cancel/{second}", {})


async def test_idle_workers_go_and_come_back(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {
        "endpoints/echo/endpoint.toml": "idle_timeout = '1s'\n",
        "endpoints/echo/handler.py": "def handler(x: int) -> int:\n    return x\n",
    }
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        assert (await shop.post("/echo", {"x": 1})).json() == 1
        gone = await shop.event("worker", lambda event: event.fields["state"] == "GONE")
        assert (await shop.post("/echo", {"x": 2})).json() == 2

    assert "idle" in gone.fields["why"]


async def test_waiting_jobs_bring_more_workers(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {
        "endpoints/wait/endpoint.toml": "workers = 2\nscaler = {type = 'queue_delay', value = 0.5}\n",
        "endpoints/wait/handler.py": FILES["endpoints/wait/handler.py"],
    }
    gate = tmp_path / "gate"
    async with serving(tmp_path / "p", files, environ=dev_environ) as shop:
        jobs = [await started(shop, "wait", {"gate": str(gate)})]
        job_id = (await shop.post("/v2/wait/run", {"input": {"gate": str(gate)}})).json()["id"]
        record = await shop.status(job_id, "wait", until=lambda record: record["status"] == "IN_PROGRESS")
        gate.touch()

        assert jobs[0][1] != record["workerId"]
        with anyio.fail_after(60):
            await shop.status(job_id, "wait", until=ended)
