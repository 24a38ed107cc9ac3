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

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from flashfw.cluster.placement.base import PlacementError, WorkerSpec
from flashfw.cluster.placement.exits import on_exit
from flashfw.cluster.placement.guarding import Guarding
from flashfw.cluster.placement.output import LastOutput
from flashfw.cluster.placement.records import Records
from flashfw.cluster.placement.tree import kill_group, kill_tree

OOM_SCORE_ADJUSTMENT = 500
"""When memory runs out, Linux ends a worker and not the server with everybody's jobs."""


class ProcessPlacement:
    """Starts workers on this machine; `state` is the server's folder, in which running workers are noted.

    Lives as long as its server, on one event loop.
    """

    def __init__(self, state: Path) -> None:
        self._records = Records(state / "workers")
        self._guarding = Guarding()
        self._running: dict[int, WorkerProcess] = {}
        self._closed = False
        # One at a time: an exec takes a few milliseconds, and the gateway's loop goes on meanwhile.
        self._spawning = anyio.CapacityLimiter(1)

    async def start(self, spec: WorkerSpec) -> WorkerProcess:
        """Start a worker.

        Raises:
            PlacementError: there is no such interpreter or directory, or the machine has no room for it.
        """
        with anyio.CancelScope(shield=True):
            spawned = await anyio.to_thread.run_sync(self._spawn, spec, limiter=self._spawning)
        process = WorkerProcess(spawned, on_end=self._ended)
        self._running[process.pid] = process
        if self._closed:
            process.kill()
        return process

    async def sweep(self) -> list[int]:
        """Kill what a dead server left behind; the process ids."""
        return await anyio.to_thread.run_sync(self._sweep)

    async def close(self) -> None:
        """Kill what still runs, and start nothing more."""
        self._closed = True
        async with self._spawning:  # a start that is under way ends before
            running = list(self._running.values())
        for process in running:
            process.kill()
        for process in running:
            await process.wait()
        await anyio.to_thread.run_sync(self._guarding.close)

    def _spawn(self, spec: WorkerSpec) -> Spawned:
        if self._closed:
            raise PlacementError(f"cannot start a worker of {spec.endpoint}: the server is stopping")
        try:
            spawned = spawn(spec)
        except OSError as error:
            what = f"cannot start a worker of {spec.endpoint} with {spec.python} in {spec.root}"
            raise PlacementError(f"{what}: {error.strerror or error}", hint="does each of them exist?") from error
        try:
            self._guarding.add(spawned.popen.pid)
            spawned.record = self._records.write(spec.worker, spawned.popen.pid)
        except OSError as error:
            spawned.discard()
            self._guarding.remove(spawned.popen.pid)
            raise PlacementError(f"cannot note a worker of {spec.endpoint}: {error}") from error
        return spawned

    def _sweep(self) -> list[int]:
        swept: list[int] = []
        for path, record in self._records.read():
            if record is not None and record.is_orphan:
                kill_tree(record.worker.pid)
                swept.append(record.worker.pid)
            elif record is not None and not record.is_over:
                continue  # its server lives
            path.unlink(missing_ok=True)
        return swept

    def _ended(self, process: WorkerProcess) -> None:
        self._guarding.remove(process.pid)
        del self._running[process.pid]


class Spawned:
    """A child process with this side's ends of its socket and its output, not yet on any loop."""

    def __init__(self, popen: subprocess.Popen[bytes], sock: socket.socket, output: int) -> None:
        self.popen = popen
        self.sock = sock
        self.output = output
        self.record: Path | None = None

    def discard(self) -> None:
        """End it and let go of everything."""
        kill_tree(self.popen.pid)
        self.popen.wait()
        self.sock.close()
        os.close(self.output)


class WorkerProcess:
    """A worker process and all that it starts. Lives on the loop that it was started on."""

    def __init__(self, spawned: Spawned, *, on_end: Callable[[WorkerProcess], None]) -> None:
        self.pid = spawned.popen.pid
        self.sock = spawned.sock
        self._popen = spawned.popen
        self._record = spawned.record
        self._on_end = on_end
        self._exited = anyio.Event()
        self._output = LastOutput(spawned.output, asyncio.get_running_loop())
        on_exit(self.pid, self._end)

    @property
    def last_output(self) -> str:
        """The last 64 KB of what it wrote outside of the link."""
        return self._output.text

    async def wait(self) -> int:
        """Its exit code, negative for a signal, once its whole group is gone."""
        await self._exited.wait()
        assert self._popen.returncode is not None
        return self._popen.returncode

    def kill(self) -> None:
        """SIGKILL to the worker, its group, and on Linux all processes below it."""
        if not self._exited.is_set():
            kill_tree(self.pid)

    def _end(self) -> None:
        # Until `popen.wait` the id is the zombie's, so neither the group nor the guard's note is another's.
        kill_group(self.pid)
        self._on_end(self)
        self._popen.wait()
        self._output.close()
        if self._record is not None:
            self._record.unlink(missing_ok=True)
        self._exited.set()


def spawn(spec: WorkerSpec) -> Spawned:
    """Start the interpreter on the overlay's launcher.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    readable, writable = os.pipe()
    try:
        popen = subprocess.Popen(
            [spec.python, spec.overlay / "run_worker.py", str(theirs.fileno())],
            cwd=spec.root,
            env=dict(spec.environ),
            stdin=subprocess.DEVNULL,
            stdout=writable,
            stderr=writable,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    except OSError:
        ours.close()
        os.close(readable)
        raise
    finally:
        theirs.close()
        os.close(writable)
    ours.setblocking(False)
    _prefer_to_kill(popen.pid)
    return Spawned(popen, ours, readable)


def _prefer_to_kill(pid: int) -> None:
    if sys.platform != "linux":
        return
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT), encoding="ascii")
    except OSError:
        pass  # a machine that does not allow it, or a process that has already ended
