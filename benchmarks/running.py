"""Processes that are measured: started, waited for, and ended with all that they started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import servers
from turns import Missing

START_S = 90.0
STOP_S = 10.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def process(command: Sequence[str | Path], folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[int]:
    """A process in the folder, by its id, and the end of it and all its descendants.

    Its output is shown when the block raises: it says best why nothing answered.
    """
    variables = {**servers.environ(), **(environ or {})}
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as started,
    ):
        try:
            yield started.pid
        except Missing:
            raise
        except Exception as error:
            raise RuntimeError(f"{error}; {Path(str(command[0])).name} said: {_last(output)}") from error
        finally:
            end(started)


def _last(output: object) -> str:
    assert hasattr(output, "fileno")
    said = os.pread(output.fileno(), 100_000, 0).decode(errors="replace").split("\n")
    return " | ".join(line.strip() for line in said[-12:] if line.strip())[-600:]


def end(started: subprocess.Popen[Any]) -> None:
    """Asks the process, which leads a group, to end, and kills what is left of it: some peers leave daemons behind."""
    if started.poll() is not None:
        return
    try:
        below = psutil.Process(started.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        started.send_signal(number)
        try:
            started.wait(STOP_S)
            break
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(started.pid, signal.SIGKILL)  # what was started meanwhile, too
    except ProcessLookupError:
        pass
    for each in below:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(below, timeout=STOP_S)


def until_echo(url: str, path: str, key: str = "") -> None:
    """Waits until a POST is answered with its body.

    Raises:
        TimeoutError: that did not happen.
    """
    until = time.monotonic() + START_S
    while servers.answer(url, "POST", path, servers.BODY, key=key) != json.loads(servers.BODY):
        if time.monotonic() > until:
            raise TimeoutError(f"POST {path} was not answered with its body within {START_S:g} s")
        time.sleep(0.05)


@contextmanager
def redis(mode: str, folder: Path) -> Iterator[tuple[int, int]]:
    """A Redis of its own, as its port and process id; `mode` is `off` (memory alone), `everysec` or `always`."""
    port = free_port()
    aof = ["--appendonly", "no"] if mode == "off" else ["--appendonly", "yes", "--appendfsync", mode]
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", *aof]
    with process(command, folder) as pid:
        until = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield port, pid
