"""How long a person waits: for a command, for `dev` to be ready, for an answer.

    python benchmarks/startup.py [--rounds 11] [--endpoints 1000] [--json FILE]

Everything is measured from outside, process start included, and in turn with its peer, so that both meet the same
disturbance. A saved file has a program of its own: reload.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import servers

STARTS = 5


@dataclass(frozen=True)
class Figure:
    """One line of the table; times are in milliseconds."""

    what: str
    count: int
    p50_ms: float
    p95_ms: float
    least_ms: float


def figure(what: str, seconds: Sequence[float]) -> Figure:
    ordered = sorted(1000 * second for second in seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return Figure(what, len(ordered), round(statistics.median(ordered), 2), round(p95, 2), round(ordered[0], 2))


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def commands(rounds: int, small: Path, large: Path) -> Iterator[Figure]:
    """Commands that need no server, in turn, after one start of each that fills the caches."""
    count = len(list((large / "endpoints").iterdir()))
    each = {
        "python -c pass": (small, [sys.executable, "-c", "pass"]),
        "flashfw --help": (small, [servers.FLASHFW, "--help"]),
        "flashfw collect": (small, [servers.FLASHFW, "collect"]),
        f"flashfw collect, {count} endpoints": (large, [servers.FLASHFW, "collect"]),
        "flashfw check": (small, [servers.FLASHFW, "check"]),
        f"flashfw check, {count} endpoints": (large, [servers.FLASHFW, "check"]),
    }
    yield from in_turn(rounds, {what: started(folder, command) for what, (folder, command) in each.items()})


def started(folder: Path, command: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(
        command, cwd=folder, env=servers.environ(), stdin=subprocess.DEVNULL, capture_output=True, check=True
    )


def in_turn(rounds: int, works: dict[str, Callable[[], object]]) -> Iterator[Figure]:
    taken: dict[str, list[float]] = {what: [] for what in works}
    for _ in range(rounds + 1):
        for what, work in works.items():
            taken[what].append(timed(work))
    yield from (figure(what, seconds[1:]) for what, seconds in taken.items())


def starts(project: Path) -> Iterator[Figure]:
    """`dev` until it says that it serves, and the first answer of an endpoint that has no worker yet."""
    ready, cold = [], []
    for _ in range(STARTS + 1):
        begin = time.perf_counter()
        with servers.flashfw_dev(project) as dev:
            ready.append(time.perf_counter() - begin)
            cold.append(timed(lambda url=dev.url: expect(url, "/cold")))  # type: ignore[misc]
    yield figure("flashfw dev to ready", ready[1:])
    yield figure("first answer at zero workers", cold[1:])


def expect(url: str, path: str) -> None:
    if servers.answer(url, "POST", path, servers.BODY) is None:
        raise SystemExit(f"POST {url}{path} was not answered with 200")


def warm(rounds: int, project: Path, dev: str, bare: str) -> Iterator[Figure]:
    """Answers on one open connection, in turns of 50, and `call` as a command."""
    paths = {"bare Starlette": bare + "/web", "flashfw HTTP": dev + "/web", "flashfw job": dev + "/job"}
    taken: dict[str, list[float]] = {what: [] for what in paths}
    for _ in range(rounds):
        for what, url in paths.items():
            base, _, path = url.rpartition("/")
            taken[what] += turn(base, f"/{path}", count=50)
    yield from (figure(f"warm answer, one connection: {what}", seconds) for what, seconds in taken.items())
    command = [servers.FLASHFW, "call", "job", servers.BODY.decode()]
    yield from in_turn(rounds, {"flashfw call": started(project, command)})


def turn(url: str, path: str, *, count: int) -> list[float]:
    connection = servers.connect(url)
    headers = {"content-type": "application/json"}

    def ask() -> None:
        connection.request("POST", path, servers.BODY, headers)
        if connection.getresponse().read() is None:
            raise SystemExit(f"{path} gave no answer")

    try:
        ask()
        return [timed(ask) for _ in range(count)]
    finally:
        connection.close()


def large(endpoints: int) -> dict[str, str]:
    job = "def handler(prompt: str, steps: int = 20) -> dict:\n    return {'prompt': prompt, 'steps': steps}\n"
    named = (f"endpoints/job_{number:04}" for number in range(endpoints))
    files = {f"{name}/{file}": text for name in named for file, text in (("handler.py", job), ("endpoint.toml", ""))}
    return {"flashfw.toml": "", **files}


def measure(rounds: int, endpoints: int) -> Iterator[Figure]:
    with servers.folder(servers.PROJECT) as project, servers.folder(servers.STARLETTE) as other:
        with servers.folder(large(endpoints)) as tree:
            yield from commands(rounds, project, tree)
        yield from starts(project)
        with servers.flashfw_dev(project) as dev, servers.starlette(other) as bare:
            yield from warm(rounds, project, dev.url, bare.url)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    machine = servers.machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    print(f"{'':50} {'n':>5} {'p50 ms':>9} {'p95 ms':>9} {'least':>9}", flush=True)
    figures = []
    for row in measure(given.rounds, given.endpoints):
        figures.append(row)
        print(f"{row.what:50} {row.count:5} {row.p50_ms:9} {row.p95_ms:9} {row.least_ms:9}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine, "figures": [asdict(row) for row in figures]}, indent=2))


if __name__ == "__main__":
    main()
