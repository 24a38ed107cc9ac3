"""Jobs that are handed to one handler together: their calls joined, the handler called with a list, each answered."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flashfw.worker.capture import current_job
from flashfw.worker.context import Cancelled
from flashfw.worker.failure import is_broken
from flashfw.worker.frames import Failure, Frame, Kind
from flashfw.worker.jobs import Host, JobFunction, failure_of, output_of

Group = list["Member"]


class BatchError(Exception):
    """A handler of batches did not return one result for each item."""


class Raised(NamedTuple):
    """What a handler raised, in the place of what it returns."""

    error: BaseException


class Batches:
    """Joins the calls of one batch as they come in. Belongs to the link's thread."""

    def __init__(self) -> None:
        self._incomplete: dict[str, BatchCall] = {}

    def join(self, frame: Frame, function: JobFunction, host: Host) -> tuple[Member, BatchCall | None]:
        """The call of this frame, and with the last one of its batch the batch. A call without one is its own."""
        batch_id = frame.meta.get("batch") or frame.meta["id"]
        batch = self._incomplete.setdefault(batch_id, BatchCall(function, host))
        member = batch.add(frame)
        if len(batch.members) < frame.meta.get("of", 1):
            return member, None
        return member, self._incomplete.pop(batch_id)


class Member:
    """One job of a batch: ends with exactly one of RESULT, FAILURE, GONE. What it is now is its batch's to say."""

    def __init__(self, frame: Frame, batch: BatchCall) -> None:
        self.number = frame.call
        self.id: str = frame.meta["id"]
        self.body = frame.body
        self.arguments: dict[str, Any] = {}
        self.is_open = True
        self.is_cancelled = False
        self._batch = batch

    def cancel(self, reason: str) -> None:
        """Asks the job to stop. From any thread."""
        self._batch.cancel(self)

    def credit(self, count: int) -> None:
        """A batch sends nothing that fills a window."""

    def data(self, body: bytes, end: bool) -> None:
        """A job's input comes whole, so there is no more."""


class BatchCall:
    """One call of a handler with a list, and if that raises, one with each item alone.

    A job that is cancelled while others of the list are wanted is gone at once, and its result is dropped. The last
    of a list stops the handler, and is gone once that has ended.
    """

    def __init__(self, function: JobFunction, host: Host) -> None:
        self.members: Group = []
        self._function = function
        self._host = host
        self._lock = threading.Lock()
        self._under_way: Group = []
        self._task: asyncio.Task[Any] | None = None

    def add(self, frame: Frame) -> Member:
        """One more job."""
        member = Member(frame, self)
        self.members.append(member)
        return member

    @property
    def in_thread(self) -> bool:
        """Whether it runs in a user thread from begin to end and never touches the loop."""
        return self._function.in_thread

    def run_in_thread(self) -> None:
        """The whole batch, in the user thread it was given to."""
        token = current_job.set(None)
        steps = self._steps()
        try:
            group = next(steps)
            while True:
                group = steps.send(self._call(group))
        except StopIteration:
            pass
        finally:
            current_job.reset(token)

    async def run(self) -> None:
        """The whole batch, on the loop. Never raises."""
        steps = self._steps()
        try:
            group = next(steps)
            while True:
                self._task = asyncio.create_task(self._call_async(group), name=self._function.function.id)
                await asyncio.wait([self._task])
                done, self._task = self._task, None
                group = steps.send(Raised(asyncio.CancelledError()) if done.cancelled() else done.result())
        except StopIteration:
            pass

    def cancel(self, member: Member) -> None:
        """One of its jobs is not wanted any more. From any thread."""
        with self._lock:
            if not member.is_open or member.is_cancelled:
                return
            member.is_cancelled = True
            is_last = member in self._under_way and not _wanted(self._under_way)
            member.is_open = is_last
        if is_last:
            self._host.on_loop(self._cancel_task)
        else:
            self._host.link.send(Kind.GONE, member.number)
            self._host.ended(member.number)

    def _steps(self) -> Generator[Group, Any, None]:
        """Yields the jobs that the handler is to be called with, and takes what came of it."""
        group = self._begin(member for member in self.members if self._bind(member))
        if not group or self._settle(group, (yield group)):
            return
        for member in group:
            if alone := self._begin([member]):
                self._settle(alone, (yield alone))

    def _bind(self, member: Member) -> bool:
        """Whether the input is what the handler takes; the job has failed if not."""
        current_job.set(member.id)
        try:
            member.arguments = self._function.binder.bind(member.body, job_id=member.id)
        except BaseException as error:  # the user's validators, whatever they raise
            self._end(member, Kind.FAILURE, self._failure(error))
            return False
        return True

    def _begin(self, members: Iterable[Member]) -> Group:
        members = list(members)
        with self._lock:
            self._under_way = group = [member for member in members if member.is_open and not member.is_cancelled]
        if group:  # what a list prints is told of its first job
            current_job.set(group[0].id)
            self._host.capture.began(group[0].number, group[0].id)
        return group

    def _settle(self, group: Group, result: Any) -> bool:
        """Answers each job with its part; False to call the handler with each of them alone."""
        with self._lock:
            self._under_way = []
        self._host.capture.ended(group[0].number, group[0].id)
        again = len(group) > 1 and isinstance(result, Raised) and not is_broken(result.error)
        if again and _wanted(group):
            return False
        for member, part in zip(group, _parts(result, len(group)), strict=True):
            self._answer(member, part)
        return True

    def _answer(self, member: Member, part: Any) -> None:
        current_job.set(member.id)
        if isinstance(part, BaseException):
            self._end(member, Kind.FAILURE, self._failure(part))
            return
        try:
            output = output_of(part)
        except BaseException as error:  # encoders of the user's types
            self._end(member, Kind.FAILURE, self._failure(error))
        else:
            self._end(member, Kind.RESULT, None, output)

    def _end(self, member: Member, kind: Kind, meta: Any, body: bytes = b"") -> None:
        with self._lock:
            if not member.is_open:
                return
            member.is_open = False
        self._host.capture.flush(member.id)
        if member.is_cancelled:
            self._host.link.send(Kind.GONE, member.number)
        else:
            self._host.link.send(kind, member.number, meta, body)
        self._host.ended(member.number)

    def _failure(self, error: BaseException) -> Failure:
        return failure_of(error, self._host.failures)

    def _call(self, group: Group) -> Any:
        """In a thread. A decorator may hide that what it wraps is async: that shows in what comes back."""
        try:
            result = self._function.target(**self._arguments(group))
            return self._host.wait(self._as_task(result)) if inspect.isawaitable(result) else result
        except BaseException as error:  # user code, whatever it raises
            return Raised(error)

    async def _call_async(self, group: Group) -> Any:
        try:
            result = self._function.target(**self._arguments(group))
            return await result if inspect.isawaitable(result) else result
        except BaseException as error:  # user code, whatever it raises
            return Raised(error)

    def _arguments(self, group: Group) -> Mapping[str, Any]:
        (spec,) = self._function.signature.inputs
        return {spec.name: [member.arguments[spec.name] for member in group], **self._function.fixed}

    async def _as_task(self, awaitable: Awaitable[Any]) -> Any:
        """Lets a cancel reach it."""
        self._task = asyncio.current_task()
        try:
            if not _wanted(self._under_way):
                raise Cancelled
            return await awaitable
        finally:
            self._task = None

    def _cancel_task(self) -> None:
        if self._task is not None and not _wanted(self._under_way):
            self._task.cancel()


def _wanted(group: Group) -> bool:
    return any(member.is_open and not member.is_cancelled for member in group)


def _parts(result: Any, count: int) -> Sequence[Any]:
    """What a handler returned, item by item; what is wrong with it as a whole holds for each."""
    if isinstance(result, Raised):
        return [result.error] * count
    given = _length(result)
    if given == count:
        return list(result)
    items = "1 item" if count == 1 else f"{count} items"
    back = type(result).__name__ if given is None else f"{type(result).__name__} of {given}"
    return [BatchError(f"the handler was given {items} and returned {back}: return a list of {count}")] * count


def _length(result: Any) -> int | None:
    """How many results a list, tuple or array holds; None if it is none of these."""
    is_list = isinstance(result, Sequence) and not isinstance(result, (str, bytes, bytearray, memoryview))
    if not is_list and not hasattr(type(result), "tolist"):
        return None
    try:
        return len(result)
    except TypeError:  # an array without dimensions
        return None
