"""One job call: input bound, function run, and its output, chunks, progress or failure sent."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol, TypeVar

from flashfw import manifest
from flashfw.errors import FlashfwError
from flashfw.worker.batch_input import binder_of
from flashfw.worker.bind import JobBinder, ValidationFailed
from flashfw.worker.capture import Capture, current_job
from flashfw.worker.context import Cancelled, Job
from flashfw.worker.encode import EncodeError, dumps
from flashfw.worker.failure import Failures
from flashfw.worker.fixtures import FixtureFailed, Node
from flashfw.worker.flow import Window, WindowClosed
from flashfw.worker.frames import Failure, Kind
from flashfw.worker.link import Link
from flashfw.worker.signature import Signature
from flashfw.worker.threads import Threads

T = TypeVar("T")
PerCall = Callable[..., AbstractAsyncContextManager[dict[str, Any]]]

MAX_OUTPUT_BYTES = 100_000_000
"""A larger output would hold up the link and the store for everybody else."""


class OutputTooLarge(FlashfwError):
    """An output that is no longer a message."""

    def __init__(self, size: int, root: str) -> None:
        what = (
            f"{root} has {size / 1e6:.0f} MB as JSON, more than the {MAX_OUTPUT_BYTES / 1e6:.0f} MB that a job returns"
        )
        super().__init__(what, hint="write it to a volume or a bucket, and return where it is")


class Host(Protocol):
    """What a call needs of the worker that runs it."""

    link: Link
    capture: Capture
    failures: Failures
    threads: Threads

    def broken(self, failure: Failure) -> None:
        """An HTTP call found this worker unfit for more; a job's FAILURE says so by itself."""

    def wait(self, awaitable: Awaitable[T]) -> T:
        """What the awaitable returns or raises, on the loop, while this thread waits for it."""

    def ended(self, number: int) -> None:
        """The call holds nothing any more, and its last frame is sent."""

    def on_loop(self, callback: Callable[[], None]) -> None:
        """Runs the callback on the loop soon; from any thread."""

    def start_task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs the work on the loop soon, in a task of that name; from any thread."""


@dataclass(frozen=True, slots=True)
class JobFunction:
    """One job function with all that does not change between calls."""

    function: manifest.Function
    target: Callable[..., Any]
    signature: Signature
    binder: JobBinder
    fixed: Mapping[str, Any]
    per_call: Mapping[str, Node]
    job_names: tuple[str, ...]

    @classmethod
    def of(
        cls, function: manifest.Function, target: Callable[..., Any], signature: Signature, needs: Mapping[str, Node]
    ) -> JobFunction:
        """Joins a function with its built fixtures.

        Raises:
            SignatureError: its inputs cannot come from JSON.
        """
        return cls(
            function=function,
            target=target,
            signature=signature,
            binder=binder_of(function, signature),
            fixed={name: node.value for name, node in needs.items() if not node.per_call},
            per_call={name: node for name, node in needs.items() if node.per_call},
            job_names=tuple(one.name for one in signature.injections if one.source == "job"),
        )

    @property
    def in_thread(self) -> bool:
        """Whether a call runs in a user thread from begin to end and never touches the loop."""
        return not self.signature.is_async and not self.per_call


class JobCall:
    """One attempt at a job. Ends with exactly one of RESULT, FAILURE, GONE."""

    def __init__(self, number: int, meta: Mapping[str, Any], body: bytes, function: JobFunction, host: Host) -> None:
        self.number = number
        self.job = Job(
            meta["id"],
            meta["attempt"],
            datetime.fromtimestamp(meta["deadline"], timezone.utc),
            report=self._report,
        )
        self._body = body
        self._function = function
        self._host = host
        self._window: Window | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The function's id."""
        return self._function.function.id

    def run_in_thread(self) -> None:
        """The whole call, in the user thread it was given to."""
        host = self._host
        token = current_job.set(self.job.id)
        host.capture.began(self.number, self.job.id)
        try:
            if self.job.cancelled:
                raise Cancelled
            output = self._call(self._function.fixed)
        except BaseException as error:  # user code, whatever it raises
            self._end(Kind.FAILURE, self._failure(error))
        else:
            self._end(Kind.RESULT, None, output)
        finally:
            current_job.reset(token)

    async def run(self, per_call: PerCall) -> None:
        """The whole call, on the loop; its synchronous parts in threads. Never raises."""
        self._task = asyncio.current_task()
        current_job.set(self.job.id)
        self._host.capture.began(self.number, self.job.id)
        try:
            if self.job.cancelled:
                raise Cancelled
            output = await self._run(per_call)
        except BaseException as error:  # user code, whatever it raises
            self._task = None
            self._end(Kind.FAILURE, self._failure(error))
        else:
            self._task = None
            self._end(Kind.RESULT, None, output)

    def cancel(self, reason: str) -> None:
        """Asks the call to stop. From any thread."""
        self.job.cancel()
        if self._window is not None:
            self._window.close()
        self._host.on_loop(self._cancel_task)

    def credit(self, count: int) -> None:
        """The gateway has used up chunks of that many bytes. From any thread."""
        if self._window is not None:
            self._window.credit(count)

    def data(self, body: bytes, end: bool) -> None:
        """A job's input comes whole, so there is no more."""

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, per_call: PerCall) -> bytes:
        function = self._function
        if not function.per_call:
            return await self._call_async(function.fixed)
        async with per_call(function.per_call, job=self.job) as built:
            given = {**function.fixed, **built}
            if function.signature.is_async:
                return await self._call_async(given)
            return await self._host.threads.run(self._call, given)

    def _arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        arguments = self._function.binder.bind(self._body, job_id=self.job.id)
        arguments.update(given)
        for name in self._function.job_names:
            arguments[name] = self.job
        return arguments

    def _call(self, given: Mapping[str, Any]) -> bytes:
        """In a thread. A decorator may hide that what it wraps is async: that shows in what comes back."""
        result = self._function.target(**self._arguments(given))
        if inspect.isawaitable(result):
            result = self._host.wait(self._as_task(result))
        if isinstance(result, AsyncGenerator):
            return self._host.wait(self._as_task(self._drain_async(result)))
        return self._drain(result) if isinstance(result, Generator) else output_of(result)

    async def _call_async(self, given: Mapping[str, Any]) -> bytes:
        result = self._function.target(**self._arguments(given))
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, AsyncGenerator):
            return await self._drain_async(result)
        if isinstance(result, Generator):
            return await self._host.threads.run(self._drain, result)
        return output_of(result)

    async def _as_task(self, awaitable: Awaitable[T]) -> T:
        """Lets a cancel reach it."""
        self._task = asyncio.current_task()
        if self.job.cancelled:
            raise Cancelled
        try:
            return await awaitable
        finally:
            self._task = None

    def _drain(self, items: Generator[Any, None, Any]) -> bytes:
        chunks: list[bytes] = []
        window = self._open_window()
        try:
            item = next(items)
            while True:
                size = self._keep(item, chunks)
                try:
                    window.take(size)
                    self._send(chunks)
                except WindowClosed:
                    pass  # cancelled: the generator is told below
                if self.job.cancelled:
                    items.throw(Cancelled(f"job {self.job.id} was cancelled"))
                    raise Cancelled  # it went on to another yield
                item = next(items)
        except StopIteration as stop:
            return _joined(chunks) if stop.value is None else output_of(stop.value)
        finally:
            items.close()

    async def _drain_async(self, items: AsyncGenerator[Any, None]) -> bytes:
        chunks: list[bytes] = []
        window = self._open_window()
        try:
            async for item in items:
                await window.take_async(self._keep(item, chunks))
                self._send(chunks)
        finally:
            await items.aclose()
        return _joined(chunks)

    def _open_window(self) -> Window:
        """Only streams have one. Set before the flag is read, as `cancel` sets the flag before it looks for it."""
        self._window = window = Window()
        if self.job.cancelled:
            window.close()
        return window

    def _keep(self, item: Any, chunks: list[bytes]) -> int:
        chunks.append(output_of(item, root=f"chunk[{len(chunks)}]"))
        return len(chunks[-1])

    def _send(self, chunks: list[bytes]) -> None:
        self._host.link.send(Kind.CHUNK, self.number, {"index": len(chunks) - 1}, chunks[-1])

    def _report(self, value: Any) -> None:
        self._host.link.latest(self.number, output_of(value, root="progress"))

    def _failure(self, error: BaseException) -> Failure:
        if self.job.cancelled:
            return Failure(reason="cancelled")  # GONE is sent in its place
        return failure_of(error, self._host.failures)

    def _end(self, kind: Kind, meta: Any, body: bytes = b"") -> None:
        host = self._host
        host.capture.ended(self.number, self.job.id)
        if self.job.cancelled:
            host.link.send(Kind.GONE, self.number)
        else:
            host.link.send(kind, self.number, meta, body)
        host.ended(self.number)


def failure_of(error: BaseException, failures: Failures) -> Failure:
    """The Failure of whatever ended a call."""
    if isinstance(error, ValidationFailed):
        return failures.invalid(error.errors)
    if isinstance(error, (EncodeError, OutputTooLarge)):
        return failures.of(error, "encode" if isinstance(error, EncodeError) else "too_large")
    if isinstance(error, FixtureFailed) and error.__cause__ is not None:
        return {**failures.of(error.__cause__, "handler_error"), "fixture": error.name}
    return failures.of(error, "handler_error")


def output_of(value: Any, *, root: str = "output") -> bytes:
    """A result as JSON.

    Raises:
        EncodeError, OutputTooLarge: it cannot be sent.
    """
    data = dumps(value, root=root)
    if len(data) > MAX_OUTPUT_BYTES:
        raise OutputTooLarge(len(data), root)
    return data


def _joined(chunks: list[bytes]) -> bytes:
    return b"[" + b",".join(chunks) + b"]"
