"""The gateway's side of a link for tests: a scratch project, a real worker process, frames in and out."""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

from flashfw import manifest
from flashfw.manifest import Endpoint, Function
from flashfw.worker.frames import Frame, Frames, Kind, Reload, Start, pack
from tests.heads import legible, packed

PACKAGE = Path(manifest.__file__).parent
WAIT_S = 20.0


def write(root: Path, files: Mapping[str, str]) -> Path:
    """A project: each text at its path below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return root


def overlay(folder: Path) -> Path:
    """What ships beside user code: the script, and of flashfw only what a worker may import."""
    package = folder / "flashfw"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "manifest.py", "worker"):
        (package / name).symlink_to(PACKAGE / name)
    shutil.copy(PACKAGE / "worker" / "run_worker.py", folder / "run_worker.py")
    shutil.copy(Path(__file__).parent / "forks.py", folder / "forks.py")
    return folder


def job(id: str, attribute: str = "handler", *, directory: str = "") -> Function:
    """A job function as the manifest has it; its file lies in `endpoints/<directory or id>/handler.py`."""
    place = f"endpoints/{directory or id}"
    return Function(
        id=id,
        kind="job",
        module=f"{place.replace('/', '.')}.handler",
        attribute=attribute,
        file=f"{place}/handler.py",
        line=1,
        route=f"/{id}",
    )


def http(id: str, method: str, *, route: str, directory: str) -> Function:
    """An HTTP function; for a mounted application the method is `*` and the attribute `app`."""
    place = f"endpoints/{directory}"
    return Function(
        id=id,
        kind="app" if method == "*" else "http",
        module=f"{place.replace('/', '.')}.handler",
        attribute="app" if method == "*" else method.lower(),
        file=f"{place}/handler.py",
        line=1,
        route=route,
        method=method,
    )


def endpoint(*functions: Function, concurrency: int = 1, preload: tuple[str, ...] = ()) -> Endpoint:
    """An endpoint of these functions."""
    id = functions[0].id.split("/")[0].split("::")[0]
    return Endpoint(
        id=id,
        kind=functions[0].kind,
        directory=f"endpoints/{id}",
        functions=functions,
        concurrency=concurrency,
        preload=preload,
        python="3.11",
        fingerprint="f",
    )


class Died(Exception):
    """The worker's side of the link closed; `frames` are those that came before."""


class Process(Protocol):
    """What a test needs of a worker's process; `subprocess.Popen` is one."""

    pid: int

    def wait(self, timeout: float) -> int: ...
    def kill(self) -> None: ...


class Forks:
    """A process that forks workers and tells their exit codes."""

    def __init__(self) -> None:
        home = overlay(Path(tempfile.mkdtemp(prefix="flashfw-forks-")))
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        self._control, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-W", "error", str(home / "forks.py"), str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        atexit.register(self._end)

    def start(self, link: socket.socket, root: Path, env: Mapping[str, str]) -> Forked:
        order = json.dumps({"cwd": str(root), "env": dict(env)}).encode()
        socket.send_fds(self._control, [order], [link.fileno()])
        return Forked(self, int(self._control.recv(64)))

    def wait(self, pid: int, timeout: float) -> int:
        self._control.sendall(json.dumps({"wait": pid}).encode())
        if not select.select([self._control], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)  # so that the answer comes, and the next test has a clean line
            self._control.recv(64)
            raise TimeoutError(f"worker {pid} did not end")
        return int(self._control.recv(64))

    def _end(self) -> None:
        self._control.close()
        self._process.wait()


class Forked:
    """A forked worker, in the manner of `subprocess.Popen`."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self.pid = pid
        self._forks = forks
        self._code: int | None = None

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        if self._code is None:
            self._code = self._forks.wait(self.pid, timeout)
        return self._code


forks = functools.cache(Forks)


def _spawned(link: socket.socket, root: Path, env: Mapping[str, str]) -> Process:
    """As a placement starts it: a new interpreter on the script that ships."""
    home = root / ".flashfw" / "overlay"
    if not home.exists():
        overlay(home)
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(home / "run_worker.py"), str(link.fileno())],
        cwd=root,
        env={**os.environ, **env},
        pass_fds=[link.fileno()],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )


class Worker:
    """A worker process over a project. Use as a context manager; it never leaves the process behind.

    It is forked off a warm process, unless `fresh` asks for an interpreter of its own.
    """

    def __init__(
        self,
        root: Path,
        endpoint: Endpoint,
        *,
        describe: bool = False,
        env: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        volumes: Mapping[str, str] | None = None,
        fresh: bool = False,
        reloads: bool = False,
    ) -> None:
        self.root = root
        self.frames: list[Frame] = []
        self._reader = Frames()
        self._next_call = 0
        self._socket, theirs = socket.socketpair()
        begin = _spawned if fresh else forks().start
        with theirs:
            self.process: Process = begin(theirs, root, env or {})
        start = Start(
            endpoint=manifest.encode(endpoint),
            root=str(root),
            project="shop",
            environment="test",
            worker="w1",
            volumes=dict(volumes or {}),
            secrets=list(secrets),
            describe=describe,
            reloads=reloads,
        )
        self._endpoint = endpoint
        self._reloads = 0
        self.send(Kind.START, 0, start)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.process.kill()
        self.process.wait(WAIT_S)

    def send(self, kind: Kind, call: int = 0, meta: Any = None, body: bytes = b"") -> None:
        """One frame to the worker."""
        self._socket.sendall(pack(kind, call, meta, body))

    def ready(self) -> dict[str, Any]:
        """Waits for READY; its meta."""
        return self.next(Kind.READY).meta

    def call(
        self, function: str, body: bytes = b"{}", *, id: str = "", deadline: float | None = None, **more: Any
    ) -> int:
        """Sends a job; its call number. The job's id is `j<number>` unless given."""
        self._next_call += 1
        number = self._next_call
        meta = {
            "function": function,
            "id": id or f"j{number}",
            "attempt": 1,
            "deadline": deadline or time.time() + 600,
            **more,
        }
        self.send(Kind.CALL, number, meta, body)
        return number

    def batch(self, function: str, *inputs: Any) -> list[int]:
        """Sends jobs of one batch; their call numbers."""
        name = f"b{self._next_call}"
        return [self.call(function, json.dumps(item).encode(), batch=name, of=len(inputs)) for item in inputs]

    def request(
        self,
        function: str,
        method: str = "GET",
        path: str = "/",
        *,
        body: bytes = b"",
        end: bool = True,
        **meta: Any,
    ) -> int:
        """Sends an HTTP call; its number."""
        self._next_call += 1
        request = {"function": function, "method": method, "path": path, "end": end, **meta}
        self._socket.sendall(packed(Kind.REQUEST, self._next_call, request, body))
        return self._next_call

    def ask_reload(self, *files: str, endpoint: Endpoint | None = None) -> None:
        """Tells it of saved files; with `endpoint`, also that its record is another one now."""
        self._endpoint = endpoint or self._endpoint
        self._reloads += 1
        asked = Reload(number=self._reloads, files=list(files), endpoint=manifest.encode(self._endpoint))
        self.send(Kind.RELOAD, 0, asked)

    def reload(self, files: Mapping[str, str], *, endpoint: Endpoint | None = None) -> dict[str, Any]:
        """Saves these files and tells it of them; what it answers."""
        write(self.root, files)
        self.ask_reload(*files, endpoint=endpoint)
        return self.next(Kind.RELOADED).meta

    def next(self, *kinds: Kind, call: int | None = None) -> Frame:
        """The first frame of one of these kinds (and of this call) not returned before; it is taken out of `frames`.

        Raises:
            TimeoutError: none came in time.
            Died: the worker ended before.
        """
        limit = time.monotonic() + WAIT_S
        seen = 0
        while True:
            for index in range(seen, len(self.frames)):
                frame = self.frames[index]
                if frame.kind in kinds and call in (None, frame.call):
                    return self.frames.pop(index)
            seen = len(self.frames)
            self._read(limit - time.monotonic(), kinds)

    def end(self, call: int) -> Frame:
        """The frame that ends a job's call."""
        return self.next(Kind.RESULT, Kind.FAILURE, Kind.GONE, call=call)

    def result(self, function: str, body: bytes = b"{}") -> bytes:
        """The output of one job call, which must succeed."""
        frame = self.end(self.call(function, body))
        assert frame.kind is Kind.RESULT, frame.meta
        return frame.body

    def failure(self, function: str, body: bytes = b"{}") -> dict[str, Any]:
        """The failure of one job call, which must fail."""
        frame = self.end(self.call(function, body))
        assert frame.kind is Kind.FAILURE, frame.body
        return frame.meta

    def logs(self, *, job: str | None = None, stream: str | None = None) -> str:
        """The text of the LOG frames read so far."""
        wanted = [
            frame.body.decode()
            for frame in self.frames
            if frame.kind is Kind.LOG and job in (None, frame.meta["job"]) and stream in (None, frame.meta["stream"])
        ]
        return "".join(wanted)

    def until_logged(self, text: str) -> str:
        """Reads until the LOG frames so far hold `text`; all their text."""
        limit = time.monotonic() + WAIT_S
        while text not in self.logs():
            self._read(limit - time.monotonic(), (Kind.LOG,))
        return self.logs()

    def drain(self) -> int:
        """Drains the worker; its exit code."""
        self.send(Kind.DRAIN)
        return self.exit_code()

    def exit_code(self) -> int:
        """Reads to the end of the stream and waits; the exit code."""
        limit = time.monotonic() + WAIT_S
        try:
            while True:
                self._read(limit - time.monotonic(), ())
        except Died:
            return self.process.wait(WAIT_S)

    def hang_up(self) -> None:
        """Closes the gateway's side, as a gateway that died does."""
        self._socket.close()

    def _read(self, wait_s: float, kinds: tuple[Kind, ...]) -> None:
        ready, _, _ = select.select([self._socket], [], [], max(wait_s, 0))
        if not ready:
            seen = [frame.kind.name for frame in self.frames]
            raise TimeoutError(f"no {[kind.name for kind in kinds]} among {seen}; logged: {self.logs()}")
        try:
            data = self._socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Died([frame.kind.name for frame in self.frames])
        self.frames.extend(map(legible, self._reader.feed(data)))
