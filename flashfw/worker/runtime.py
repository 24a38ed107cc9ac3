"""A worker at work: frames from the link to calls, on the loop or in threads, until it is drained."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from flashfw.worker import load
from flashfw.worker.asgi import HttpCall
from flashfw.worker.batches import Batches
from flashfw.worker.capture import Capture
from flashfw.worker.failure import Failures
from flashfw.worker.frames import Failure, Frame, Kind, Reload
from flashfw.worker.http_frames import RequestHead
from flashfw.worker.jobs import JobCall, JobFunction
from flashfw.worker.leaving import Leaving
from flashfw.worker.link import Link
from flashfw.worker.service import Service
from flashfw.worker.sockets import SocketCall
from flashfw.worker.threads import Threads

T = TypeVar("T")

BLOCKED_S = 3.0
"""A loop that stands still for longer is told of, and again each time it has been four times as long."""


class Call(Protocol):
    """A call under way, as the link's thread sees it."""

    def cancel(self, reason: str) -> None: ...
    def credit(self, count: int) -> None: ...
    def data(self, body: bytes, end: bool) -> None: ...


class Heartbeat:
    """Measures how long the loop has not turned, from another thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked_at = 0.0
        self._answered = True

    def watch(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Measures this loop from now on; none if None."""
        self._answered = True
        self._loop = loop

    def blocked_s(self) -> float:
        """Seconds for which the loop has not answered. Asks it again if it has."""
        loop = self._loop
        if loop is None:
            return 0.0
        now = self._clock()
        if not self._answered:
            return now - self._asked_at
        self._answered = False
        self._asked_at = now
        try:
            loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # closed a moment ago
            self._loop = None
        return 0.0

    def running(self) -> str:
        """The name of the task that the loop is in, empty if in none."""
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        return task.get_name() if task is not None else ""

    def _answer(self) -> None:
        self._answered = True


class Runtime:
    """Runs the calls of one worker. `receive` belongs to whoever reads the link: the loop, or its thread."""

    def __init__(
        self,
        link: Link,
        capture: Capture,
        failures: Failures,
        threads: Threads,
        root: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link = link
        link.is_idle = lambda: not self._calls
        self.capture = capture
        self.failures = failures
        self.threads = threads
        self.heartbeat = Heartbeat(clock)
        self._root = root
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._calls: dict[int, Call] = {}
        self._batches = Batches()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = threading.Event()
        self._idle: asyncio.Event | None = None
        self._modules = 0
        self._files: set[str] = set()
        self._tell_blocked_s = BLOCKED_S
        self._leaving = Leaving()
        self.on_reload: Callable[[Reload], None] = lambda asked: None

    @property
    def service(self) -> Service:
        """What serves the next call."""
        assert self._service is not None, "not begun"
        return self._service

    def begin(self, service: Service) -> list[str]:
        """Takes calls for this service from now on; the project files that are loaded. On the loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._idle = asyncio.Event()
        self._service = service
        self._modules = len(sys.modules)
        self._files = {*load.loaded_files(self._root), *service.files}
        return sorted(self._files)

    def renew(self, service: Service) -> list[str]:
        """Serve by another service from the next call on; the project files that are loaded now. On the loop."""
        before, self._service = self.service, service
        self._modules = len(sys.modules)
        self._files = set(load.loaded_files(self._root))
        if before.has_left(service):
            self._leaving.add(lambda: self.start_task("closing", before.leave(service)))
            self.link.between_reads(lambda: self._leaving.look(self._calls))
        return sorted(self._files)

    async def until_drained(self) -> None:
        """Returns once DRAIN came and the last call has ended."""
        assert self._idle is not None
        self._check_idle()
        await self._idle.wait()
        while self._tasks:  # teardown and background work go on after a response has ended its call
            await asyncio.wait(list(self._tasks))

    def receive(self, frames: list[Frame]) -> Callable[[], None] | None:
        """The frames of one read; what is to be called next if that was on the loop. Runs no code of the user's."""
        for_loop: list[tuple[str, Coroutine[Any, Any, None]]] = []
        for frame in frames:
            if frame.kind is Kind.CALL:
                self._call(frame, for_loop)
            elif frame.kind is Kind.REQUEST:
                self._request(frame, for_loop)
            elif frame.kind is Kind.DRAIN:
                self._draining.set()
                self._check_idle()
            elif frame.kind is Kind.RELOAD:
                self.on_loop(partial(self.on_reload, cast(Reload, frame.meta)))
            elif (call := self._calls.get(frame.call)) is not None:
                _pass_on(call, frame)
        self.link.gathers = len(self._calls) > 1
        if not for_loop:
            return None
        start = partial(self._start_tasks, for_loop)
        if threading.get_ident() == self._loop_thread:
            return start
        self.on_loop(start)
        return None

    def on_loop(self, callback: Callable[[], None]) -> None:
        """Runs the callback on the loop soon; from any thread."""
        assert self._loop is not None, "a call before READY"
        try:
            if threading.get_ident() == self._loop_thread:
                self._loop.call_soon(callback)
            else:
                self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop has ended, and the call with it
            pass

    def start_task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs the work on the loop soon, in a task of that name; from any thread."""
        self.on_loop(lambda: self._start_tasks([(name, work)]))

    def broken(self, failure: Failure) -> None:
        """An HTTP call found this worker unfit for more; a job's FAILURE says so by itself. From any thread."""
        self.link.send(Kind.UNFIT, 0, failure)

    def wait(self, awaitable: Awaitable[T]) -> T:
        """What the awaitable returns or raises, on the loop, while this thread waits for it."""
        assert self._loop is not None, "a call before READY"
        return asyncio.run_coroutine_threadsafe(_awaited(awaitable), self._loop).result()

    def ended(self, number: int) -> None:
        """A call holds nothing any more, and its last frame is sent. From any thread."""
        self._calls.pop(number, None)
        if not self._leaving.is_empty:
            self._leaving.ended(number)
        if len(sys.modules) != self._modules:
            self._tell_loaded()
        if self._draining.is_set():
            self._check_idle()

    def blocked_s(self) -> float:
        """How long the loop has not turned; tells the user once it is long. On the link's thread."""
        blocked_s = self.heartbeat.blocked_s()
        if blocked_s >= self._tell_blocked_s:
            self._tell_blocked_s *= 4
            name = self.heartbeat.running() or "a task"
            text = f"{name} blocked its loop for {blocked_s:.0f} s: use def, or await what takes long\n"
            self.capture.log("log", text, level="warning", wait_s=0.0)
        elif not blocked_s:
            self._tell_blocked_s = BLOCKED_S
        return blocked_s

    def _call(self, frame: Frame, for_loop: list[tuple[str, Coroutine[Any, Any, None]]]) -> None:
        service, name = self._service, frame.meta["function"]
        if service is not None and (job := service.jobs.get(name)) is not None and job.function.batch is not None:
            self._batched(frame, job, for_loop)
        elif service is not None and (job := service.jobs.get(name)) is not None:
            call = JobCall(frame.call, frame.meta, frame.body, job, self)
            self._calls[frame.call] = call
            if job.in_thread:
                self.threads.submit(call.run_in_thread)
            else:
                for_loop.append((name, call.run(service.fixtures.per_call)))
        else:
            self._refuse(frame.call, name)

    def _request(self, frame: Frame, for_loop: list[tuple[str, Coroutine[Any, Any, None]]]) -> None:
        service, head = self._service, RequestHead(frame.head)
        app = None if service is None else service.app(head.function, head.is_preflight)
        if app is None:
            self._refuse(frame.call, head.function)
            return
        if head.is_socket:
            socket = SocketCall(frame, head, self)
            self._calls[frame.call] = socket
            for_loop.append((head.function, socket.run(app)))
            return
        call = HttpCall(frame, head, self)
        self._calls[frame.call] = call
        whole = service.wholes.get(head.function) if service is not None else None
        if whole is None or not head.end:
            for_loop.append((head.function, call.run(app)))
        elif whole.is_sync:
            self.threads.submit(partial(call.run_in_thread, whole))
        else:
            for_loop.append((head.function, call.run_whole(whole)))

    def _refuse(self, number: int, name: str) -> None:
        message = f"this worker has no function {name!r}"
        self.link.send(Kind.FAILURE, number, Failure(reason="function_gone", type="LookupError", message=message))

    def _batched(self, frame: Frame, job: JobFunction, for_loop: list[tuple[str, Coroutine[Any, Any, None]]]) -> None:
        member, batch = self._batches.join(frame, job, self)
        self._calls[frame.call] = member
        if batch is None:
            return
        if batch.in_thread:
            self.threads.submit(batch.run_in_thread)
        else:
            for_loop.append((frame.meta["function"], batch.run()))

    def _start_tasks(self, calls: list[tuple[str, Coroutine[Any, Any, None]]]) -> None:
        for name, call in calls:
            task = asyncio.get_running_loop().create_task(call, name=name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _check_idle(self) -> None:
        idle = self._idle
        if self._draining.is_set() and not self._calls and idle is not None:
            self.on_loop(idle.set)

    def _tell_loaded(self) -> None:
        self._modules = len(sys.modules)
        files = set(load.loaded_files(self._root))
        if new := sorted(files - self._files):
            self._files |= files
            self.link.send(Kind.LOADED, 0, {"files": new})


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _pass_on(call: Call, frame: Frame) -> None:
    if frame.kind is Kind.CANCEL:
        call.cancel(frame.meta.get("reason", "cancelled"))
    elif frame.kind is Kind.CREDIT:
        call.credit(frame.meta["bytes"])
    elif frame.kind is Kind.DATA and isinstance(call, SocketCall):
        call.message(frame)
    elif frame.kind is Kind.DATA:
        call.data(frame.body, frame.meta.get("end", False))
