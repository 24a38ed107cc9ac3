"""The server's side of one zygote: a warm process that forks workers, which `flashfw.worker.zygote` runs in.

Workers outlive it: each is watched by a descriptor of its own, and only its exit code is the zygote's to tell, since
that is its parent. When the zygote was killed meanwhile, the code is not known.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio

from flashfw.cluster.clock import Clock
from flashfw.cluster.placement.base import WorkerSpec
from flashfw.cluster.placement.child import Begun, begin, link_pair
from flashfw.cluster.placement.exits import on_exit, on_readable
from flashfw.cluster.placement.output import LastOutput
from flashfw.cluster.placement.recipe import LAUNCHER, Recipe
from flashfw.cluster.placement.tree import kill_group, kill_tree, start_time

PATIENCE_S = 10.0
"""What a zygote is asked takes milliseconds; one that does not answer for so long is ended, and its workers go on."""

UNKNOWN_CODE = 255
"""The exit code of a worker whose zygote ended before it."""

_PACKET_BYTES = 1 << 20
Answer = dict[str, Any]


class NotForked(Exception):
    """A worker is not forked, and why; it is to be spawned."""


class ZygoteGone(NotForked):
    """The zygote has ended; another may do."""


class Zygote:
    """A zygote that was started. Lives on the loop that it was made on, until `on_end` is called.

    `settled` is set once it can fork, or once `unfit` says why it never will; `names` are the top-level modules that
    its workers have and fresh ones have not. `workers` counts those that have not been reaped.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        control: socket.socket,
        output: int,
        clock: Clock,
        on_end: Callable[[], None],
    ) -> None:
        self.pid = popen.pid
        self.settled = anyio.Event()
        self.unfit = ""
        self.names: frozenset[str] = frozenset()
        self.workers = 0
        self.is_gone = False
        self.gone = anyio.Event()
        self._popen = popen
        self._control = control
        self._clock = clock
        self._on_end = on_end
        self._asked: deque[Callable[[Answer | None], None]] = deque([self._warmed])
        loop = self._loop = asyncio.get_running_loop()
        self._output = LastOutput(output, loop)
        loop.add_reader(control, self._read)
        on_exit(self.pid, self._ended)

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss it."""
        return not self.workers and not self._asked

    async def fork(self, spec: WorkerSpec) -> Forked:
        """A worker of this process. To be called shielded from cancellation, so that none is lost.

        Raises:
            NotForked: it refuses, or is gone.
            OSError: the server has no room for another socket or file.
        """
        with ExitStack() as ends:
            ours, theirs = link_pair()
            unused = ends.enter_context(ExitStack())
            unused.callback(ours.close)
            ends.callback(theirs.close)
            readable, writable = os.pipe()
            unused.callback(os.close, readable)
            ends.callback(os.close, writable)
            told = _told(spec)
            ends.callback(os.close, told)
            pid = await self._fork([theirs.fileno(), writable, told])
            pidfd = self._pidfd(pid)
            unused.pop_all()
        ours.setblocking(False)
        return Forked(self, pid, pidfd, ours, readable)

    def reap(self, pid: int, then: Callable[[int], None]) -> None:
        """Ask for the exit code of a worker that has ended; from then on its id may be another's."""

        def told(answer: Answer | None) -> None:
            self.workers -= 1
            then(_code_of_orphan(pid) if answer is None else answer["code"])

        self._send({"do": "reap", "pid": pid}, [], told)

    def kill(self) -> None:
        """End it; its workers go on."""
        if not self.is_gone:
            kill_group(self.pid)

    async def _fork(self, descriptors: Sequence[int]) -> int:
        answered: asyncio.Future[Answer | None] = self._loop.create_future()

        def told(answer: Answer | None) -> None:
            if answer is not None and "pid" in answer:
                self.workers += 1
            if not answered.done():
                answered.set_result(answer)

        self._send({"do": "fork"}, descriptors, told)
        answer = await answered
        if answer is None:
            raise ZygoteGone("the process to fork it off has ended")
        if "refused" in answer:
            raise NotForked(answer["refused"])
        pid: int = answer["pid"]
        return pid

    def _pidfd(self, pid: int) -> int:
        try:
            return os.pidfd_open(pid)
        except OSError as error:
            if not self.is_gone:  # else it may be reaped already
                kill_group(pid)
            self.reap(pid, lambda code: None)
            raise NotForked(f"it cannot be watched: {error.strerror}") from error

    def _send(self, asked: Answer, descriptors: Sequence[int], told: Callable[[Answer | None], None]) -> None:
        if self.is_gone:
            told(None)
            return

        def answered(answer: Answer | None) -> None:
            timer.cancel()
            told(answer)

        timer = self._clock.call_later(PATIENCE_S, lambda: self._give_up(answered))
        self._asked.append(answered)
        try:
            socket.send_fds(self._control, [json.dumps(asked).encode()], descriptors)
        except OSError:  # it has ended, or it was stopped and its socket is full: all who asked hear of its end
            self.kill()

    def _give_up(self, on: Callable[[Answer | None], None]) -> None:
        if not self.is_gone:
            self._drain()  # this process itself may have stood still, and the answer be here
        if on in self._asked:
            self.kill()

    def _warmed(self, answer: Answer | None) -> None:
        if answer is not None and "warm" in answer:
            self.names = frozenset(answer["warm"])
        elif answer is not None:
            self.unfit = answer["unfit"]
        else:
            last = self._output.text.strip().rpartition("\n")[2]
            self.unfit = f"the process to fork it off ended while it imported{': ' + last if last else ''}"
        self.settled.set()

    def _read(self) -> None:
        try:
            data = self._control.recv(_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and self._asked:
            self._asked.popleft()(json.loads(data))
            return
        self._loop.remove_reader(self._control)
        self.kill()

    def _ended(self) -> None:
        self._loop.remove_reader(self._control)
        self._drain()
        kill_group(self.pid)
        self._on_end()
        self.is_gone = True
        self._popen.wait()
        self._control.close()
        self._output.close()
        while self._asked:
            self._asked.popleft()(None)
        self.gone.set()

    def _drain(self) -> None:
        """Take what it said before it ended."""
        while self._asked:
            try:
                data = self._control.recv(_PACKET_BYTES)
            except OSError:
                return
            if not data:
                return
            self._asked.popleft()(json.loads(data))


class Forked:
    """A worker that a zygote forked: a `Child`, though not this process's."""

    origin = "forked"

    def __init__(self, zygote: Zygote, pid: int, pidfd: int, sock: socket.socket, output: int) -> None:
        self.pid = pid
        self.sock = sock
        self.output = output
        self._zygote = zygote
        self._pidfd = pidfd
        self._is_watched = False

    def watch(self, heard: Callable[[], None]) -> None:
        """As `Child.watch`."""
        self._is_watched = True
        on_readable(self._pidfd, heard)

    def kill(self) -> None:
        """As `Child.kill`. The descriptor is of this very process, whoever has its id now."""
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except ProcessLookupError:
            return  # its zygote is gone, and whoever is its parent now has reaped it
        kill_tree(self.pid)

    def kill_left(self) -> None:
        """As `Child.kill_left`. While a group lives, no other process gets the id of its dead leader."""
        if not self._zygote.is_gone or start_time(self.pid) is None:
            kill_group(self.pid)

    def reap(self, then: Callable[[int], None]) -> None:
        """As `Child.reap`."""
        if not self._is_watched:
            os.close(self._pidfd)  # else it is closed by now
        self._zygote.reap(self.pid, then)


def start(recipe: Recipe) -> Begun:
    """Start a zygote. From any thread.

    Raises:
        OSError: it cannot be started.
    """
    command: list[str | Path] = [recipe.python, recipe.overlay / LAUNCHER, *recipe.preload]
    return begin(command, cwd="/", environ=dict(recipe.environ), kind=socket.SOCK_SEQPACKET)


def discard(started: Begun) -> None:
    """End one that nobody will use."""
    popen, control, output = started
    popen.kill()
    popen.wait()
    control.close()
    os.close(output)


def _told(spec: WorkerSpec) -> int:
    """A file in memory with what the worker alone may read."""
    descriptor = os.memfd_create("flashfw-worker")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(json.dumps({"root": str(spec.root), "environ": dict(spec.environ)}).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _code_of_orphan(pid: int) -> int:
    """The exit code of a worker whose zygote is gone: known only where it became a child of this process."""
    try:
        _, status = os.waitpid(pid, 0)  # this process is the first of a container, and so everybody's last parent
    except ChildProcessError:
        return UNKNOWN_CODE
    return os.waitstatus_to_exitcode(status)
