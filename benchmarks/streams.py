"""What streams take: from a `yield` to its arrival at the client, a gigabyte each way, and a client that does not read.

    python benchmarks/streams.py [--calls 100] [--gigabytes 1] [--json FILE]

The same functions under `flashfw dev` and on bare Starlette (uvicorn, uvloop, httptools), in turn. "first" is the first
item of a fresh call, "next" those that follow it, 10 ms apart: the handler yields the time, the client compares it with
its own. Peak memory is what a process had at most, less what it had before. A client that does not read asks for a
gigabyte and waits: the generator has to stop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import servers

GIGABYTE = 1 << 30
PIECE = 65536
ITEMS = 6
STALL_S = 3.0

HANDLERS = {
    "items": (
        "import asyncio, time\n\n\nasync def get(count: int = 6):\n    for _ in range(count):\n"
        "        yield f'{time.monotonic()}\\n'\n        await asyncio.sleep(0.01)\n"
    ),
    "items_sync": (
        "import time\n\n\ndef get(count: int = 6):\n    for _ in range(count):\n"
        "        yield f'{time.monotonic()}\\n'\n        time.sleep(0.01)\n"
    ),
    "events": (
        "import asyncio, time\n\n\nasync def get(count: int = 6):\n    for _ in range(count):\n"
        "        yield time.monotonic()\n        await asyncio.sleep(0.01)\n"
    ),
    "job": (
        "import time\n\n\ndef handler(count: int = 6):\n    for _ in range(count):\n"
        "        yield time.monotonic()\n        time.sleep(0.01)\n"
    ),
    "large": "PIECE = bytes(65536)\n\n\nasync def get(count: int):\n    for _ in range(count):\n        yield PIECE\n",
    "large_sync": "PIECE = bytes(65536)\n\n\ndef get(count: int):\n    for _ in range(count):\n        yield PIECE\n",
    "upload": (
        "from starlette.requests import Request\n\n\nasync def post(request: Request):\n    total = 0\n"
        "    async for piece in request.stream():\n        total += len(piece)\n    return total\n"
    ),
}
PROJECT = {"flashfw.toml": '[project]\nname = "bench"\n'}
for _name, _text in HANDLERS.items():
    PROJECT[f"endpoints/{_name}/handler.py"] = _text
    PROJECT[f"endpoints/{_name}/endpoint.toml"] = "workers = [1, 1]\n"

STARLETTE = {
    "edited.py": "async def get():\n    return 0\n",
    "bare.py": """\
import asyncio
import time

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

PIECE = bytes(65536)


async def times(count):
    for _ in range(count):
        yield f"{time.monotonic()}\\n"
        await asyncio.sleep(0.01)


def times_sync(count):
    for _ in range(count):
        yield f"{time.monotonic()}\\n"
        time.sleep(0.01)


async def pieces(count):
    for _ in range(count):
        yield PIECE


def pieces_sync(count):
    for _ in range(count):
        yield PIECE


def streaming(of):
    async def answer(request):
        return StreamingResponse(of(int(request.query_params["count"])))

    return answer


async def upload(request):
    total = 0
    async for piece in request.stream():
        total += len(piece)
    return JSONResponse(total)


async def edited(request):
    return JSONResponse(0)


app = Starlette(
    routes=[
        Route("/items", streaming(times)),
        Route("/items_sync", streaming(times_sync)),
        Route("/large", streaming(pieces)),
        Route("/large_sync", streaming(pieces_sync)),
        Route("/upload", upload, methods=["POST"]),
        Route("/edited", edited),
    ]
)
""",
}


@dataclass(frozen=True)
class Row:
    """One line of the tables."""

    who: str
    what: str
    figures: dict[str, float]


def flat(row: Row) -> dict[str, object]:
    """As one line of the page."""
    return {"who": row.who, "what": row.what, **row.figures}


def delays(url: str, path: str, calls: int) -> tuple[list[float], list[float]]:
    """Milliseconds from yield to arrival, of first items and of those that follow."""
    first: list[float] = []
    later: list[float] = []
    for _ in range(calls):
        took = [1000 * (came - float(text)) for came, text in items(url, path)]
        first.append(took[0])
        later += took[1:]
    return first, later


def items(url: str, path: str) -> Iterator[tuple[float, str]]:
    """When each item came, and what it says."""
    connection = servers.connect(url)
    if path == "/job":
        headers = {"accept": "text/event-stream", "content-type": "application/json"}
        connection.request("POST", path, json.dumps({"count": ITEMS}), headers)
    else:
        accept = {"accept": "text/event-stream"} if path == "/events" else {}
        connection.request("GET", f"{path}?count={ITEMS}", headers=accept)
    response = connection.getresponse()
    while line := response.readline():
        came, text = time.monotonic(), line.decode().strip()
        if path == "/job":
            told = json.loads(text[5:]) if text.startswith("data:") else None
            text = str(told.get("output", "")) if isinstance(told, dict) and "index" in told else ""
        text = text.removeprefix("data: ")
        if text and text[0].isdigit():
            yield came, text
    connection.close()


class Peak:
    """The most memory that a server's processes have while the block runs, above what they had at its begin."""

    def __init__(self, pid: int) -> None:
        server = psutil.Process(pid)
        workers = [one for one in server.children(recursive=True) if any("run_" in word for word in one.cmdline())]
        self._processes = [server, *workers]
        self._over = threading.Event()

    def __enter__(self) -> Peak:
        self._before = [one.memory_info().rss for one in self._processes]
        self._most = list(self._before)
        self._cpu = sum(sum(one.cpu_times()[:2]) for one in self._processes)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s = sum(sum(one.cpu_times()[:2]) for one in self._processes) - self._cpu
        self._over.set()
        self._thread.join()
        grown = [(most - before) / 1e6 for most, before in zip(self._most, self._before, strict=True)]
        self.server_mb, self.workers_mb = round(grown[0], 1), round(max(grown[1:], default=0.0), 1)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            now = [one.memory_info().rss for one in self._processes]
            self._most = [max(pair) for pair in zip(self._most, now, strict=True)]


def download(server: servers.Server, path: str, size: int) -> Row:
    connection = servers.connect(server.url)
    buffer = bytearray(1 << 20)
    with Peak(server.pid) as peak:
        begin = time.perf_counter()
        connection.request("GET", f"{path}?count={size // PIECE}")
        response = connection.getresponse()
        got = 0
        while count := response.readinto(buffer):
            got += count
        took_s = time.perf_counter() - begin
    connection.close()
    assert got == size, f"{got} of {size} bytes came"
    return of_size(path, size, took_s, peak)


def upload(server: servers.Server, size: int) -> Row:
    connection = servers.connect(server.url)
    piece = bytes(PIECE)
    with Peak(server.pid) as peak:
        begin = time.perf_counter()
        connection.putrequest("POST", "/upload")
        connection.putheader("content-length", str(size))
        connection.endheaders()
        for _ in range(size // PIECE):
            connection.send(piece)
        told = json.loads(connection.getresponse().read())
        took_s = time.perf_counter() - begin
    connection.close()
    assert told == size, f"{told} of {size} bytes came"
    return of_size("/upload", size, took_s, peak)


def stalled(server: servers.Server, path: str, size: int) -> Row:
    connection = servers.connect(server.url)
    with Peak(server.pid) as peak:
        connection.request("GET", f"{path}?count={size // PIECE}")
        time.sleep(STALL_S)
    connection.close()
    time.sleep(0.5)
    return Row("", f"{path}, not read", {"server_mb": peak.server_mb, "worker_mb": peak.workers_mb})


def of_size(path: str, size: int, took_s: float, peak: Peak) -> Row:
    figures = {
        "mb_per_s": round(size / 1e6 / took_s),
        "cpu_s_per_gb": round(peak.cpu_s * 1e9 / size, 2),
        "server_mb": peak.server_mb,
        "worker_mb": peak.workers_mb,
    }
    return Row("", path, figures)


def latency(url: str, path: str, calls: int) -> Iterator[Row]:
    delays(url, path, 5)
    for what, taken in zip(("first", "next"), delays(url, path, calls), strict=True):
        ordered = sorted(taken)
        figures = {"p50_ms": statistics.median(ordered), "p95_ms": ordered[int(0.95 * (len(ordered) - 1))]}
        yield Row("", f"{path}, {what}", {name: round(value, 3) for name, value in figures.items()})


def measure(server: servers.Server, paths: list[str], calls: int, size: int) -> Iterator[Row]:
    for path in paths:
        yield from latency(server.url, path, calls)
    for path in ("/large", "/large_sync"):
        yield download(server, path, size)
    yield upload(server, size)
    for path in ("/large", "/large_sync"):
        yield stalled(server, path, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    machine = servers.machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    size = int(given.gigabytes * GIGABYTE) // PIECE * PIECE
    rows: list[Row] = []
    with servers.folder(PROJECT) as project, servers.folder(STARLETTE) as bare:
        for who, starting in (("starlette", servers.starlette(bare)), ("flashfw", servers.flashfw_dev(project))):
            paths = ["/items", "/items_sync"] if who == "starlette" else ["/items", "/items_sync", "/events", "/job"]
            with starting as server:
                for row in measure(server, paths, given.calls, size):
                    rows.append(Row(who, row.what, row.figures))
                    shown = "  ".join(f"{name} {value}" for name, value in row.figures.items())
                    print(f"{who:10} {row.what:24} {shown}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine, "figures": list(map(flat, rows))}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
