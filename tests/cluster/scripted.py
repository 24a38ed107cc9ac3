"""A placement whose workers do what a test tells them: real frames over a real socket, in the test's own loop."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from flashfw.cluster.environments.base import Environment
from flashfw.cluster.placement.base import PlacementError, WorkerSpec
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Failure, Frame, Frames, Kind, Ready
from tests.heads import legible, packed

Told = Callable[["ScriptedProcess"], None]
"""What a worker does when it is told something."""

_pids = itertools.count(1)


class ScriptedProcess:
    """A worker as a test plays it. By itself it only stops when it is told to: DRAIN, CANCEL, signals.

    `heard` are all frames so far, `calls` those that are under way by their numbers. With `is_obedient` false it
    hears DRAIN and CANCEL and goes on.
    """

    def __init__(self, spec: WorkerSpec, on_start: Told, on_describe: Told) -> None:
        self.spec = spec
        # Above what a machine gives out, so that nobody's process is meant by it.
        self.pid = (1 << 30) + next(_pids)
        self.sock, self._own = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self._own.setblocking(False)
        self.last_output = ""
        self.origin = "spawned"
        self.heard: list[Frame] = []
        self.calls: dict[int, Frame] = {}
        self.is_obedient = True
        self._on_start = on_start
        self._on_describe = on_describe
        self._frames = Frames()
        self._is_draining = False
        self._code: int | None = None
        self._exited = anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._own, self._read)

    async def wait(self) -> int:
        await self._exited.wait()
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        self.die(-signal.SIGKILL)

    @property
    def is_alive(self) -> bool:
        return self._code is None

    @property
    def number(self) -> int:
        """The call that is under way, where there is one."""
        (number,) = self.calls
        return number

    def ready(self) -> None:
        self.send(Kind.READY, 0, Ready(pid=self.pid, import_s=0.1, fixtures_s={}, files=["lib.py"]))

    def broken(self, message: str = "no weights here") -> None:
        """Fail to start, and end as a worker does then."""
        failure = Failure(reason="startup", type="RuntimeError", message=message, fixture="model", place="f.py:1")
        self.send(Kind.BROKEN, 0, Failure(**failure, traceback="Traceback ..."))
        self.die(3)

    def reloaded(self, why: str = "") -> None:
        """Say that it took in what was last saved, or why it cannot."""
        answer = {"number": self.said(Kind.RELOAD)[-1].meta["number"], "files": ["lib.py"], "took_s": 0.01}
        self.send(Kind.RELOADED, 0, {**answer, "why": why} if why else answer)

    def beat(self) -> None:
        self.send(Kind.BEAT, 0, {"blocked_s": 0.0})

    def send_log(self, text: str) -> None:
        self.send(Kind.LOG, 0, {"stream": "stdout", "job": None}, text.encode())

    def result(self, number: int | None = None, body: bytes = b'"done"') -> None:
        self._end(Kind.RESULT, number, None, body)

    def failure(self, number: int | None = None, **failure: Any) -> None:
        self._end(Kind.FAILURE, number, Failure(**{"reason": "handler_error", "message": "no good", **failure}))

    def gone(self, number: int | None = None) -> None:
        self._end(Kind.GONE, number, None)

    def chunk(self, body: bytes, number: int | None = None) -> None:
        self.send(Kind.CHUNK, self.number if number is None else number, {"index": 0}, body)

    def progress(self, body: bytes) -> None:
        self.send(Kind.PROGRESS, self.number, None, body)

    def head(self, status: int = 200, body: bytes = b"", *, end: bool = True, number: int | None = None) -> None:
        """The beginning of an HTTP response."""
        meta = {"status": status, "headers": [["content-type", "text/plain"]], "end": end}
        if end:
            self._end(Kind.HEAD, number, meta, body)
        else:
            self.send(Kind.HEAD, self.number if number is None else number, meta, body)

    def data(self, body: bytes, *, end: bool) -> None:
        if end:
            self._end(Kind.DATA, None, {"end": True}, body)
        else:
            self.send(Kind.DATA, self.number, {"end": False}, body)

    def send(self, kind: Kind, call: int = 0, meta: Any = None, body: bytes = b"") -> None:
        self.send_raw(packed(kind, call, meta, body))

    def send_raw(self, data: bytes) -> None:
        if self.is_alive and self._own.fileno() >= 0:
            assert self._own.send(data) == len(data), "more than the socket takes at once"

    def hang_up(self) -> None:
        """End the link, and live on."""
        if self._own.fileno() >= 0:
            self._loop.remove_reader(self._own)
            self._own.close()

    def die(self, code: int = 1, *, leaves_link: bool = False) -> None:
        """End now; with `leaves_link`, a child of it holds the link open."""
        if self.is_alive:
            self._code = code
            if not leaves_link:
                self.hang_up()
            self._exited.set()

    def let_go(self) -> None:
        """The child that held the link ends, too."""
        if self._own.fileno() >= 0:
            self.hang_up()

    def said(self, kind: Kind) -> list[Frame]:
        """What the gateway said of this kind."""
        return [frame for frame in self.heard if frame.kind is kind]

    def _end(self, kind: Kind, number: int | None, meta: Any, body: bytes = b"") -> None:
        number = self.number if number is None else number
        del self.calls[number]
        self.send(kind, number, meta, body)
        self._end_if_drained()

    def _read(self) -> None:
        try:
            data = self._own.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self.die(1)  # as a worker does that has lost its gateway
            return
        for frame in map(legible, self._frames.feed(data)):
            self.heard.append(frame)
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.START:
            (self._on_describe if frame.meta["describe"] else self._on_start)(self)
        elif frame.kind in (Kind.CALL, Kind.REQUEST):
            assert not self._is_draining, "a call after DRAIN"
            self.calls[frame.call] = frame
        elif frame.kind is Kind.CANCEL and self.is_obedient and frame.call in self.calls:
            self.gone(frame.call)
        elif frame.kind is Kind.DRAIN:
            self._is_draining = True
            self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._is_draining and not self.calls and self.is_obedient:
            self.die(0)


def _describes_nothing(process: ScriptedProcess) -> None:
    process.send(Kind.DESCRIBED, 0, {"functions": {}})
    process.die(0)


class ScriptedPlacement:
    """Starts scripted workers: each does `on_start` when it is told START, `on_describe` when it shall describe.

    If they are not changed, it is ready at once, and has nothing to describe.
    """

    def __init__(self) -> None:
        self.on_start: Told = ScriptedProcess.ready
        self.on_describe: Told = _describes_nothing
        self.processes: list[ScriptedProcess] = []
        self.prepared: list[WorkerSpec] = []
        self.refuses = ""
        self._closed = False

    @property
    def alive(self) -> list[ScriptedProcess]:
        return [process for process in self.processes if process.is_alive]

    async def start(self, spec: WorkerSpec) -> ScriptedProcess:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        if self._closed or self.refuses:
            raise PlacementError(
                f"cannot start a worker of {spec.endpoint}: {self.refuses or 'the server is stopping'}"
            )
        process = ScriptedProcess(
            spec, lambda process: self.on_start(process), lambda process: self.on_describe(process)
        )
        self.processes.append(process)
        return process

    async def prepare(self, spec: WorkerSpec) -> None:
        self.prepared.append(spec)

    async def sweep(self) -> list[int]:
        return []

    async def close(self) -> None:
        self._closed = True
        for process in self.processes:
            process.kill()
            process.let_go()


class ReadyEnvironments:
    """Environments that are there; while `is_slow`, each takes until `finish`."""

    def __init__(self) -> None:
        self.is_slow = False
        self.asked = 0
        self._finished = anyio.Event()

    def finish(self) -> None:
        self.is_slow = False
        self._finished.set()

    async def ensure(self, endpoint: Endpoint, root: Path) -> Environment:
        self.asked += 1
        if self.is_slow:
            await self._finished.wait()
        return Environment(Path("python"), "ready")
