"""A server of somebody else's as a child of the worker: started on a free port, ready when it answers, never outlived.

It is in the worker's process group, so whatever ends the worker ends it too; and when it ends, the worker does.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import string
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import h11

from flashfw.errors import FlashfwError

HOST = "127.0.0.1"
LINES_KEPT = 20
STOP_S = 5.0
"""How long it may take to end when it is asked to, before it is killed."""
ASK_EVERY_S = (0.02, 0.25)
"""From the first question to the last, whether it is ready; a file server is so in no time, a model is not."""
ANSWER_S = 5.0
_READ_BYTES = 1 << 16


class ServerFailed(FlashfwError):
    """The server did not become ready; the message holds what it said last."""


class ForeignServer:
    """One run of a command. `on_lost` hears, on the loop, how it ended after it was ready."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        ready: str,
        directory: Path,
        start_timeout_s: float,
        on_lost: Callable[[str], None],
    ) -> None:
        self.port = 0
        self._command = tuple(command)
        self._shown = f"`{shlex.join(command)}`"
        self._ready = ready
        self._directory = directory
        # Less than the cluster waits, which knows nothing of the command and what it said.
        self._patience_s = start_timeout_s - min(2.0, 0.3 * start_timeout_s)
        self._on_lost = on_lost
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._last: deque[str] = deque(maxlen=LINES_KEPT)

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ServerFailed: it cannot be started, exited, or does not answer.
        """
        until = time.monotonic() + self._patience_s
        try:
            await self._once(until)
        except ServerFailed:
            # Between our look for a free port and its bind another process may have taken the port: once more.
            if self._is_running or self._process is None or not is_taken(self.port):
                await self.stop()
                raise
            await self._once(until)
        self._tasks.append(asyncio.create_task(self._watch(), name="server"))

    async def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        for task in self._tasks[2:]:
            task.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _once(self, until: float) -> None:
        await self._spawn()
        await self._until_ready(until)

    async def _spawn(self) -> None:
        self.port = free_port()
        environ = environment(os.environ, self.port)
        words = [string.Template(word).safe_substitute(environ) for word in self._command]
        self._last.clear()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *words,
                cwd=self._directory,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise ServerFailed(
                f"{self._shown} cannot be started: {error.strerror or error}",
                hint="it is run without a shell: for one, write command = ['sh', '-c', '...']",
            ) from None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._tasks = [
            asyncio.create_task(self._tell(self._process.stdout, sys.stdout)),
            asyncio.create_task(self._tell(self._process.stderr, sys.stderr)),
        ]

    async def _tell(self, stream: asyncio.StreamReader, to: TextIO) -> None:
        """Pass its output on, and remember the last lines of it."""
        rest = b""
        while data := await stream.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            self._last.extend(line.decode("utf-8", "backslashreplace") for line in lines)
            to.write(data.decode("utf-8", "backslashreplace"))
        if rest:
            self._last.append(rest.decode("utf-8", "backslashreplace"))

    async def _until_ready(self, until: float) -> None:
        assert self._process is not None
        exited = asyncio.ensure_future(self._process.wait())
        pause, most = ASK_EVERY_S
        answered = ""
        try:
            while time.monotonic() < until:
                status = await self._ask()
                if status == 200:
                    return
                answered = answered if status is None else f"GET {self._ready} answered {status}"
                await asyncio.wait([exited], timeout=pause)
                if exited.done():
                    raise await self._failed(f"{exit_text(exited.result())} before it was ready")
                pause = min(pause * 1.5, most)
        finally:
            exited.cancel()
        nobody = f"nothing listens on {HOST}:{self.port}, so does the command use $PORT?"
        raise await self._failed(f"is not ready after {self._patience_s:g} s: {answered or nobody}")

    async def _ask(self) -> int | None:
        """The status of the page that tells when it is ready; None while nothing answers."""
        try:
            return await asyncio.wait_for(status_of(self.port, self._ready), ANSWER_S)
        except (OSError, asyncio.TimeoutError, h11.RemoteProtocolError):
            return None

    async def _failed(self, how: str) -> ServerFailed:
        if not self._is_running:
            await asyncio.wait(self._tasks, timeout=1.0)  # what it said last is still to be read
        said = "\n".join(self._last).strip()
        return ServerFailed(f"{self._shown} {how}" + (f"; it said last:\n{said}" if said else ""))

    async def _watch(self) -> None:
        assert self._process is not None
        code = await self._process.wait()
        self._on_lost(f"{self._shown} {exit_text(code)}")


def environment(own: os._Environ[str], port: int) -> dict[str, str]:
    """What the server gets: the worker's variables, where to listen, and the programs of the worker's environment."""
    path = os.pathsep.join([*programs(sys.executable, sys.path), own.get("PATH", os.defpath)])
    return {"PYTHONUNBUFFERED": "1", **own, "PATH": path, "HOST": HOST, "PORT": str(port)}


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def is_taken(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as sock:
        return sock.connect_ex((HOST, port)) == 0


async def status_of(port: int, path: str) -> int:
    """The status of a GET.

    Raises:
        OSError, h11.RemoteProtocolError: nothing answers, or not HTTP.
    """
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        connection = h11.Connection(h11.CLIENT)
        headers = [("host", f"{HOST}:{port}"), ("connection", "close"), ("user-agent", "flashfw-ready")]
        writer.write(connection.send(h11.Request(method="GET", target=path, headers=headers)) or b"")
        while not isinstance(event := connection.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_READ_BYTES))
            elif isinstance(event, (h11.ConnectionClosed, h11.EndOfMessage)):
                raise ConnectionResetError
        return event.status_code
    finally:
        writer.close()


def exit_text(code: int) -> str:
    """How a process ended, for people.

    >>> exit_text(3), exit_text(-9)
    ('exited with code 3', 'was killed by SIGKILL')
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def programs(interpreter: str, searched: Iterable[str]) -> Iterator[str]:
    """The folders with the programs of an environment: beside its interpreter, and of packages that lie elsewhere.

    A layer of packages on a server holds its programs in `bin`, beside the packages.
    """
    yield str(Path(interpreter).parent)
    for entry in map(Path, searched):
        if (entry / "bin").is_dir() and any(entry.glob("*.dist-info")):
            yield str(entry / "bin")
