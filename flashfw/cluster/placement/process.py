"""Workers as processes of this machine: each leads a session and a group of its own, and none outlives its server.

What ends them, by what happened to the server:

- it stops: `close` kills and waits;
- it was killed: each worker sees the end of its link and kills its own group, and a guard kills the
  groups of those that cannot (C code that never gives Python a turn);
- it was killed together with the guard: `sweep` of the next server over the same state.

Killing a worker takes its group and, on Linux, every process below it, in whatever group. A worker that ends by
itself takes its group with it; a daemon that left the group before is then not known any more. The server is no
subreaper for such: that is a setting of its whole process, and would make it the parent of strangers.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import anyio

from flashfw.cluster.placement.base import PlacementError, WorkerSpec
from flashfw.cluster.placement.child import Child, Spawned, WorkerProcess, begin, discard
from flashfw.cluster.placement.register import Register

OOM_SCORE_ADJUSTMENT = 500
"""When memory runs out, Linux ends a worker and not the server with everybody's jobs."""


class ProcessPlacement:
    """Starts workers on this machine; `state` is the server's folder, in which running workers are noted.

    Lives as long as its server, on one event loop.
    """

    def __init__(self, state: Path) -> None:
        self._register = Register(state / "workers")
        self._running: dict[int, WorkerProcess] = {}
        self._starts = 0
        self._all_started: anyio.Event | None = None
        self._closed = False
        # One at a time: an exec takes a few milliseconds, and the gateway's loop goes on meanwhile.
        self._spawning = anyio.CapacityLimiter(1)

    async def start(self, spec: WorkerSpec) -> WorkerProcess:
        """Start a worker.

        Raises:
            PlacementError: there is no such interpreter or directory, or the machine has no room for it.
        """
        self._starts += 1
        try:
            process = await self._start(spec)
        finally:
            self._starts -= 1
            if not self._starts and self._all_started is not None:
                self._all_started.set()
        if self._closed:
            process.kill()
        return process

    async def prepare(self, spec: WorkerSpec) -> None:
        """Nothing can be done ahead of a spawn."""

    async def sweep(self) -> list[int]:
        """Kill what a dead server left behind; the process ids."""
        return await anyio.to_thread.run_sync(self._register.sweep)

    async def close(self) -> None:
        """Kill what still runs, and start nothing more."""
        self._closed = True
        if self._starts:  # those under way end before; no other begins
            self._all_started = anyio.Event()
            await self._all_started.wait()
        running = list(self._running.values())
        for process in running:
            process.kill()
        for process in running:
            await process.wait()
        await self._end_helpers()
        await anyio.to_thread.run_sync(self._register.close)

    async def _end_helpers(self) -> None:
        """End what was started beside workers; all of those have ended."""

    async def _start(self, spec: WorkerSpec) -> WorkerProcess:
        return await self._spawn(spec)

    async def _spawn(self, spec: WorkerSpec, origin: str = "spawned") -> WorkerProcess:
        with anyio.CancelScope(shield=True):
            child, record = await anyio.to_thread.run_sync(self._spawned, spec, origin, limiter=self._spawning)
            process = self._watched(child, record)
        return process

    def _watched(self, child: Child, record: Path) -> WorkerProcess:
        process = self._running[child.pid] = WorkerProcess(child, record, on_end=self._ended)
        return process

    def _spawned(self, spec: WorkerSpec, origin: str) -> tuple[Spawned, Path]:
        if self._closed:
            raise PlacementError(f"cannot start a worker of {spec.endpoint}: the server is stopping")
        try:
            child = spawn(spec, origin)
        except OSError as error:
            what = f"cannot start a worker of {spec.endpoint} with {spec.python} in {spec.root}"
            raise PlacementError(f"{what}: {error.strerror or error}", hint="does each of them exist?") from error
        try:
            return child, self._noted(spec, child)
        except PlacementError:
            discard(child)
            raise

    def _noted(self, spec: WorkerSpec, child: Child) -> Path:
        try:
            return self._register.add(spec.worker, child.pid)
        except OSError as error:
            raise PlacementError(f"cannot note a worker of {spec.endpoint}: {error}") from error

    def _ended(self, process: WorkerProcess) -> None:
        self._register.remove(process.pid)
        del self._running[process.pid]


def spawn(spec: WorkerSpec, origin: str) -> Spawned:
    """Start the interpreter on the overlay's launcher.

    Raises:
        OSError: it cannot be started.
    """
    command = [spec.python, spec.overlay / "run_worker.py"]
    popen, ours, readable = begin(command, cwd=spec.root, environ=spec.environ, kind=socket.SOCK_STREAM)
    prefer_to_kill(popen.pid)
    return Spawned(popen, ours, readable, origin)


def prefer_to_kill(pid: int) -> None:
    """Tell the kernel whom to end first when memory runs out."""
    if sys.platform != "linux":
        return
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT), encoding="ascii")
    except OSError:
        pass  # a machine that does not allow it, or a process that has already ended
