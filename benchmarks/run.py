"""All that is measured, or some rows of it; the results, and the page made of them.

    python benchmarks/run.py [--all] [--only ROW ...] [--rounds 3] [--large-rounds 1] [--seconds 2]
        [--results FILE]

Each row is kept as soon as it is measured, in the place of what the file had of it; a row that fails leaves the others.
`make bench` runs the rows that need no more than twenty minutes together, `make bench-all` (`--all`) every one. Peers
are installed on first use, each into an environment of its own under `.bench/`; `wrk` and `redis-server` are the
system's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import echo
import environments
import queues
import render
import servers
from running import end
from turns import Contender, interleaved

HERE = Path(__file__).resolve().parent
SCRIPT_S = 1800.0
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How long turns last, and how many rounds there are."""

    rounds: int
    large_rounds: int
    seconds: float

    def __str__(self) -> str:
        return f"--rounds {self.rounds} --large-rounds {self.large_rounds} --seconds {self.seconds:g}"


def in_turns(contenders: Callable[[float], Sequence[Contender]], size: Size) -> Row:
    told = partial(print, " ", flush=True)
    measured = interleaved(contenders(size.seconds), rounds=size.rounds, large=size.large_rounds, told=told)
    return {"figures": measured.figures(), "failures": measured.failures}


def script(name: str, *words: str) -> Callable[[Size], Row]:
    """A row that is a program of its own, which writes its figures where `--json` says."""

    def measure(size: Size) -> Row:
        with tempfile.TemporaryDirectory(prefix="flashfw-bench-") as folder:
            found = Path(folder) / "figures.json"
            command = [sys.executable, str(HERE / name), *words, "--json", str(found)]
            # Of a session of its own: what it has started is ended by it, or else with it, never by Ctrl-C half-way.
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
                try:
                    _, errors = started.communicate(timeout=SCRIPT_S)
                finally:
                    end(started)
            if started.returncode:
                said = (errors.strip().splitlines() or [""])[-1]
                return {"figures": [], "failures": {name: f"ended with {started.returncode}: {said[-300:]}"}}
            document = json.loads(found.read_text("utf-8"))
        return {"figures": lines(document), "failures": {}}

    return measure


def lines(document: Any) -> list[Row]:
    """The figures in what a script wrote: alone, or beside the machine that they are of."""
    found: list[Row] = document if isinstance(document, list) else document["figures"]
    return found


ROWS: dict[str, Callable[[Size], Row]] = {
    "http": partial(in_turns, echo.contenders),
    "queues": partial(in_turns, queues.contenders),
    "cold": script("coldstart.py", "--rounds", "9"),
    "reload": script("reload.py"),
    "cli": script("collect.py"),
    "build": script("build.py", "--rounds", "2"),
    "million": script("store.py", "--only", "queued", "--jobs", "4000", "--rounds", "3"),
    "streams": script("streams.py"),
    "torch": script("coldstart.py", "--torch", "--rounds", "5"),
    "larger": partial(in_turns, echo.larger),
    "scale": script("scale.py"),
}
ONLY_ALL = ("torch", "larger", "scale")


def machine() -> dict[str, str]:
    """What the figures depend on: the machine, versions, and how durable each store is."""
    ours = {name: servers.machine()[name] for name in servers.PEERS}
    peers = {name: version for peer in _peers() for name, version in environments.pinned(peer).items()}
    return {
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "disk": f"{tempfile.gettempdir()} on {_filesystem(tempfile.gettempdir())}",
        "Python": platform.python_version(),
        "flashfw and its own environment": ", ".join(f"{name} {version}" for name, version in ours.items()),
        "peers": ", ".join(f"{name} {version}" for name, version in peers.items()),
        "programs": ", ".join(_said(*command) for command in (("wrk", "--version"), ("redis-server", "--version"))),
    }


def _peers() -> list[str]:
    return sorted(each.parent.name for each in environments.PEERS.glob("*/requirements.txt"))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _filesystem(folder: str) -> str:
    return _said("stat", "--file-system", "--format", "%T", folder)


def _said(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True).stdout.partition("\n")[0]
    except OSError:
        return f"no {command[0]}"
    return " ".join(said.split()[:3])


def measure(name: str, size: Size) -> Row:
    """One row; what it failed of is in it."""
    load, began = os.getloadavg()[0], time.monotonic()
    try:
        row = ROWS[name](size)
    except (Exception, SystemExit) as error:
        row = {"figures": [], "failures": {name: f"{type(error).__name__}: {error}"[:300]}}
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    command = f"python benchmarks/run.py --only {name} {size}"
    about = {"measured_at": now, "load": f"{load:.1f}", "took_s": round(time.monotonic() - began), "command": command}
    return {**about, **row}


def at_least_one(text: str) -> int:
    """A count as an option gives it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def seconds(text: str) -> float:
    """A time as an option gives it; wrk knows whole seconds alone."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1 <= found <= SCRIPT_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to {SCRIPT_S:g}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, help="these rows")
    parser.add_argument("--all", action="store_true", help="also BentoML, Ray Serve, and the figures of size")
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--large-rounds", type=at_least_one, default=1, help="of bodies of 10 kB and 1 MB")
    lasting = "of a turn, for each size and number of connections"
    parser.add_argument("--seconds", type=seconds, default=2.0, help=lasting)
    parser.add_argument("--results", type=Path, default=render.LATEST)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is ended, as by Ctrl-C
    results = json.loads(options.results.read_text("utf-8")) if options.results.exists() else {"rows": {}}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    results["machine"] = machine()
    for name in options.only or [name for name in ROWS if options.all or name not in ONLY_ALL]:
        print(f"{name}:", flush=True)
        row = measure(name, Size(options.rounds, options.large_rounds, options.seconds))
        for what, why in row["failures"].items():
            print(f"  not measured: {what}: {why}", flush=True)
        results["rows"][name] = row
        options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.results == render.LATEST:
        render.write(results)
    print(render.reached(results))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
