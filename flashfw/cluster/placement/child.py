"""A started worker's process as its placement holds it, whoever is its parent."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import anyio

from flashfw.cluster.placement.exits import on_exit
from flashfw.cluster.placement.output import LastOutput
from flashfw.cluster.placement.tree import kill_group, kill_tree
from flashfw.worker.frames import WINDOW_BYTES


class Child(Protocol):
    """A process that leads a group, with this side's ends of its socket and of its output."""

    pid: int
    sock: socket.socket
    output: int
    origin: str

    def watch(self, heard: Callable[[], None]) -> None:
        """Call `heard` once on the running loop when it has ended; its id is its own until it is reaped."""
        ...

    def kill(self) -> None:
        """SIGKILL to it, its group and all processes below it; nothing happens once it has ended."""
        ...

    def kill_left(self) -> None:
        """SIGKILL to what is left of its group, once it has ended."""
        ...

    def reap(self, then: Callable[[int], None]) -> None:
        """Let go of its id; `then` is called with its exit code, at once or later on the loop."""
        ...


class Spawned:
    """A child of this process."""

    def __init__(self, popen: subprocess.Popen[bytes], sock: socket.socket, output: int, origin: str) -> None:
        self.pid = popen.pid
        self.sock = sock
        self.output = output
        self.origin = origin
        self._popen = popen

    def watch(self, heard: Callable[[], None]) -> None:
        """As `Child.watch`."""
        on_exit(self.pid, heard)

    def kill(self) -> None:
        """As `Child.kill`."""
        kill_tree(self.pid)

    def kill_left(self) -> None:
        """As `Child.kill_left`."""
        kill_group(self.pid)

    def reap(self, then: Callable[[int], None]) -> None:
        """As `Child.reap`: at once."""
        then(self._popen.wait())


Begun = tuple["subprocess.Popen[bytes]", socket.socket, int]
"""A process, this side's end of its socket, and the readable end of its output."""


def link_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a link, with room for what one call may have under way if the machine allows that much."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WINDOW_BYTES)
    return ends


def begin(command: Sequence[str | Path], *, cwd: Path | str, environ: Mapping[str, str], kind: int) -> Begun:
    """Start a process that leads a group of its own; the number of its socket, of this kind, follows its script.

    From any thread.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = link_pair() if kind == socket.SOCK_STREAM else socket.socketpair(socket.AF_UNIX, kind)
    readable, writable = os.pipe()
    python, script, *arguments = command
    try:
        popen = subprocess.Popen(
            [python, script, str(theirs.fileno()), *arguments],
            cwd=cwd,
            env=dict(environ),
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
    return popen, ours, readable


def discard(child: Child) -> None:
    """End a child that nobody will watch, and let go of everything."""
    child.kill()
    child.sock.close()
    os.close(child.output)
    child.reap(lambda code: None)


class WorkerProcess:
    """A worker process and all that it starts. Lives on the loop that it was started on."""

    def __init__(self, child: Child, record: Path, *, on_end: Callable[[WorkerProcess], None]) -> None:
        self.pid = child.pid
        self.sock = child.sock
        self.origin = child.origin
        self._child = child
        self._record = record
        self._on_end = on_end
        self._code: int | None = None
        self._has_ended = False
        self._exited = anyio.Event()
        self._output = LastOutput(child.output, asyncio.get_running_loop())
        child.watch(self._end)

    @property
    def last_output(self) -> str:
        """The last 64 KB of what it wrote outside of the link."""
        return self._output.text

    async def wait(self) -> int:
        """Its exit code, negative for a signal, once its whole group is gone."""
        await self._exited.wait()
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        """SIGKILL to the worker, its group, and on Linux all processes below it."""
        if not self._has_ended:
            self._child.kill()

    def _end(self) -> None:
        # Until it is reaped the id is the zombie's, so neither the group nor the guard's note is another's.
        self._has_ended = True
        self._child.kill_left()
        self._on_end(self)
        self._child.reap(self._reaped)

    def _reaped(self, code: int) -> None:
        self._code = code
        self._output.close()
        self._record.unlink(missing_ok=True)
        self._exited.set()
