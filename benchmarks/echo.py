"""What answers a POST of a JSON object with that object: flashfw and its peers, each as its documentation starts it.

All have one worker process, no access log, and no other work. A job of flashfw is one POST too.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import servers
import wrk
from environments import PEERS, programs
from peers.load import payload
from running import free_port, process, until_echo
from turns import Cell, Contender, Measure, Turn

PROJECT = {
    "flashfw.toml": '[project]\nname = "bench"\n',
    "endpoints/job/endpoint.toml": "workers = [1, 1]\nconcurrency = 100\n",
    "endpoints/job/handler.py": "async def handler(input):\n    return input\n",
    "endpoints/echo/endpoint.toml": "workers = [1, 1]\nconcurrency = 100\n",
    "endpoints/echo/handler.py": "async def post(body: dict):\n    return body\n",
}
NORMAL = "flashfw job, NORMAL"
FULL = "flashfw job, FULL"
HTTP = "flashfw"
STARLETTE = "bare Starlette"
MOSEC = "Mosec"
LITSERVE = "LitServe"
LITSERVE_FAST = "LitServe, fast_queue"
WARM = Cell(64, 8)
LARGE_BYTES, LARGE_S = 10_000_000, 5.0


@contextmanager
def loaded(url: str, path: str, server: int, *, seconds: float, key: str = "") -> Iterator[Measure]:
    """wrk on the address, once it answers and is warm."""
    until_echo(url, path, key)
    with tempfile.TemporaryDirectory(prefix="flashfw-bench-") as name:
        headers = {"Authorization": f"Bearer {key}"} if key else {}

        def measure(cell: Cell) -> Turn:
            body = json.dumps(payload(cell.size_bytes)).encode()
            script = wrk.script(Path(name), body, headers)
            # wrk does not count what is under way at the end; of large bodies that is much.
            lasts_s = max(seconds, LARGE_S) if cell.size_bytes * cell.connections > LARGE_BYTES else seconds
            return wrk.load(url + path, script, server, connections=cell.connections, seconds=lasts_s)

        measure(WARM)
        yield measure


@contextmanager
def dev(path: str, *, seconds: float) -> Iterator[Measure]:
    """`flashfw dev`: a job is committed with `synchronous=NORMAL`."""
    with (
        servers.folder(PROJECT) as project,
        servers.flashfw_dev(project) as server,
        loaded(server.url, path, server.pid, seconds=seconds) as measure,
    ):
        yield measure


@contextmanager
def serve(path: str, *, seconds: float) -> Iterator[Measure]:
    """`flashfw serve`, shipped to: every commit is on the disk before it is answered, and every call shows a key."""
    with (
        servers.folder(PROJECT) as project,
        servers.flashfw_serve(project, "bench") as (server, key),
        loaded(server.url, path, server.pid, seconds=seconds, key=key) as measure,
    ):
        yield measure


@contextmanager
def peer(
    name: str,
    program: str,
    words: str,
    *,
    seconds: float,
    path: str = "/echo",
    environ: Mapping[str, str] | None = None,
) -> Iterator[Measure]:
    """A program of a peer's environment in the peer's folder; `{port}` in its words is a free one."""
    binaries, port = programs(name), free_port()
    with servers.folder({}) as empty:
        folder = shutil.copytree(PEERS / name, empty / name)
        command = [str(binaries / program), *words.format(port=port).split()]
        address = f"http://127.0.0.1:{port}"
        with process(command, folder, environ) as pid, loaded(address, path, pid, seconds=seconds) as measure:
            yield measure


RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
UVICORN = "app:app --port {port} --loop uvloop --http httptools --no-access-log --log-level error"


def bare(seconds: float) -> Contender:
    return Contender(STARLETTE, partial(peer, "starlette", "uvicorn", UVICORN, seconds=seconds))


def contenders(seconds: float) -> list[Contender]:
    """Those of `make bench`."""
    mosec = "app.py --address 127.0.0.1 --port {port} --log-level error"
    batches = {"ECHO_BATCH": "32"}
    return [
        Contender(HTTP, partial(dev, "/echo", seconds=seconds)),
        bare(seconds),
        Contender(NORMAL, partial(dev, "/job", seconds=seconds)),
        Contender(FULL, partial(serve, "/job", seconds=seconds)),
        Contender(MOSEC, partial(peer, "mosec", "python", mosec, path="/inference", seconds=seconds)),
        Contender(
            f"{MOSEC}, batches of up to 32",
            partial(peer, "mosec", "python", mosec, path="/inference", seconds=seconds, environ=batches),
        ),
        Contender(LITSERVE, partial(peer, "litserve", "python", "app.py {port} default", seconds=seconds)),
        Contender(LITSERVE_FAST, partial(peer, "litserve", "python", "app.py {port} fast", seconds=seconds)),
    ]


def larger(seconds: float) -> list[Contender]:
    """Those that `make bench-all` adds, with the two they are compared with."""
    quiet = {"BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false", "BENTOML_DO_NOT_TRACK": "True"}
    words = "serve app:Echo --host 127.0.0.1 --port {port}"
    return [
        Contender(HTTP, partial(dev, "/echo", seconds=seconds)),
        bare(seconds),
        Contender("BentoML", partial(peer, "bentoml", "bentoml", words, seconds=seconds, environ=quiet)),
        Contender(
            "Ray Serve",
            partial(peer, "ray_serve", "python", "app.py {port}", seconds=seconds, environ=RAY),
        ),
    ]
