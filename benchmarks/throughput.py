"""Requests per second through `flashfw dev`, against bare Starlette on uvicorn in one process.

    python benchmarks/throughput.py [--seconds 10] [--rounds 2] [--connections 1 32] [--json FILE]

What a change to the hot path is tried with: it has no peers to install. Needs `wrk`. All three answer the same POST of
a small JSON object with that object; each in turn, so that all meet the same disturbance; medians of the rounds. "CPU
us" is what the server's processes used per request, workers included: the figure that other load on the machine
disturbs least.

flashfw's calls go through the gateway to one isolated worker. A job is also written to the store when it comes and when
it is done, and answered after that commit; `dev` writes with `synchronous=NORMAL`: a job survives the death of the
process, not of the machine's power.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import servers
import wrk
from turns import Turn

PEER = "bare Starlette"
HEAD = ("per s", "p50 ms", "p99 ms", "CPU us", "of peer")


@dataclass(frozen=True)
class Figure:
    """One line of the table: medians of the rounds, and the ratio to the peer at as many connections."""

    what: str
    connections: int
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    of_peer: float


def figures(runs: dict[str, list[Turn]], connections: int) -> Iterator[Figure]:
    rates = {what: statistics.median(run.per_s for run in each) for what, each in runs.items()}
    for what, each in runs.items():
        _, p50, p99, cpu = (round(statistics.median(values), 2) for values in zip(*map(astuple, each), strict=True))
        yield Figure(what, connections, round(rates[what]), p50, p99, round(cpu), round(rates[what] / rates[PEER], 2))


def measure(connections: Sequence[int], *, rounds: int, seconds: int) -> Iterator[Figure]:
    with (
        servers.folder(servers.PROJECT) as project,
        servers.folder(servers.STARLETTE) as other,
        servers.flashfw_dev(project) as dev,
        servers.starlette(other) as bare,
        tempfile.TemporaryDirectory() as scripts,
    ):
        script = wrk.script(Path(scripts), servers.BODY, {})
        urls = {PEER: (bare, "/web"), "flashfw HTTP": (dev, "/web"), "flashfw job": (dev, "/job")}
        for server, path in urls.values():
            wrk.load(server.url + path, script, server.pid, connections=4, seconds=1)
        for count in connections:
            runs: dict[str, list[Turn]] = {what: [] for what in urls}
            for _ in range(rounds):
                for what, (server, path) in urls.items():
                    url = server.url + path
                    runs[what].append(wrk.load(url, script, server.pid, connections=count, seconds=seconds))
            yield from figures(runs, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    machine = {**servers.machine(), "synchronous": "NORMAL"}
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    print(f"{'':16} {'connections':>11}", *(f"{name:>8}" for name in HEAD), flush=True)
    rows = []
    for row in measure(given.connections, rounds=given.rounds, seconds=given.seconds):
        rows.append(row)
        shown = f"{row.per_s:8.0f} {row.p50_ms:8} {row.p99_ms:8} {row.cpu_us:8} {row.of_peer:8}"
        print(f"{row.what:16} {row.connections:11} {shown}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine, "figures": [asdict(row) for row in rows]}, indent=2))


if __name__ == "__main__":
    main()
