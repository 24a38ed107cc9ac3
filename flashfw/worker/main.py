"""The worker process: START in, then calls until DRAIN. Exit codes: 0 drained or described, 3 broken at start."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from flashfw import manifest
from flashfw.errors import Exit
from flashfw.worker import context, load
from flashfw.worker.capture import Capture
from flashfw.worker.failure import Failures, Redaction
from flashfw.worker.fixtures import FixtureError, FixtureFailed
from flashfw.worker.frames import Description, Failure, Kind, Ready, Start
from flashfw.worker.link import Link
from flashfw.worker.runtime import Runtime
from flashfw.worker.service import BrokenFunction, Service
from flashfw.worker.signature import SignatureError
from flashfw.worker.threads import Threads

BROKEN = 3
SWITCH_S = 0.001
"""The link's thread waits that long for a handler that computes; it costs nothing measurable."""
_logger = logging.getLogger("flashfw.worker")


def main(descriptor: int) -> NoReturn:
    """Runs a worker on a connected stream socket until it is drained or its gateway is gone."""
    link = Link(socket.socket(fileno=descriptor))
    frame = link.first()
    if frame is None or frame.kind is not Kind.START:
        sys.exit(Exit.DONE if frame is None else BROKEN)
    start = cast(Start, frame.meta)
    sys.setswitchinterval(SWITCH_S)
    worker = Worker(link, start)
    code = worker.run()
    worker.capture.flush()
    link.close()
    sys.exit(code)


class Worker:
    """One worker process from START to its exit code."""

    def __init__(self, link: Link, start: Start) -> None:
        self._start = start
        self._root = Path(start["root"])
        self._endpoint: manifest.Endpoint = manifest.decode(manifest.Endpoint, start["endpoint"])
        redact = Redaction(os.environ.get(name, "") for name in start["secrets"])
        self._link = link
        self._threads = Threads(self._endpoint.concurrency)
        self.capture = Capture(link, redact)
        self._failures = Failures(self._root, redact)
        self._runtime = Runtime(link, self.capture, self._failures, self._threads, self._root)
        self._service = Service(self._endpoint, self._root, self._threads, self._failures)

    def run(self) -> int:
        """Serves, or describes; the exit code."""
        self.capture.install()
        context.configure(name=self._start["environment"], volumes=self._start["volumes"])
        load.install(self._root)
        self._link.start(self._runtime.receive, _lost, self._runtime.blocked_s)
        if self._start["describe"]:
            return self._describe()
        begun = time.monotonic()
        try:
            self._service.load()
        except (Exception, SystemExit) as error:  # the user's modules, whatever they raise
            return self._broken(error)
        return asyncio.run(self._serve(round(time.monotonic() - begun, 4)))

    async def _serve(self, import_s: float) -> int:
        self._runtime.heartbeat.watch(asyncio.get_running_loop())
        main_task = asyncio.current_task()
        assert main_task is not None
        main_task.set_name(f"{self._endpoint.id} (a fixture)")
        try:
            fixtures_s = await self._service.build()
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # the user's fixtures, whatever they raise
            code = self._broken(error)
            await self._service.close()
            return code
        files = self._runtime.begin(self._service)
        ready = Ready(pid=os.getpid(), import_s=import_s, fixtures_s=fixtures_s, files=files)
        self._link.send(Kind.READY, 0, ready)
        await self._runtime.until_drained()
        await self._service.close()
        self._runtime.heartbeat.watch(None)
        self._threads.close()
        return Exit.DONE

    def _broken(self, error: BaseException) -> int:
        self.capture.flush()
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
        described = {function.id: self._description(function) for function in self._endpoint.functions}
        self.capture.flush()
        self._link.send(Kind.DESCRIBED, 0, {"functions": described})
        return Exit.DONE

    def _description(self, function: manifest.Function) -> Description:
        from flashfw.worker.describe import describe

        try:
            handler = self._service.handler(function)
            if handler.signature is None:
                return Description(doc=(handler.target.__doc__ or "") if callable(handler.target) else "")
            description = describe(function, handler.signature)
        except Exception as error:  # the user's module, or its types
            return Description(error=self._failure(error))
        if isinstance(handler.target, type):
            description["methods"] = [name for name, value in vars(handler.target).items() if _is_method(name, value)]
        return description


def _is_method(name: str, value: Any) -> bool:
    return not name.startswith("_") and name not in ("close", "aclose") and callable(value)


def _lost() -> NoReturn:
    """The gateway is gone: nobody hears of this worker's work, and nothing of it may stay behind."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
