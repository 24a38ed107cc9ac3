"""Load by `wrk` on the loopback, and what it said."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import psutil
from turns import Missing, Turn

SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
{headers}
wrk.body = [[{body}]]
"""
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def script(folder: Path, body: bytes, headers: dict[str, str]) -> Path:
    """A file that makes wrk post the body, which must have no `]]`."""
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    path = folder / f"post-{len(body)}.lua"
    path.write_text(SCRIPT.format(headers=lines, body=body.decode()), encoding="utf-8")
    return path


def load(url: str, script: Path, server: int, *, connections: int, seconds: float) -> Turn:
    """One turn of load on the server of that process id; an error if any request failed."""
    if shutil.which("wrk") is None:
        raise Missing("wrk is not installed: apt-get install wrk")
    before = cpu_s(server)
    duration = f"-d{max(1, round(seconds))}s"
    command = ["wrk", "-t1", f"-c{connections}", duration, "--timeout", "30s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_s(server) - before
    return parse(said, used)


def parse(said: str, used_cpu_s: float) -> Turn:
    """The figures in what wrk printed.

    Raises:
        ValueError: some requests failed, or none was answered.
    """
    if failed := re.search(r"Non-2xx.*|Socket errors.*", said):
        raise ValueError(failed[0])
    rate, total = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
    if rate is None or total is None or total[1] == "0":
        raise ValueError(f"no request was answered: {said.strip()}")
    return Turn(float(rate[1]), _latency(said, 50), _latency(said, 99), 1e6 * used_cpu_s / int(total[1]))


def _latency(said: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", said, re.MULTILINE)
    if found is None:
        raise ValueError(f"no latency of {percent} %: {said.strip()}")
    return float(found[1]) * _UNITS_MS[found[2]]


def cpu_s(*servers: int) -> float:
    """The CPU time of processes and their descendants so far."""
    used = 0.0
    for server in servers:
        first = psutil.Process(server)
        for process in (first, *first.children(recursive=True)):
            try:
                used += sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
    return used
