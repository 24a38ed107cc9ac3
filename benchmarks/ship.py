"""How long verbs take that build and ship, on a project of three endpoints and on one of a hundred.

    python benchmarks/ship.py [--rounds 5] [--endpoints 100] [--json FILE]

Whole processes, against a `flashfw serve` of this machine that `ship local` starts. "CPU" is of the command alone; wall
times are those of a person, and what other load on the machine disturbs. "switched" is when calls go to the new code:
from the start of `ship`, with the start of a worker of the one endpoint that changed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import servers

JOB = "def handler(prompt: str, steps: int = 20) -> dict:\n    return {'prompt': prompt, 'steps': steps}\n"
SHIP = ("ship", "local", "--yes")


@dataclass(frozen=True)
class Figure:
    """One line of the table; seconds."""

    what: str
    endpoints: int
    p50_s: float
    least_s: float
    cpu_s: float


class User:
    """Somebody with a project, and folders of their own for keys, caches and the server's data."""

    def __init__(self, folder: Path, endpoints: int) -> None:
        folders = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")}
        self.environ = {**servers.environ(), **folders, "UV_CACHE_DIR": uv_cache()}
        self.root = folder
        self.run("new", "shop")
        self.root = folder / "shop"
        self.endpoints = len(list((self.root / "endpoints").rglob("endpoint.toml")))
        for number in range(endpoints - self.endpoints):
            added = self.root / f"endpoints/job_{number:03}"
            added.mkdir()
            (added / "handler.py").write_text(JOB, encoding="utf-8")
        self.endpoints = max(endpoints, self.endpoints)

    def run(self, *arguments: str) -> list[tuple[float, str]]:
        """The lines that a command writes to stderr, with the seconds since its start."""
        begin = time.perf_counter()
        told = []
        command = [servers.FLASHFW, *arguments]
        with subprocess.Popen(
            command, cwd=self.root, env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                told.append((time.perf_counter() - begin, line.strip()))
        if process.returncode:
            raise SystemExit("\n".join([f"{arguments} ended with {process.returncode}", *(line for _, line in told)]))
        return told

    def edit(self) -> None:
        """Change a line of one handler."""
        handler = self.root / "endpoints/hello/handler.py"
        handler.write_text(f"{handler.read_text('utf-8')}# {time.time()}\n", encoding="utf-8")


def uv_cache() -> str:
    return subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()


def measured(user: User, rounds: int) -> Iterator[Figure]:
    user.run(*SHIP)
    yield timed(user, "--help", ["--help"], rounds)
    yield timed(user, "build, nothing changed", ["build"], rounds)
    yield timed(user, "build, one line changed", ["build"], rounds, edits=True)
    yield timed(user, "ship --plan", ["ship", "local", "--plan"], rounds)
    user.run(*SHIP)
    yield timed(user, "ship, nothing changed", SHIP, rounds)
    yield timed(user, "ship, one line changed", SHIP, rounds, edits=True)
    yield timed(user, "... until switched", SHIP, rounds, edits=True, until="switched")
    yield timed(user, "status", ["status", "local"], rounds)


def timed(
    user: User, what: str, arguments: Sequence[str], rounds: int, *, edits: bool = False, until: str = ""
) -> Figure:
    wall, cpu = [], []
    for _ in range(rounds):
        if edits:
            user.edit()
        used, begin = cpu_s(), time.perf_counter()
        told = user.run(*arguments)
        wall.append(next(at for at, line in told if line == until) if until else time.perf_counter() - begin)
        cpu.append(cpu_s() - used)
    return Figure(what, user.endpoints, round(statistics.median(wall), 3), round(min(wall), 3), round(min(cpu), 3))


def cpu_s() -> float:
    """The CPU time of the commands so far; a server that one of them left behind is not among its children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    print(json.dumps(servers.machine()))
    print(f"{'':28}{'endpoints':>10}{'p50':>10}{'least':>10}{'CPU':>10}")
    figures = []
    for endpoints in (0, options.endpoints):
        with tempfile.TemporaryDirectory(prefix="flashfw-bench-") as name:
            user = User(Path(name), endpoints)
            try:
                for row in measured(user, options.rounds):
                    figures.append(row)
                    times = f"{row.p50_s:>8.2f} s{row.least_s:>8.2f} s{row.cpu_s:>8.2f} s"
                    print(f"{row.what:28}{row.endpoints:>10}{times}", flush=True)
            finally:
                user.run("remove", "local", "--yes", "--confirm", "local")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in figures], indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
