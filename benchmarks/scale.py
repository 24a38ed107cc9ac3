"""What size costs a server: many endpoints, many queued jobs, many idle connections, many idle workers.

    python benchmarks/scale.py [--only endpoints jobs connections workers] [--endpoints 1000] [--jobs 1000000]
        [--connections 1000] [--workers 50] [--window 10] [--json FILE]

Each part is a `flashfw dev` of its own with its worker processes, beside one that is small. CPU is the time that
processes were given, in percent of one core while nobody asks for anything: it says the same on a busy machine. Memory
is resident, with what is shared; that of workers is proportional. Queued jobs are kept by the store's own
`submit`, in a process of their own, before the server starts over them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import processes
import servers

JOB = "def handler(prompt: str, steps: int = 20) -> dict:\n    return {'prompt': prompt, 'steps': steps}\n"
GET = "async def get(limit: int = 10) -> dict:\n    return {'limit': limit}\n"
ECHO = "async def handler(input):\n    return input\n"
SOCKET = """\
from starlette.websockets import WebSocket


async def websocket(ws: WebSocket):
    await ws.accept()
    async for text in ws.iter_text():
        await ws.send_text(text)
"""
# Holds what it was given until the file is there, so that a queue stays as it is until it shall be worked off.
GATED = """\
import asyncio
from pathlib import Path

GATE = Path({gate!r})


async def handler(input):
    while not GATE.exists():
        await asyncio.sleep(0.5)
    return input
"""
GATED_CONFIG = "workers = [1, 1]\nconcurrency = 20\nmax_queue = 100000000\n"
SPREAD = 100
ASKED = 300


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    part: str
    what: str
    value: float
    unit: str
    beside: float | None = None
    """The same of the small server."""


def project(endpoints: int) -> dict[str, str]:
    """Half of them jobs, half HTTP, none with a worker; and one of each that has one."""
    files = {"flashfw.toml": '[project]\nname = "scale"\n'}
    for number in range(endpoints):
        kind, text = ("job", JOB) if number % 2 else ("web", GET)
        files[f"endpoints/{kind}_{number:04}/handler.py"] = text
        files[f"endpoints/{kind}_{number:04}/endpoint.toml"] = "workers = 2\n"
    warm = "workers = [1, 1]\nconcurrency = 20\n"
    for name, text in (("echo", ECHO), ("edited", "async def get():\n    return 0\n")):
        files |= {f"endpoints/{name}/handler.py": text, f"endpoints/{name}/endpoint.toml": warm}
    return files


def asked_ms(url: str, method: str, path: str, *, times: int = ASKED, ok: tuple[int, ...] = (200,)) -> float:
    """p50 of one request after the other on one connection."""
    body = servers.BODY if method == "POST" else None
    headers = {"content-type": "application/json", "prefer": "respond-async" if 202 in ok else ""}
    connection = servers.connect(url)
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        connection.request(method, path, body, {name: value for name, value in headers.items() if value})
        response = connection.getresponse()
        response.read()
        spent.append(time.perf_counter() - began)
        if response.status not in ok:
            raise SystemExit(f"{method} {path}: {response.status}")
    connection.close()
    return statistics.median(spent) * 1000


def until(found: Callable[[], bool], what: str, *, most_s: float = 120.0, every_s: float = 0.01) -> float:
    """Wait for it; how long it took."""
    began = time.perf_counter()
    while not found():
        if time.perf_counter() - began > most_s:
            raise SystemExit(f"{what}: not within {most_s:g} s")
        time.sleep(every_s)
    return time.perf_counter() - began


@contextlib.contextmanager
def started(folder: Path) -> Iterator[tuple[servers.Server, float]]:
    """A `flashfw dev` over it, and how long it took to say that it serves."""
    began = time.perf_counter()
    with servers.flashfw_dev(folder) as server:
        yield server, time.perf_counter() - began


def endpoints(options: argparse.Namespace) -> Iterator[Figure]:
    """Many endpoints: start, memory, idleness, a save, a call, the documents."""
    small = _tree(10, options.window)
    for (what, unit), value in _tree(options.endpoints, options.window).items():
        yield Figure("endpoints", what, value, unit, small[what, unit])


def _tree(count: int, window_s: float) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    with servers.folder(project(count)) as folder:
        with started(folder) as (server, _):
            described = folder / ".flashfw/descriptions"
            all_are = lambda: described.is_dir() and len(list(described.iterdir())) >= count + 2  # noqa: E731
            found["all described after", "s"] = until(all_are, "descriptions", most_s=600, every_s=0.1)
        with started(folder) as (server, start_s):
            found["start to serving", "s"] = start_s
            found["first answer after it", "s"] = until(
                lambda: servers.answer(server.url, "POST", "/echo", servers.BODY) is not None, "/echo"
            )
            found["then busy for", "s"] = processes.settled(server.pid, quiet_percent=15, most_s=600)
            found["memory of the server", "MB"] = processes.resident_mb(server.pid)
            used = processes.idle(server.pid, window_s)
            found["idle, server", "% of a core"] = used.own_percent
            found["idle, all below it", "% of a core"] = used.below_percent
            found["job, one connection, p50", "ms"] = asked_ms(server.url, "POST", "/echo")
            found["HTTP, one connection, p50", "ms"] = asked_ms(server.url, "GET", "/edited")
            for name in ("/openapi.json", "/_flashfw/status"):
                found[f"GET {name}, p50", "ms"] = asked_ms(server.url, "GET", name, times=20)
            handler = folder / "endpoints/edited/handler.py"
            edits = [_edit_s(handler, server.url, number) for number in range(1, 8)]
            found["save to new answer, p50", "ms"] = statistics.median(edits) * 1000
    return found


def _edit_s(handler: Path, url: str, number: int) -> float:
    handler.write_text(f"async def get():\n    return {number}\n{'#' * number}\n")
    spent_s = until(lambda: servers.answer(url, "GET", "/edited") == number, "an edit", every_s=0.01)
    time.sleep(0.3)
    return spent_s


def jobs(options: argparse.Namespace) -> Iterator[Figure]:
    """Many queued jobs: start over them, memory, submit and claim, and what people look at meanwhile."""
    few = min(10_000, options.jobs)
    for shape, spread in (("one endpoint", 1), (f"{SPREAD} endpoints", SPREAD)):
        beside = _queue(30 * spread, spread, options.window, submits=few)
        for (what, unit), value in _queue(options.jobs, spread, options.window, submits=0).items():
            yield Figure(f"jobs, {shape}", what, value, unit, beside[what, unit])


def _queue(count: int, spread: int, window_s: float, *, submits: int) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    with servers.folder({"flashfw.toml": '[project]\nname = "scale"\n'}) as folder:
        gate = folder / "gate"
        names = [f"deep_{number:02}" for number in range(spread)]
        for name in names:
            (folder / "endpoints" / name).mkdir(parents=True)
            (folder / "endpoints" / name / "handler.py").write_text(GATED.format(gate=str(gate)))
            (folder / "endpoints" / name / "endpoint.toml").write_text(GATED_CONFIG)
        for file, text in project(0).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        with started(folder) as (server, _):
            processes.settled(server.pid, quiet_percent=20, most_s=60)
        command = [sys.executable, __file__, "--fill", str(folder), str(count), *names]
        subprocess.run(command, check=True, env=servers.environ())
        with started(folder) as (server, start_s):
            found["start to serving", "s"] = start_s
            processes.settled(server.pid, quiet_percent=20, most_s=60)
            found |= _waiting(server, names[0], window_s)
            if submits:
                _submit(server.url, names, submits)
            found |= _drained(server, names, gate)
    return found


def _waiting(server: servers.Server, name: str, window_s: float) -> dict[tuple[str, str], float]:
    """While the queue stands."""
    found = {("memory of the server", "MB"): processes.resident_mb(server.pid)}
    used = processes.idle(server.pid, window_s)
    found["idle, server", "% of a core"] = used.own_percent
    found["submit over HTTP, p50", "ms"] = asked_ms(server.url, "POST", f"/{name}", ok=(200, 202))
    found["another endpoint's job, p50", "ms"] = asked_ms(server.url, "POST", "/echo")
    for path in (f"/v2/{name}/health", "/_flashfw/status", "/_flashfw/jobs", f"/_flashfw/jobs?function={name}"):
        shown = path.replace(name, "ID")
        found[f"GET {shown}, p50", "ms"] = asked_ms(server.url, "GET", path, times=20)
    return found


def _submit(url: str, names: list[str], count: int) -> None:
    for name in names:
        asked_ms(url, "POST", f"/{name}", times=count // len(names), ok=(200, 202))


def _drained(server: servers.Server, names: list[str], gate: Path) -> dict[tuple[str, str], float]:
    """The handlers let go, and the workers claim as fast as they can."""
    pid, others = server.pid, processes.below(server.pid)
    cpu_s, workers_s, before = processes.cpu_s([pid]), processes.cpu_s(others), _completed(server.url)
    gate.touch()
    until(lambda: _completed(server.url) > before + 2_000, "jobs", every_s=0.05)  # those that were held go first
    began, first = time.perf_counter(), _completed(server.url)
    until(lambda: time.perf_counter() - began > 6 or _completed(server.url) > first + 5_000, "jobs", every_s=0.05)
    done, spent_s = _completed(server.url), time.perf_counter() - began
    cpu_s, workers_s = processes.cpu_s([pid]) - cpu_s, processes.cpu_s(others) - workers_s
    return {
        ("claimed, done, written", "jobs/s"): (done - first) / spent_s,
        ("CPU of the server per job", "µs"): 1e6 * cpu_s / (done - before),
        ("CPU of the workers per job", "µs"): 1e6 * workers_s / (done - before),
        ("memory of the server, working", "MB"): processes.resident_mb(pid),
    }


def _completed(url: str) -> int:
    status = servers.answer(url, "GET", "/_flashfw/status")
    assert isinstance(status, dict)
    return sum(queue["completed"] for endpoint in status["endpoints"] for queue in endpoint["queues"])


async def fill(folder: Path, count: int, names: list[str]) -> None:
    """Keep so many jobs in turn, as a server would."""
    from flashfw.cluster.clock import SystemClock
    from flashfw.cluster.jobs.making import job_id
    from flashfw.cluster.jobs.model import Job
    from flashfw.cluster.jobs.opening import job_store

    store = job_store(None, folder=folder / ".flashfw", project="scale", environment="dev", clock=SystemClock())
    await store.open("fill")

    def job(number: int) -> Job:
        name, now = names[number % len(names)], time.time()
        return Job(
            id=job_id(now),
            function=name,
            endpoint=name,
            input=servers.BODY,
            submitted_at=now,
            expires_at=now + 86_400,
            timeout_s=600,
            result_ttl_s=86_400,
        )

    for start in range(0, count, 10_000):
        more = range(start, min(count, start + 10_000))
        await asyncio.gather(*(store.submit(job(number), max_queue=10 * count) for number in more))
    await store.close()


def connections(options: argparse.Namespace) -> Iterator[Figure]:
    """Idle clients: those that keep a connection, and those with a WebSocket."""
    count = options.connections
    files = project(0) | {
        "endpoints/socket/handler.py": SOCKET,
        "endpoints/socket/endpoint.toml": f"workers = [1, 1]\nconcurrency = {count + 100}\n",
    }
    with servers.folder(files) as folder, started(folder) as (server, _):
        processes.settled(server.pid, quiet_percent=15, most_s=60)
        before = _load(server, options.window)
        for what, connect in (("idle connections", _kept_alive), ("idle WebSockets", _upgraded)):
            base = _load(server, 1.0)
            began = time.perf_counter()
            clients = [connect(server.url) for _ in range(count)]
            yield Figure("connections", f"{count:,} {what}: to open all", time.perf_counter() - began, "s")
            after = _load(server, 1.0)  # at once: those that ask for nothing more are closed after some seconds
            each = {name: 1000 * (after[name] - base[name]) / count for name in ("server MB", "workers MB")}
            yield Figure("connections", f"{what}: memory of the server, each", each["server MB"], "kB")
            yield Figure("connections", f"{what}: memory of the worker, each", each["workers MB"], "kB")
            while_idle = _load(server, options.window)
            yield Figure("connections", f"{what}: open after {options.window:g} s", sum(map(_is_open, clients)), "")
            for name in ("idle, server", "idle, all below it"):
                yield Figure("connections", f"{what}: {name}", while_idle[name], "% of a core", before[name])
            p50_ms = asked_ms(server.url, "POST", "/echo")
            for client in clients:
                client.close()
            time.sleep(1.0)
            yield Figure(
                "connections", f"{what}: job beside them, p50", p50_ms, "ms", asked_ms(server.url, "POST", "/echo")
            )


def _load(server: servers.Server, window_s: float) -> dict[str, float]:
    used = processes.idle(server.pid, window_s)
    return {
        "server MB": processes.resident_mb(server.pid),
        "workers MB": processes.proportional_mb(processes.below(server.pid)),
        "idle, server": used.own_percent,
        "idle, all below it": used.below_percent,
    }


def _kept_alive(url: str) -> socket.socket:
    """A connection that had one answer, as those of clients with a pool have."""
    client = _connected(url)
    client.sendall(b"GET /edited HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    assert client.recv(65_536).startswith(b"HTTP/1.1 200")
    return client


def _upgraded(url: str) -> socket.socket:
    """An open WebSocket; pings stay in the kernel: to answer those of a thousand would be CPU of ours."""
    client = _connected(url)
    upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13"
    key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
    client.sendall(f"GET /socket HTTP/1.1\r\nhost: 127.0.0.1\r\n{upgrade}\r\n{key}\r\n\r\n".encode())
    assert client.recv(65_536).startswith(b"HTTP/1.1 101")
    return client


def _is_open(client: socket.socket) -> bool:
    """Whether the server has not closed it; a ping that it sent is not read away."""
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _connected(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=30)


def workers(options: argparse.Namespace) -> Iterator[Figure]:
    """Idle workers: of one endpoint, and one for each of many."""
    small = _crew(1, 1, options.window)
    for shape, spread in (("of one endpoint", 1), ("of as many endpoints", options.workers)):
        for (what, unit), value in _crew(options.workers, spread, options.window).items():
            yield Figure(f"{options.workers} workers {shape}", what, value, unit, small[what, unit])


def _crew(count: int, spread: int, window_s: float) -> dict[tuple[str, str], float]:
    each = count // spread
    files = {"flashfw.toml": '[project]\nname = "scale"\n'}
    for number in range(spread):
        files[f"endpoints/crew_{number:03}/handler.py"] = ECHO
        files[f"endpoints/crew_{number:03}/endpoint.toml"] = f"workers = [{each}, {each}]\n"
    with servers.folder(files) as folder, started(folder) as (server, _):

        def ready() -> bool:
            status = servers.answer(server.url, "GET", "/_flashfw/status")
            assert isinstance(status, dict)
            states = [worker["state"] for endpoint in status["endpoints"] for worker in endpoint["workers"]]
            return states.count("IDLE") >= count

        found = {("all ready after", "s"): until(ready, "workers", every_s=0.1)}
        processes.settled(server.pid, quiet_percent=15, most_s=60)
        load = _load(server, window_s)
    found["idle, server", "% of a core"] = load["idle, server"]
    found["idle, all workers", "% of a core"] = load["idle, all below it"]
    found["memory of the server", "MB"] = load["server MB"]
    found["memory of a worker", "MB"] = load["workers MB"] / count
    return found


def main() -> None:
    parts = {part.__name__: part for part in (endpoints, jobs, connections, workers)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--endpoints", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--window", type=float, default=10.0, help="seconds over which idle CPU is measured")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--fill", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        folder, count, *names = options.fill
        asyncio.run(fill(Path(folder), int(count), names))
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = []
    print(f"{'':24} {'':48} {'':>10} {'small':>10}", flush=True)
    for name in options.only:
        for row in parts[name](options):
            figures.append(row)
            beside = "" if row.beside is None else f"{row.beside:10.2f}"
            print(f"{row.part:24} {row.what:48} {row.value:10.2f} {beside:>10} {row.unit}", flush=True)
    if options.json:
        document = {"machine": servers.machine(), "figures": [asdict(row) for row in figures]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
