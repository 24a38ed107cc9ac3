"""Programs written for Runpod's own clients, unchanged, against `flashfw dev`: only the base URL is another."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartDev
from tests.dev_process import DevServer
from tests.served import ended, write
from tests.vendor.environments import python_of

pytestmark = pytest.mark.vendor

CLIENTS = Path(__file__).parent / "clients"
OLD, NEW, FLASH = "runpod==1.12.0", "runpod==2.0.0rc2", "runpod-flash==1.21.0"
RUNPODS = pytest.mark.parametrize("version", ["1.12", "2.0"])
PROGRAM_S = 100.0

Programs = dict[str, "subprocess.Popen[str]"]

HOLD = """
    import time

    from flashfw import Job

    def handler(name: str, job: Job):
        while True:
            job.progress({"name": name})
            time.sleep(0.02)
    """
FILES = {
    "endpoints/gpu/endpoint.toml": "workers = [1, 2]\n",
    "endpoints/gpu/upscale/handler.py": """
        def handler(width: int, factor: int = 2) -> dict[str, int]:
            return {"width": width * factor}
        """,
    "endpoints/slow/handler.py": """
        import time

        def handler(seconds: float) -> str:
            time.sleep(seconds)
            return "late"
        """,
    "endpoints/count/handler.py": "def handler(to: int):\n    yield from range(to)\n",
    "endpoints/breaks/handler.py": """
        def handler(to: int):
            yield from range(to)
            raise ValueError("no more")
        """,
    "endpoints/chunks/handler.py": "def handler(of: int):\n    for number in range(of):\n        yield 'x' * 700_000\n",
    "endpoints/fail/handler.py": "def handler(why: str):\n    raise ValueError(why)\n",
    "endpoints/big/handler.py": "def handler(megabytes: int) -> str:\n    return 'x' * (megabytes * 1_000_000)\n",
    "endpoints/nothing/handler.py": "def handler() -> str:\n    return 'done'\n",
}
PROGRAMS = {
    "endpoint, 1.12": (OLD, "endpoint.py"),
    "endpoint, 2.0": (NEW, "endpoint.py"),
    "asyncio, 1.12": (OLD, "asyncio_endpoint.py"),
    "asyncio, 2.0": (NEW, "asyncio_endpoint.py"),
    "handles": (NEW, "handles.py"),
}
"""They begin together, since they mostly wait: the clients sleep for a second between two looks at a stream."""
HOLDS = {name: f"hold_{number}" for number, name in enumerate([*PROGRAMS, "flash"])}
"""Each has a queue of its own to fill and to purge."""
for hold in HOLDS.values():
    FILES[f"endpoints/{hold}/endpoint.toml"] = "workers = 1\nconcurrency = 1\n"
    FILES[f"endpoints/{hold}/handler.py"] = HOLD
TERMINAL = {"id", "status", "workerId", "delayTime", "executionTime"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, module_flashfw_dev: StartDev) -> DevServer:
    return module_flashfw_dev(write(tmp_path_factory.mktemp("vendor") / "shop", FILES))


@pytest.fixture(scope="module")
def programs(shop: DevServer) -> Iterator[Programs]:
    running = {name: start(shop, *program, HOLDS[name]) for name, program in PROGRAMS.items()}
    yield running
    for program in running.values():
        program.kill()
        program.communicate()


def start(shop: DevServer, requirement: str, client: str, *arguments: str) -> subprocess.Popen[str]:
    """A client's program; it knows of this server only by the base URL."""
    variables = {"RUNPOD_ENDPOINT_BASE_URL": f"{shop.url}/v2", "RUNPOD_API_KEY": "any", "HOME": str(shop.project)}
    return subprocess.Popen(
        [str(python_of(requirement)), "-I", str(CLIENTS / client), *arguments],
        cwd=shop.project.parent,  # runpod-flash writes where it stands
        env={**{name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(program: subprocess.Popen[str], stdin: str = "") -> Any:
    """What a program printed in the end."""
    output, errors = program.communicate(stdin, timeout=PROGRAM_S)
    assert program.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@RUNPODS
def test_the_endpoint_client(programs: Programs, version: str) -> None:
    said = printed(programs[f"endpoint, {version}"])

    assert said["version"].startswith(version)
    assert (said["run_sync"], said["run_sync wraps"], said["output"]) == ({"width": 16}, {"width": 24}, {"width": 16})
    assert (said["status"], said["record"].keys()) == ("COMPLETED", TERMINAL | {"output"})
    assert (said["big"], said["nothing"]) == (15_000_000, "done")
    assert (said["early output"], said["late output"]) == (None, "late")
    assert (said["stream"], said["stream large"]) == ([0, 1, 2], [700_000] * 5)
    assert said["unknown"][0] == 404
    assert (said["policy"][0], "policy.ttl" in said["policy"][1]["error"]["message"]) == (400, True)
    assert (said["webhook"][0], "webhook" in said["webhook"][1]["error"]["message"]) == (400, True)
    check_failed(said)
    check_held(said)
    assert (said["cancelled again"], said["busy health"]["jobs"]["inQueue"]) == (said["cancelled"], 2)
    assert said["waiting"] == [{"id": record["id"], "status": "IN_QUEUE"} for record in said["waiting"]]
    assert said["purged status"] == ["CANCELLED", "CANCELLED"]
    assert said["held record"]["output"] == {"name": "first"}


@RUNPODS
def test_the_asyncio_client(programs: Programs, version: str) -> None:
    said = printed(programs[f"asyncio, {version}"])

    assert said["outputs"] == [{"width": 2 * width} for width in range(20)]
    assert (said["status"], said["record"].keys()) == ("COMPLETED", TERMINAL | {"output"})
    assert (said["stream"], said["cancelled status"]) == ([0, 1, 2], "CANCELLED")
    check_failed(said)
    check_held(said, waiting=1)


def test_the_handles_of_2(programs: Programs) -> None:
    both = printed(programs["handles"])
    check_async_handles(both["async"])
    said = both["sync"]

    assert (said["remote"], said["options"], said["nothing"]) == ({"width": 16}, {"width": 24}, "done")
    assert (said["result"], said["status"], said["attached"]) == ({"width": 10}, "COMPLETED", {"width": 10})
    assert ("RemoteExecutionError" in said["failed"], "no such image" in said["failed"]) == (True, True)
    assert (said["retried"], "no such image" in said["failed again"]) == ("IN_QUEUE", True)
    assert (said["stream"], said["stream large"]) == ([0, 1, 2], [700_000] * 5)
    assert ("no more" in said["stream broken"], said["stream broken items"]) == (True, [0, 1])
    assert (said["cancelled"], said["unknown"].partition(":")[0]) == ("CANCELLED", "EndpointNotFound")


def test_the_models_of_flash(shop: DevServer) -> None:
    """They want five fields of every job that has ended, whatever its end."""
    done = shop.call("/v2/gpu/upscale/runsync", {"input": {"width": 1}})
    failed = shop.call("/v2/fail/runsync", {"input": {"why": "no such image"}})
    invalid = shop.call("/v2/gpu/upscale/runsync", {"input": {}})
    held = shop.call("/v2/hold_5/run", {"input": {"name": "a"}})
    waiting = shop.call("/v2/hold_5/run", {"input": {"name": "b"}})
    records = [done, failed, invalid]
    for job in (waiting, held):
        shop.request("POST", f"/v2/hold_5/cancel/{job['id']}")
        records.append(json.loads(shop.request("GET", f"/v2/hold_5/status/{job['id']}").body))
    health = [json.loads(shop.request("GET", f"/v2/{name}/health").body) for name in ("gpu/upscale", "hold_5")]

    said = printed(start(shop, FLASH, "flash_models.py"), json.dumps({"jobs": records, "health": health}))

    assert said["jobs"] == ["COMPLETED", "FAILED", "FAILED", "CANCELLED", "CANCELLED"]
    assert said["health"][0] is True
    assert all(ended(record) for record in records)


def check_async_handles(said: Any) -> None:
    assert (said["remote"], said["stream"], said["cancelled"]) == ({"width": 16}, [0, 1, 2], "CANCELLED")
    assert said["results"] == [{"width": 2 * width} for width in range(5)]


def check_failed(said: Any) -> None:
    """A failure is a string that holds a JSON document, as the vendor's worker sends it."""
    failed = said["failed"]
    assert (said["failed output"], failed["status"], failed.keys() >= TERMINAL) == (None, "FAILED", True)
    error = json.loads(failed["error"])
    assert (error["error_type"], error["error_message"]) == ("ValueError", "no such image")
    assert "endpoints/fail/handler.py" in error["error_traceback"]


def check_held(said: Any, waiting: int = 2) -> None:
    assert (said["held"], said["purged"]) == ("IN_PROGRESS", {"removed": waiting, "status": "completed"})
    assert said["cancelled"] == {"id": said["cancelled"]["id"], "status": "CANCELLED"}
    assert said["health"]["jobs"].keys() == {"completed", "failed", "inProgress", "inQueue", "retried"}
    workers = said["health"]["workers"]
    assert workers.keys() == {"idle", "initializing", "ready", "running", "throttled", "unhealthy"}
    assert (workers["ready"] >= 1, workers["unhealthy"], workers["throttled"]) == (True, 0, 0)
