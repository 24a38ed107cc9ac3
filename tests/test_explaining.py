"""What `why` tells of jobs that a real server ran by real workers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from flashfw.cluster.placement.fork import can_fork
from tests.served import Served, ended, serving

pytestmark = pytest.mark.anyio

GATE = """
    from pathlib import Path
    import time

    def handler(file: str) -> str:
        while not Path(file).exists():
            time.sleep(0.01)
        return "open"
    """


async def spawn(shop: Served, path: str, value: Any) -> str:
    made: str = (await shop.post(path, value, prefer="respond-async")).json()["id"]
    return made


async def why(shop: Served, job: str) -> dict[str, Any]:
    found: dict[str, Any] = (await shop.get(f"/_flashfw/jobs/{job}/why")).json()
    offsets = [moment["offset_s"] for moment in found["moments"]]
    assert offsets == sorted(offsets)
    return found


def texts(story: dict[str, Any]) -> list[str]:
    return [re.sub(r"w-\w+", "W", moment["text"]) for moment in story["moments"]]


async def test_a_cold_start_is_told_part_by_part(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {
        "endpoints/a/fixtures.py": "import time\ndef model():\n    time.sleep(0.2)\n    return 7\n",
        "endpoints/a/handler.py": "def handler(model) -> int:\n    return model\n",
    }
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        job = await spawn(shop, "/a", {})
        await shop.status(job, "a", until=ended)
        story = await why(shop, job)

    told = texts(story)
    if can_fork():
        assert "cold start: its process is forked off a warm one" in told
    assert re.match(r"COMPLETED: waited .*, .* of it a cold start, ran ", story["summary"])
    assert told[:3] == ["queued for a", "scaler: 1 waiting, no worker: 0 -> 1", "worker W starts"]
    assert told[-5:-2] == [
        "cold start: the handlers are imported",
        "cold start: fixture 'model' is built",
        told[-3],
    ]
    assert re.match(r"worker W is ready after", told[-3])
    assert told[-2:] == ["the call runs on worker W", "COMPLETED: done"]
    took = {moment["text"]: moment["took_s"] for moment in story["moments"]}
    assert took["cold start: fixture 'model' is built"] >= 0.2


@pytest.mark.skipif(not can_fork(), reason="workers are not forked here")
async def test_a_worker_that_is_not_forked_says_why(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {
        "endpoints/a/handler.py": "def handler() -> int:\n    return 7\n",
        "endpoints/a/endpoint.toml": "secrets = ['PYTHON_TOKEN']\n",
        ".env": "PYTHON_TOKEN=hush\n",
    }
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        job = await spawn(shop, "/a", {})
        await shop.status(job, "a", until=ended)
        story = await why(shop, job)
        status: dict[str, Any] = (await shop.get("/_flashfw/status")).json()

    reason = "its secret PYTHON_TOKEN has to be there when its interpreter starts"
    assert f"cold start: its process starts, not forked: {reason}" in texts(story)
    assert [worker["process"] for worker in status["endpoints"][0]["workers"]] == [f"spawned: {reason}"]


@pytest.mark.skipif(not can_fork(), reason="workers are not forked here")
async def test_no_job_is_lost_with_the_process_that_workers_are_forked_off(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    gate = tmp_path / "gate"
    files = {
        "endpoints/a/handler.py": GATE,
        "endpoints/a/endpoint.toml": "workers = 3\nscaler = {type = 'queue_delay', value = 1}",
    }
    async with serving(tmp_path / "shop", files, environ=dev_environ) as shop:
        first = await spawn(shop, "/a", {"file": str(gate)})
        await shop.status(first, "a", until=lambda record: record["status"] == "IN_PROGRESS")
        killed = [one for one in psutil.Process().children() if "run_zygote" in " ".join(one.cmdline())]
        for one in killed:
            one.kill()
        others = [await spawn(shop, "/a", {"file": str(gate)}) for _ in range(3)]
        for job in others[:1]:
            await shop.status(job, "a", until=lambda record: record["status"] == "IN_PROGRESS")
        gate.touch()

        ends = [await shop.status(job, "a", until=ended) for job in (first, *others)]
        stories = [await why(shop, job) for job in (first, others[0])]

    assert len(killed) == 1
    assert [end["status"] for end in ends] == ["COMPLETED"] * 4
    assert [texts(story)[-2:] for story in stories] == [["the call runs on worker W", "COMPLETED: done"]] * 2
    assert any("forked off a warm one" in one for one in texts(stories[1]))


async def test_a_job_behind_another_says_so_while_it_waits_and_after(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    files = {"endpoints/a/handler.py": GATE, "endpoints/a/endpoint.toml": "workers = 1"}
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        first, second = ({"file": str(tmp_path / name)} for name in ("one", "two"))
        ahead = await spawn(shop, "/a", first)
        await shop.status(ahead, "a", until=lambda record: record["status"] == "IN_PROGRESS")
        job = await spawn(shop, "/a", second)
        runs = await why(shop, ahead)
        assert re.match(r"runs for .* on worker W; its timeout ends it in", texts(runs)[-1])
        waits = texts(await why(shop, job))[-1]
        while "ahead of it" not in waits:  # of a wait of less than 50 ms nobody asks who was first
            waits = texts(await why(shop, job))[-1]
        assert waits.startswith("waits: 1 worker of at most 1 busy, 1 job ahead of it, 1 of them running (scaler: ")
        (tmp_path / "one").touch()
        (tmp_path / "two").touch()
        await shop.status(job, "a", until=ended)
        story = await why(shop, job)

    assert texts(story)[0] == "queued for a: 1 job ahead of it, 1 of them running"
    assert ", 1 job ahead of it, ran " in story["summary"]


async def test_a_job_that_is_tried_again_tells_each_error_and_delay(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    files = {
        "endpoints/a/handler.py": """
            from flashfw import Job

            def handler(job: Job) -> int:
                if job.attempt < 3:
                    raise ConnectionError(f"no answer to {job.attempt}")
                return job.attempt
            """,
        "endpoints/a/endpoint.toml": 'retries = { max = 2, backoff = "10ms" }',
    }
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        job = await spawn(shop, "/a", {})
        await shop.status(job, "a", until=ended)
        story = await why(shop, job)

    told = [text for text in texts(story) if "attempt" in text]
    error = "failed: endpoints/a/handler.py:6: ConnectionError: no answer to"
    assert [re.sub(r"tried again in .*", "tried again", text) for text in told] == [
        "attempt 1 runs on worker W",
        f"attempt 1 {error} 1; tried again",
        "attempt 2 runs on worker W",
        f"attempt 2 {error} 2; tried again",
        "attempt 3 runs on worker W",
    ]
    assert "went back into the queue 2 times" in story["summary"]


async def test_a_job_whose_worker_died_tells_how_often_and_of_what(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {
        "endpoints/a/handler.py": """
            import os
            from pathlib import Path

            def handler(file: str) -> str:
                if not Path(file).exists():
                    Path(file).touch()
                    os._exit(11)
                return "survived"
            """
    }
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        job = await spawn(shop, "/a", {"file": str(tmp_path / "been")})
        record = await shop.status(job, "a", until=ended)
        story = await why(shop, job)

    assert record["output"] == "survived"
    (back,) = (text for text in texts(story) if text.startswith("back in the queue"))
    assert back == (
        "back in the queue: WorkerLost: worker W exited with code 11; 1 worker lost with it, 2 more would end it"
    )
    starts = [moment for moment in story["moments"] if " runs on worker " in moment["text"]]
    assert len({moment["details"]["worker"] for moment in starts}) == 2


async def test_a_start_that_fails_is_told_with_its_line_until_it_is_mended(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    broken = "def model():\n    raise OSError('no weights')\n"
    handler = "def handler(model) -> int:\n    return model\n"
    files = {"endpoints/a/fixtures.py": broken, "endpoints/a/handler.py": handler}
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        job = await spawn(shop, "/a", {})
        await shop.event("start_failed")
        line = "endpoints/a/fixtures.py:2: OSError: no weights (fixture 'model')"
        waits = texts(await why(shop, job))
        assert waits[-1].startswith(f"waits: workers of a do not start: {line}. Mend that; ")
        assert any(text.startswith(f"worker W does not start: {line}; the next try is in") for text in waits)

        (tmp_path / "endpoints/a/fixtures.py").write_text("def model():\n    return 7\n")
        await shop.status(job, "a", until=ended)
        story = await why(shop, job)

    assert story["state"] == "COMPLETED"
    assert any(line in text for text in texts(story))


async def test_cancelled_and_asked_for_again(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    fails = "def handler(file: str) -> str:\n    return open(file).read()\n"
    files = {"endpoints/a/handler.py": GATE, "endpoints/b/handler.py": fails}
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        running = await spawn(shop, "/a", {"file": str(tmp_path / "never")})
        await shop.status(running, "a", until=lambda record: record["status"] == "IN_PROGRESS")
        await shop.post(f"/v2/a/cancel/{running}", {})
        assert texts(await why(shop, running))[-1] == "CANCELLED: somebody cancelled it"

        failed = await spawn(shop, "/b", {"file": str(tmp_path / "late")})
        await shop.status(failed, "b", until=ended)
        (tmp_path / "late").write_text("here")
        assert (await shop.post(f"/v2/b/retry/{failed}", {})).status_code == 200
        await shop.status(failed, "b", until=ended)
        told = texts(await why(shop, failed))

    (again,) = (text for text in told if "somebody asked" in text)
    assert again.startswith("somebody asked for it again, after it was FAILED: endpoints/b/handler.py:2: FileNotFound")
    assert told[-1] == "COMPLETED: done"


async def test_a_job_that_outlived_its_server_says_so(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {"endpoints/a/handler.py": GATE, "endpoints/a/endpoint.toml": "workers = 1"}
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        job = await spawn(shop, "/a", {"file": str(tmp_path / "key")})
        await shop.status(job, "a", until=lambda record: record["status"] == "IN_PROGRESS")
    (tmp_path / "key").touch()
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        await shop.status(job, "a", until=ended)
        told = texts(await why(shop, job))

    first = told.index("the server stopped")
    assert told[first - 1].startswith("back in the queue: ")
    assert "the server started" in told[first:]
    assert told[-1] == "COMPLETED: done"
