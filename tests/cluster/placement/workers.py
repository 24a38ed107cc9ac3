"""Scripts that stand where a worker's launcher stands, so that a test decides what the process does."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import flashfw
from flashfw.cluster.placement.base import WorkerSpec

_never = threading.Event()

HOLD = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
link.sendall(b"up\\n")
link.recv(1)
"""
"""Says that it is up and lives until the other end is gone or says something."""

FAMILY = """
import os, signal, socket, subprocess, sys
link = socket.socket(fileno=int(sys.argv[1]))
sleep = [sys.executable, "-c", "import signal; signal.pause()"]
member = subprocess.Popen(sleep)
apart = subprocess.Popen(sleep, start_new_session=True)
link.sendall(f"{os.getpid()} {member.pid} {apart.pid}\\n".encode())
signal.pause()
"""
"""Deaf to its link, as a worker inside C code is; one child in its group, one that left it."""


ZYGOTE = f"""
import sys
sys.path.insert(1, {str(Path(flashfw.__file__).parent.parent)!r})
from flashfw.worker.zygote import main
main(int(sys.argv[1]), sys.argv[2:])
"""
"""As the one that ships, but it takes this very flashfw, which does not lie beside it."""


def spec(
    folder: Path, script: str, *, worker: str = "w-1", preload: tuple[str, ...] = (), **environ: str
) -> WorkerSpec:
    """A worker that runs the script under this interpreter."""
    overlay = folder / f"overlay-{worker}"
    overlay.mkdir(parents=True, exist_ok=True)
    (overlay / "run_worker.py").write_text(script)
    (overlay / "run_zygote.py").write_text(ZYGOTE)
    return WorkerSpec(
        worker=worker,
        endpoint="a",
        python=Path(sys.executable),
        overlay=overlay,
        root=folder,
        environ=environ,
        preload=preload,
    )


def until(condition: Callable[[], bool], what: str, *, deadline_s: float = 30.0) -> None:
    """Return as soon as the condition holds; fail with `what` when it does not in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        _never.wait(0.01)


def is_running(pid: int) -> bool:
    """Whether a process of that id runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
