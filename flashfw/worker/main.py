"""The worker process: START in, then calls until DRAIN.

Exit codes: 0 drained or described; 3 broken at start; 70 crashed: the link failed, or user code ended the loop.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from flashfw import manifest
from flashfw.errors import Exit
from flashfw.worker import context, files, load
from flashfw.worker.capture import Capture
from flashfw.worker.failure import Failures, Redaction
from flashfw.worker.fixtures import FixtureError, FixtureFailed
from flashfw.worker.frames import Description, Failure, Kind, Ready, Start
from flashfw.worker.link import Link
from flashfw.worker.reloading import Reloading
from flashfw.worker.runtime import Runtime
from flashfw.worker.service import BrokenFunction, Service, methods
from flashfw.worker.signature import SignatureError
from flashfw.worker.threads import Threads

BROKEN = 3
CRASHED = 70
LEFT_S = 1.0
"""A drained worker that still waits for threads of user code after that long says so."""
SWITCH_S = 0.001
"""The link's thread waits that long for a handler that computes; it costs nothing measurable."""
_logger = logging.getLogger("flashfw.worker")


def main(descriptor: int) -> NoReturn:
    """Runs a worker on a connected stream socket until it is drained or its gateway is gone."""
    link = Link(socket.socket(fileno=descriptor))
    frame = link.first()
    if frame is None or frame.kind is not Kind.START:
        sys.exit(Exit.DONE if frame is None else BROKEN)
    sys.setswitchinterval(SWITCH_S)
    sys.exit(Worker(link, cast(Start, frame.meta)).run())


class Worker:
    """One worker process from START to its exit code."""

    def __init__(self, link: Link, start: Start) -> None:
        self._start = start
        self._root = Path(start["root"])
        self._endpoint: manifest.Endpoint = manifest.decode(manifest.Endpoint, start["endpoint"])
        redact = Redaction(os.environ.get(name, "") for name in start["secrets"])
        self._link = link
        self._threads = Threads(self._endpoint.concurrency)
        self._capture = Capture(link, redact)
        self._failures = Failures(self._root, redact)
        reloads = start.get("reloads", False) and not start["describe"]
        self._kept = load.Kept(self._tell_read) if reloads else None
        self._runtime = Runtime(link, self._capture, self._failures, self._threads, self._root)
        self._service = Service(
            self._endpoint,
            self._root,
            self._threads,
            self._failures,
            on_broken=self._runtime.broken,
            on_lost=self._server_lost,
        )

    def run(self) -> int:
        """Serves, or describes; the exit code."""
        self._capture.install()
        atexit.register(partial(self._leave, os.getpid()))  # the first to register is the last to run
        context.configure(name=self._start["environment"], volumes=self._start["volumes"])
        place = Path(self._start.get("files", self._root / ".flashfw" / "files"))
        files.configure(place, is_synced=self._start.get("synced", False))
        load.install(self._root, self._kept)
        self._link.start(self._runtime.receive, self._lost, self._runtime.blocked_s)
        if self._start["describe"]:
            return self._describe()
        begun = time.monotonic()
        try:
            self._service.load()
        except BaseException as error:  # the user's modules, whatever they raise
            return self._broken(error)
        return self._run_loop(self._serve(round(time.monotonic() - begun, 4)))

    def _run_loop(self, main: Coroutine[Any, Any, int]) -> int:
        """`asyncio.run`, but for what asyncio lets out of any task: its way to end would fail the other calls."""
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt) as error:
            self._crash(error, "a task of user code ended the event loop")
        finally:
            _end_loop(loop)

    async def _serve(self, import_s: float) -> int:
        self._runtime.heartbeat.watch(asyncio.get_running_loop())
        main_task = asyncio.current_task()
        assert main_task is not None
        main_task.set_name(f"{self._endpoint.id} (a fixture)")
        try:
            fixtures_s = await self._service.build()
        except BaseException as error:  # the user's fixtures, whatever they raise
            code = self._broken(error)
            await self._service.close()
            return code
        files = self._runtime.begin(self._service)
        if self._kept is not None:
            self._runtime.on_reload = Reloading(self._runtime, self._root, self._kept).ask
        ready = Ready(pid=os.getpid(), import_s=import_s, fixtures_s=fixtures_s, files=files)
        self._link.read_on(asyncio.get_running_loop())
        self._link.send(Kind.READY, 0, ready)
        await self._runtime.until_drained()
        self._link.read_on(None)
        await self._runtime.service.close()
        self._runtime.heartbeat.watch(None)
        self._threads.close()
        return Exit.DONE

    def _tell_read(self, path: str) -> None:
        place = Path(path).relative_to(self._root.resolve()).as_posix()
        self._link.send(Kind.LOADED, 0, {"files": [place]})

    def _leave(self, pid: int) -> None:
        """At exit, after all that user code registered for it: the last output."""
        if os.getpid() == pid:  # not in a child that user code forked
            self._capture.close()
            self._link.close()

    def _lost(self, error: Exception | None) -> None:
        """The link has ended, by the other side or by a fault. On its thread."""
        if error is not None:
            self._crash(error, "the link to the gateway failed")
        # Nobody hears of this worker's work, and nothing of it may stay behind.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def _crash(self, error: BaseException, what: str) -> NoReturn:
        """Ends the process at once and says why: to the gateway, and where its placement looks."""
        shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._capture.crash(f"this worker ends: {what}\n{shown}")
        os._exit(CRASHED)

    def _server_lost(self, how: str) -> None:
        """The server that this worker stands for has ended; there is nothing left to serve."""
        self._capture.crash(f"this worker ends: {how}\n")
        os._exit(CRASHED)

    def _broken(self, error: BaseException) -> int:
        self._capture.flush()
        self._link.send(Kind.BROKEN, 0, self._failure(error))
        return BROKEN

    def _failure(self, error: BaseException) -> Failure:
        function: manifest.Function | None = None
        extra: Mapping[str, Any] = {}
        if isinstance(error, BrokenFunction):
            function, error = error.function, error.__cause__ or error
        if isinstance(error, FixtureFailed):
            extra, error = {"fixture": error.name}, error.__cause__ or error
        failure = self._failures.of(error, "startup")
        if isinstance(error, FixtureError) and error.place:
            failure["place"] = error.place
        elif function is not None and "place" not in failure:
            line = error.line if isinstance(error, SignatureError) and error.line else function.line
            failure["place"] = f"{function.file}:{line}"
        return cast(Failure, {**failure, **extra})

    def _describe(self) -> int:
        os.nice(10)  # nobody waits for it; somebody may for the worker that starts beside it
        described = {function.id: self._description(function) for function in self._endpoint.functions}
        self._capture.flush()
        self._link.send(Kind.DESCRIBED, 0, {"functions": described})
        return Exit.DONE

    def _description(self, function: manifest.Function) -> Description:
        from flashfw.worker.describe import describe

        try:
            handler = self._service.handler(function)
            if handler.signature is None:
                return Description(
                    doc=inspect.getdoc(handler.target) or "" if inspect.isroutine(handler.target) else ""
                )
            description = describe(function, handler.signature)
        except Exception as error:  # the user's module, or its types
            return Description(error=self._failure(error))
        if isinstance(handler.target, type):
            description["methods"] = methods(handler.target)
        return description


def _end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Ends what user code left on the loop; a task that does not end when asked is waited for."""
    for task in (left := asyncio.all_tasks(loop)):
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
    loop.run_until_complete(loop.shutdown_asyncgens())
    _tell_of_threads()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _tell_of_threads() -> None:
    """Python waits for threads that are no daemons, so a drained worker may live on; then the log says why."""

    def tell() -> None:
        names = [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
        if names:
            _logger.warning("drained, but waiting for threads that user code started: %s", ", ".join(names))

    timer = threading.Timer(LEFT_S, tell)
    timer.daemon = True
    timer.start()
