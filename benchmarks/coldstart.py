"""What a worker's start costs: the first answer of an endpoint that has none, and the CPU time that it takes.

    python benchmarks/coldstart.py [--rounds 15] [--torch] [--json FILE]

Each round is a fresh `flashfw dev` with its caches warm. "first": the first call of all, once the start of `dev` itself
is over. "again": the worker was killed before, as after an idle timeout; everything but the worker is there. The CPU
time is the worker's own, from its begin to the handler, and for "first" that of the whole tree of processes but the
server meanwhile. `--torch` does the same with `preload = ["torch"]` and a handler that uses it; the packages are
installed at first, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil
import servers
from startup import Figure, figure

QUIET_S = 3.0
"""So long after `dev` is ready its own start is over."""
WARM_S = 30.0
"""So long an import of torch may take on top of that."""
INSTALL_S = 900.0

PROJECT = {
    "flashfw.toml": '[project]\nname = "bench"\n',
    "endpoints/cold/handler.py": (
        "import os, time\n\n\ndef handler(input):\n    return {'cpu_s': time.process_time(), 'pid': os.getpid()}\n"
    ),
}

TORCH = {
    "flashfw.toml": '[project]\nname = "bench"\n',
    "endpoints/cold/endpoint.toml": 'dependencies = ["torch==2.13.0", "numpy"]\npreload = ["torch"]\n',
    "endpoints/cold/handler.py": """\
import os
import time

import torch


def handler(input):
    total = torch.ones(8, 8).sum().item()
    return {"cpu_s": time.process_time(), "pid": os.getpid(), "total": total}
""",
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


def zygotes(pid: int) -> list[psutil.Process]:
    """The warm processes below a server."""
    return [one for one in psutil.Process(pid).children() if any("run_zygote" in word for word in one.cmdline())]


def install(project: Path) -> bool:
    """Have the packages of a project installed; whether that went well."""
    with servers.flashfw_dev(project) as dev:
        until = time.monotonic() + INSTALL_S
        while servers.answer(dev.url, "POST", "/cold", servers.BODY) is None:
            if time.monotonic() > until:
                return False
            time.sleep(1.0)
    return True


def measure(name: str, rounds: int, project: Path, quiet_s: float) -> list[Figure]:
    taken: dict[str, list[float]] = {row: [] for row in ("first", "first, CPU", "again", "again, CPU")}
    for number in range(rounds + 1):
        with servers.flashfw_dev(project) as dev:
            time.sleep(quiet_s)
            before_s = below(dev.pid)
            first_s, _, worker = ask(dev.url)
            spent_s = below(dev.pid) - before_s
            os.kill(worker, signal.SIGKILL)
            wait(lambda pid=worker: gone(pid))  # type: ignore[misc]
            time.sleep(0.3)
            again_s, own_s, _ = ask(dev.url)
            warm = zygotes(dev.pid)
            memory = [round(one.memory_full_info().uss / 1e6) for one in warm]
        if number:  # the first round fills the caches
            for row, value in zip(taken, (first_s, spent_s, again_s, own_s), strict=True):
                taken[row].append(value)
    print(f"{name}: warm processes and the memory that is their own: {memory} MB", flush=True)
    return [figure(f"{name}: {row}", seconds) for row, seconds in taken.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    machine = servers.machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    with servers.folder(PROJECT) as project:
        rows = measure("stdlib", given.rounds, project, QUIET_S)
    if given.torch:
        with servers.folder(TORCH) as project:
            if install(project):
                rows += measure("torch", given.rounds, project, QUIET_S + WARM_S)
            else:
                print(f"torch is left out: it could not be installed within {INSTALL_S:.0f} s")
    print(f"{'':24} {'n':>4} {'p50 ms':>9} {'p95 ms':>9} {'least':>9}")
    for row in rows:
        print(f"{row.what:24} {row.count:4} {row.p50_ms:9} {row.p95_ms:9} {row.least_ms:9}")
    if given.json:
        given.json.write_text(json.dumps({"machine": machine, "figures": [asdict(row) for row in rows]}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
