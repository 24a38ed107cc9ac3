"""Workers as processes of this machine: each leads a group of its own, and none outlives the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import anyio

from flashfw.cluster.placement.base import WorkerSpec
from flashfw.errors import FlashfwError

LAST_OUTPUT_BYTES = 64 * 1024


class PlacementError(FlashfwError):
    """A worker process could not be started."""


class ProcessPlacement:
    """Starts workers on this machine. Lives as long as its server.

    Each worker is noted in `state/workers` with its process id and start time, so that the next server
    over the same state finds what this one leaves when it is killed, and never kills a stranger that got
    the same id.
    """

    def __init__(self, state: Path) -> None:
        self._records = state / "workers"
        self._running: set[WorkerProcess] = set()

    async def start(self, spec: WorkerSpec) -> WorkerProcess:
        self._records.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # Appending, since both sides share one offset: reading it must not move where the worker writes.
        output = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - it lives as long as the process
        try:
            with theirs:
                popen = _spawn(spec, theirs.fileno(), output)
        except OSError as error:
            ours.close()
            output.close()
            raise PlacementError(f"cannot start {spec.python}: {error.strerror or error}") from error
        ours.setblocking(False)
        record = self._records / f"{spec.worker}.json"
        record.write_text(json.dumps({"pid": popen.pid, "started": start_time(popen.pid)}), encoding="utf-8")
        process = WorkerProcess(popen, ours, output, record)
        self._running.add(process)
        process.on_end = self._running.discard
        return process

    async def sweep(self) -> list[int]:
        swept = []
        for record in sorted(self._records.glob("*.json")):
            try:
                value = json.loads(record.read_text(encoding="utf-8"))
                pid, started = int(value["pid"]), value["started"]
            except (OSError, ValueError, KeyError, TypeError):
                record.unlink(missing_ok=True)
                continue
            if started is not None and start_time(pid) == started:
                kill_group(pid)
                swept.append(pid)
            record.unlink(missing_ok=True)
        return swept

    async def close(self) -> None:
        for process in list(self._running):
            process.kill()
            await process.wait()


class WorkerProcess:
    """One worker process and its group."""

    def __init__(self, popen: subprocess.Popen[bytes], sock: socket.socket, output: IO[bytes], record: Path) -> None:
        self.pid = popen.pid
        self.sock = sock
        self.on_end: Callable[[WorkerProcess], None] = _nobody
        self._popen = popen
        self._output = output
        self._record = record
        self._last = ""
        self._ending = anyio.Lock()
        # A thread waits for each worker; it must not be one of those that other work shares.
        self._thread = anyio.CapacityLimiter(1)

    @property
    def last_output(self) -> str:
        if not self._output.closed:
            size = self._output.seek(0, os.SEEK_END)
            self._output.seek(max(0, size - LAST_OUTPUT_BYTES))
            self._last = self._output.read().decode(errors="replace")
        return self._last

    async def wait(self) -> int:
        async with self._ending:
            if self._popen.returncode is None:
                await anyio.to_thread.run_sync(self._popen.wait, abandon_on_cancel=True, limiter=self._thread)
            self._end()
        code = self._popen.returncode
        assert code is not None
        return code

    def kill(self) -> None:
        kill_group(self.pid)

    def _end(self) -> None:
        """The leader is gone: whatever else is left in its group goes too."""
        kill_group(self.pid)
        self._record.unlink(missing_ok=True)
        _ = self.last_output
        self._output.close()
        self.on_end(self)


def _nobody(process: WorkerProcess) -> None:
    """Whom to tell of an end by default."""


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that `pid` leads; nothing happens if it is gone."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def start_time(pid: int) -> str | None:
    """When a process started, in a form that only compares; None if there is no such process.

    Linux: field 22 of /proc/PID/stat, in clock ticks since boot (proc(5)). Elsewhere what ps says.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def _spawn(spec: WorkerSpec, descriptor: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [spec.python, spec.overlay / "run_worker.py", str(descriptor)],
        cwd=spec.root,
        env=dict(spec.environ),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=[descriptor],
        start_new_session=True,
    )
