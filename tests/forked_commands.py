"""Forks `flashfw` commands off a process that has imported what they import, so that a start takes milliseconds.

The program of `tests/command.py`. Orders come on a socket, each with descriptors: standard input, output and error of
the command, and a pipe that gets its exit code. The process has no thread and no event loop, so that a fork is whole.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from flashfw.cli.main import VERBS, main

MODULES = (
    *(module for module, _ in VERBS.values()),
    *("flashfw.dev.server", "flashfw.dev.watch", "anyio._backends._asyncio", "asyncio.subprocess", "certifi", "h11"),
    *("pathspec.patterns.gitignore.spec", "platformdirs", "psycopg", "pydantic", "uvicorn.lifespan.off"),
    *("uvicorn.protocols.http.httptools_impl", "uvloop", "watchfiles"),
)
"""What a command imports when it is needed."""


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Forks for each order; returns it in the child, and None here once nobody gives any."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wakes)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 1 << 16)
            _tell(running)
        if control not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 22, 4)
        if not message:
            return None
        child = os.fork()
        if not child:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (control.detach(), woken, wakes, descriptors[3], *running.values()):
                os.close(descriptor)
            for number, descriptor in enumerate(descriptors[:3]):
                os.dup2(descriptor, number)
                os.close(descriptor)
            return dict(json.loads(message))
        running[child] = descriptors[3]
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        control.sendall(b"%d" % child)


def _tell(running: dict[int, int]) -> None:
    """Send the exit codes of those that have ended."""
    for child in list(running):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            pipe = running.pop(child)
            try:
                os.write(pipe, b"%d" % os.waitstatus_to_exitcode(status))
            except BrokenPipeError:
                pass  # nobody asks any more
            os.close(pipe)


def become(arguments: list[str], cwd: str, environ: Mapping[str, str]) -> None:
    """What an exec of the command in that folder, with these variables, would have made of this process."""
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    time.tzset()
    sys.argv = arguments
    is_unbuffered = bool(environ.get("PYTHONUNBUFFERED"))
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "rb", closefd=False)), "utf-8")
    sys.stdout = _writer(1, "surrogateescape", line_buffering=os.isatty(1), write_through=is_unbuffered)
    sys.stderr = _writer(2, "backslashreplace", line_buffering=True, write_through=is_unbuffered)


def _writer(descriptor: int, errors: str, **how: bool) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(raw if how["write_through"] else io.BufferedWriter(raw), "utf-8", errors, **how)


for module in MODULES:
    importlib.import_module(module)
gc.collect()
gc.freeze()
if (order := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
    become(**order)
    main()
