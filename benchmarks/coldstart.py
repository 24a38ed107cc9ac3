"""What a worker's start costs: the first answer of an endpoint that has none, and the CPU time that it takes.

    python benchmarks/coldstart.py [--rounds 15]

Each round is a fresh `flashfw dev` with its caches warm. "first": the first call of all. "again": the worker was killed
before, as after an idle timeout; everything but the worker is there. The CPU time is the worker's own, from its begin
to the handler, and for "first" that of the whole tree of processes but the server meanwhile.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import servers
from startup import Figure, figure

QUIET_S = 1.5
"""So long after `dev` is ready its own start is over."""

PROJECT = {
    "flashfw.toml": '[project]\nname = "bench"\n',
    "endpoints/cold/handler.py": (
        "import os, time\n\n\ndef handler(input):\n    return {'cpu_s': time.process_time(), 'pid': os.getpid()}\n"
    ),
}


def ask(url: str) -> tuple[float, float, int]:
    """Seconds to the answer, CPU seconds of its worker so far, and that worker's process id."""
    begin = time.perf_counter()
    told = servers.answer(url, "POST", "/cold", servers.BODY)
    took_s = time.perf_counter() - begin
    if not isinstance(told, dict):
        raise SystemExit(f"POST {url}/cold was not answered with 200")
    return took_s, told["cpu_s"], told["pid"]


def below(pid: int) -> float:
    """CPU seconds of all processes below one, living ones and those that ended."""
    server = psutil.Process(pid)
    own = server.cpu_times()
    living = (each.cpu_times() for each in server.children(recursive=True))
    return own.children_user + own.children_system + sum(one.user + one.system for one in living)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + servers.START_S
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("the worker did not end")
        time.sleep(0.01)


def measure(rounds: int, project: Path) -> list[Figure]:
    taken: dict[str, list[float]] = {name: [] for name in ("first", "first, CPU", "again", "again, CPU")}
    for number in range(rounds + 1):
        with servers.flashfw_dev(project) as dev:
            time.sleep(QUIET_S)
            before_s = below(dev.pid)
            first_s, _, worker = ask(dev.url)
            spent_s = below(dev.pid) - before_s
            os.kill(worker, signal.SIGKILL)
            wait(lambda pid=worker: gone(pid))  # type: ignore[misc]
            time.sleep(0.3)
            again_s, own_s, _ = ask(dev.url)
        if number:  # the first round fills the caches
            for name, value in zip(taken, (first_s, spent_s, again_s, own_s), strict=True):
                taken[name].append(value)
    return [figure(name, seconds) for name, seconds in taken.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in servers.machine().items()), flush=True)
    with servers.folder(PROJECT) as project:
        rows = measure(given.rounds, project)
    print(f"{'':20} {'n':>4} {'p50 ms':>9} {'p95 ms':>9} {'least':>9}")
    for row in rows:
        print(f"{row.what:20} {row.count:4} {row.p50_ms:9} {row.p95_ms:9} {row.least_ms:9}")


if __name__ == "__main__":
    sys.exit(main())
