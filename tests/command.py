"""The `flashfw` command as processes that are forked off a warm one: a start takes milliseconds.

An interpreter of its own imports for longer than most commands take. What only that shows is tried with `COMMAND`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

COMMAND = Path(sys.executable).with_name("flashfw")
TIMEOUT_S = 60.0


class Forks:
    """The process that commands are forked off; one for each process of tests."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._control, theirs):  # an order holds all variables of a process
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        with theirs:
            program = [sys.executable, "-m", "tests.forked_commands", str(theirs.fileno())]
            self._process = subprocess.Popen(
                program, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[1]
            )
        atexit.register(self._end)

    def start(self, order: Mapping[str, Any], descriptors: list[int]) -> int:
        """The process id of a command that has these for standard input, output, error, and for its exit code."""
        socket.send_fds(self._control, [json.dumps(order).encode()], descriptors)
        return int(self._control.recv(64))

    def _end(self) -> None:
        self._control.close()
        self._process.wait()


forks = functools.cache(Forks)


class Forked:
    """A running `flashfw` command, in the manner of `subprocess.Popen`."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        environ: Mapping[str, str],
        stdin: IO[Any] | int = subprocess.DEVNULL,
        stdout: IO[Any] | int = subprocess.DEVNULL,
        stderr: IO[Any] | int = subprocess.DEVNULL,
    ) -> None:
        self.returncode: int | None = None
        self._told, tells = os.pipe()
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            streams = [
                nowhere if stream == subprocess.DEVNULL else _number(stream) for stream in (stdin, stdout, stderr)
            ]
            order = {"arguments": [str(COMMAND), *arguments], "cwd": str(cwd), "environ": dict(environ)}
            self.pid = forks().start(order, [*streams, tells])
        finally:
            os.close(nowhere)
            os.close(tells)

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._ended(0.0)

    def wait(self, timeout: float = TIMEOUT_S) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"flashfw, process {self.pid}", timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_s: float) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout_s)[0]:
            self.returncode = int(os.read(self._told, 64))
            os.close(self._told)
        return self.returncode

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._told)


def _number(stream: IO[Any] | int) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


def flashfw(
    *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None, stdin: bytes | IO[Any] = b""
) -> subprocess.CompletedProcess[str]:
    """What a command printed and how it ended; one that does not end is killed."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if isinstance(stdin, bytes):
            given.write(stdin)
            given.seek(0)
        process = Forked(
            *arguments,
            cwd=cwd,
            environ=os.environ if environ is None else environ,
            stdin=given if isinstance(stdin, bytes) else stdin,
            stdout=out,
            stderr=err,
        )
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(["flashfw", *arguments], code, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").replace("\r\n", "\n")
