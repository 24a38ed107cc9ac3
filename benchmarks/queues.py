"""Jobs from submission to result: flashfw and task queues, each with a worker for as many callers as there are.

A turn has a Redis, a worker and a folder of its own. The callers are threads or tasks of one process, whichever the
peer's own client is made for; flashfw is called by wrk, and beside it by Python threads as the peers are.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import echo
import servers
from environments import PEERS, programs
from running import process, redis
from turns import ALL, SMALL, Cell, Contender, Measure, Missing, Turn
from wrk import cpu_s

CLIENT = "flashfw's Python client, NORMAL"
PLAIN = "flashfw by http.client, NORMAL"
WORKERS = {
    "celery": "celery -A app worker --without-gossip --without-mingle --without-heartbeat --loglevel ERROR",
    "arq": "arq app.WorkerSettings",
    "huey": "huey_consumer app.huey --workers 32 --worker-type thread --no-periodic --quiet",
}
MODES = {"everysec": "Redis, appendfsync everysec", "always": "Redis, appendfsync always", "off": "Redis in memory"}
TIMEOUT_S = 120.0


@contextmanager
def queue(peer: str, mode: str, options: str = "", *, seconds: float) -> Iterator[Measure]:
    """A worker of the peer over a Redis of that mode."""
    if shutil.which("redis-server") is None:
        raise Missing("redis-server is not installed: apt-get install redis-server")
    binaries = programs(peer)
    with servers.folder({}) as folder, redis(mode, folder) as (port, server):
        # In memory is Celery's usual way, with tasks acknowledged before they run; else none is lost with its worker.
        late = {} if mode == "off" else {"ECHO_LATE": "1"}
        environ = {"ECHO_REDIS": f"redis://127.0.0.1:{port}/0", "ECHO_REDIS_PORT": str(port), **late}
        with working(peer, binaries, folder, options, environ, server, seconds=seconds) as measure:
            yield measure


@contextmanager
def huey_sqlite(*, seconds: float) -> Iterator[Measure]:
    """huey over a SQLite of its own; consumers look for tasks every millisecond, callers for results too."""
    with servers.folder({}) as folder:
        environ = {"ECHO_SQLITE": str(folder / "huey.db")}
        options = "--delay 0.001 --max-delay 0.001 --workers 2"
        with working("huey", programs("huey"), folder, options, environ, seconds=seconds) as measure:
            yield measure


@contextmanager
def working(
    peer: str,
    binaries: Path,
    folder: Path,
    options: str,
    environ: Mapping[str, str],
    *others: int,
    seconds: float,
) -> Iterator[Measure]:
    """The peer's worker in a copy of its folder; what is measured is its CPU time and that of `others`."""
    place = shutil.copytree(PEERS / peer, folder / peer)
    program, *words = WORKERS[peer].split()
    with process([binaries / program, *words, *options.split()], place, environ) as pid:
        yield partial(asked, [str(binaries / "python"), "client.py"], place, environ, (pid, *others), seconds)


@contextmanager
def python_client(way: str, *, seconds: float) -> Iterator[Measure]:
    """`flashfw dev`, called from threads of one Python process."""
    with servers.folder(echo.PROJECT) as project, servers.flashfw_dev(project) as server:
        command = [sys.executable, str(PEERS / "flashfw/client.py"), way]
        yield partial(asked, command, project, {"ECHO_URL": server.url}, (server.pid,), seconds)


def asked(
    command: list[str], folder: Path, environ: Mapping[str, str], pids: tuple[int, ...], seconds: float, cell: Cell
) -> Turn:
    """What a client that ran for some seconds says of its calls."""
    before = cpu_s(*pids)
    variables = {**servers.environ(), **environ, "PYTHONPATH": str(PEERS)}
    words = [*command, str(cell.connections), str(seconds), str(cell.size_bytes)]
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"the client ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    used = cpu_s(*pids) - before
    return Turn(told["per_s"], told["p50_ms"], told["p99_ms"], 1e6 * used / told["calls"])


def contenders(seconds: float) -> list[Contender]:
    """flashfw in both modes of durability, and each queue in those that its store has."""
    ours = [
        Contender(echo.NORMAL, partial(echo.dev, "/job", seconds=seconds)),
        Contender(echo.FULL, partial(echo.serve, "/job", seconds=seconds)),
        Contender(CLIENT, partial(python_client, "client", seconds=seconds), SMALL),
        Contender(PLAIN, partial(python_client, "plain", seconds=seconds), SMALL),
    ]
    theirs = [
        Contender(
            f"{name}, {told}",
            partial(queue, peer, mode, options, seconds=seconds),
            ALL if mode == "everysec" else SMALL,
        )
        for mode, told in MODES.items()
        for name, peer, options in (
            ("Celery", "celery", "--pool solo"),
            ("arq", "arq", ""),
            ("huey", "huey", ""),
        )
    ]
    prefork = partial(queue, "celery", "everysec", "--pool prefork --concurrency 2", seconds=seconds)
    return [
        *ours,
        *theirs,
        Contender(f"Celery (prefork), {MODES['everysec']}", prefork, SMALL),
        Contender("huey, SQLite", partial(huey_sqlite, seconds=seconds), SMALL),
    ]
