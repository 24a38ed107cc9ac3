"""Writes what workers report to the job store: in order for each run, and again until the store keeps it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from flashfw.cluster.clock import sleep
from flashfw.cluster.dispatch.runs import Run, error_json
from flashfw.cluster.events import Event, internal, store_failed
from flashfw.cluster.jobs.answer import Answer, told
from flashfw.cluster.jobs.model import End, Job, Reason, State
from flashfw.cluster.jobs.store import JobStore, StoreError, TooLarge
from flashfw.cluster.site import Site

T = TypeVar("T")
_Claim = tuple[str, int]

RETRY_S = 1.0
SPARE = 32
"""Tasks that stay for the next run to write: to start one costs more than all else that is done of an end."""


class Attended(Protocol):
    """Who must hear of what was kept: the dispatcher."""

    def finish_now(self, job: Job, end: End) -> Awaitable[Job | None] | None:
        """Have the store finish the job; None if `finish` has more to do."""
        ...

    async def finish(self, job: Job, end: End) -> Job | None:
        """Have the store finish the job, and whatever else goes into the same transaction."""
        ...

    def on_changed(self, job_id: str) -> None:
        """Its record or its chunks changed."""
        ...

    def on_ended(self, job: Job) -> None:
        """It has its terminal record."""
        ...

    def on_requeued(self, job: Job, why: str) -> None:
        """It is back in the queue."""
        ...

    def on_rescheduled(self, job: Job) -> None:
        """It is back in the queue, to be tried again later."""
        ...

    def on_too_large(self, run: Run) -> None:
        """It yielded more than a job may; its end is written."""
        ...


class _Sheet:
    """What is to be written of one run; `end` comes last."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.progress: bytes | None = None
        self.end: Callable[[], Awaitable[None]] | None = None

    @property
    def has_more(self) -> bool:
        return bool(self.chunks) or self.progress is not None or self.end is not None


class Keeper:
    """Keeps the records of one dispatcher's runs. None of its methods waits; `settled` tells when all is written."""

    def __init__(self, store: JobStore, *, site: Site, attended: Attended, tasks: TaskGroup) -> None:
        self._store = store
        self._site = site
        self._attended = attended
        self._tasks = tasks
        self._sheets: dict[_Claim, _Sheet] = {}
        self._due: deque[tuple[_Claim, Run]] = deque()
        self._spare: list[asyncio.Future[None]] = []
        self._settled = anyio.Event()
        self._is_closing = False

    def chunk(self, run: Run, data: bytes) -> None:
        """Append a yielded item; the worker gets its credit once it is kept."""
        self._sheet(run).chunks.append(data)

    def progress(self, run: Run, data: bytes) -> None:
        """Keep the latest progress; an earlier one that was not written yet is not missed."""
        self._sheet(run).progress = data

    def finish(self, run: Run, end: End) -> None:
        """Write the terminal record. Where that is all there is to write of the run, it takes no task."""
        claim = (run.job.id, run.job.fence)
        if claim not in self._sheets and (written := self._finish_now(run, end)) is not None:
            self._sheets[claim] = _Sheet()
            written.add_done_callback(partial(self._on_written, run, end))
        else:
            self._sheet(run).end = lambda: self._finish(run.job, end)

    def reschedule(self, run: Run, error: bytes, in_s: float) -> None:
        """Its handler raised: put the job back, to be tried again after so many seconds."""
        self._sheet(run).end = lambda: self._reschedule(run.job, error, in_s)

    def lose(self, run: Run, error: bytes, reason: Reason, *, alone: bool = False) -> None:
        """The worker died with the job, and with `alone` others beside it."""
        self._sheet(run).end = lambda: self._lose(run.job, error, reason, alone)

    def release(self, run: Run, why: str) -> None:
        """Put the job back through no fault of its own."""
        self._sheet(run).end = lambda: self._release(run.job, why)

    async def settled(self) -> None:
        """For who closes: return once nothing is left to be written. No task is kept from now on."""
        self._is_closing = True
        while self._call_spare():
            pass
        while self._sheets:
            self._settled = anyio.Event()
            await self._settled.wait()

    def _sheet(self, run: Run) -> _Sheet:
        claim = (run.job.id, run.job.fence)
        if claim not in self._sheets:
            self._sheets[claim] = _Sheet()
            self._have_written(claim, run)
        return self._sheets[claim]

    def _have_written(self, claim: _Claim, run: Run) -> None:
        self._due.append((claim, run))
        if not self._call_spare():
            self._tasks.start_soon(self._work)

    def _finish_now(self, run: Run, end: End) -> asyncio.Future[Job | None] | Answer[Job | None] | None:
        try:
            written = self._attended.finish_now(run.job, end)
        except StoreError:  # whoever insists is told again
            return None
        return None if written is None else told(written)

    def _on_written(self, run: Run, end: End, done: asyncio.Future[Job | None] | Answer[Job | None]) -> None:
        """The terminal record is kept, or it is insisted on."""
        claim = (run.job.id, run.job.fence)
        if done.cancelled() or isinstance(done.exception(), StoreError):
            self._sheets[claim].end = lambda: self._finish(run.job, end)
            self._have_written(claim, run)
            return
        del self._sheets[claim]
        try:
            if (ended := done.result()) is not None:
                self._attended.on_ended(ended)
        except Exception as error:  # what goes wrong with one record is no other's affair
            self._site.emit(_defect(run, error))
        self._settled.set()

    async def _work(self) -> None:
        """Write one run after the other; end where enough others wait for the next."""
        while True:
            while self._due:
                await self._write(*self._due.popleft())
            if self._is_closing or len(self._spare) >= SPARE:
                return
            called = asyncio.get_running_loop().create_future()
            self._spare.append(called)
            await called

    def _call_spare(self) -> bool:
        while self._spare:
            called = self._spare.pop()
            if not called.done():  # its task may have been cancelled
                called.set_result(None)
                return True
        return False

    async def _write(self, claim: _Claim, run: Run) -> None:
        sheet = self._sheets[claim]
        try:
            while sheet.has_more:
                await self._write_next(sheet, run)
        finally:
            del self._sheets[claim]
            self._settled.set()

    async def _write_next(self, sheet: _Sheet, run: Run) -> None:
        try:
            if sheet.chunks:
                chunks, sheet.chunks = sheet.chunks, []
                await self._add_chunks(run, chunks)
            elif sheet.progress is not None:
                progress, sheet.progress = sheet.progress, None
                await self._insist(lambda: self._store.set_progress(run.job.id, run.job.fence, progress))
                self._attended.on_changed(run.job.id)
            elif sheet.end is not None:
                end, sheet.end = sheet.end, None
                await end()
        except Exception as error:  # what goes wrong with one record is no other's affair
            self._site.emit(_defect(run, error))

    async def _add_chunks(self, run: Run, chunks: list[bytes]) -> None:
        job = run.job
        try:
            kept = await self._insist(lambda: self._store.add_chunks(job.id, job.fence, chunks))
        except TooLarge as error:
            if len(chunks) > 1:  # those that fit are kept
                for chunk in chunks:
                    await self._add_chunks(run, [chunk])
            else:
                self._attended.on_too_large(run)
                failure = error_json("TooLarge", str(error))
                await self._finish(job, End(state=State.FAILED, reason=Reason.TOO_LARGE, error=failure))
            return
        if kept:
            self._attended.on_changed(job.id)
            run.credit(sum(map(len, chunks)))

    async def _finish(self, job: Job, end: End) -> None:
        ended = await self._insist(lambda: self._attended.finish(job, end))
        if ended is not None:
            self._attended.on_ended(ended)

    async def _reschedule(self, job: Job, error: bytes, in_s: float) -> None:
        at = self._site.clock.now() + in_s
        after = await self._insist(lambda: self._store.reschedule(job.id, job.fence, error, at))
        if after is not None:
            self._attended.on_rescheduled(after)

    async def _lose(self, job: Job, error: bytes, reason: Reason, alone: bool) -> None:
        after = await self._insist(lambda: self._store.lose(job.id, job.fence, error, reason=reason, alone=alone))
        if after is None:
            return
        if after.state.is_terminal:
            self._attended.on_ended(after)
        else:
            self._attended.on_requeued(after, error.decode())

    async def _release(self, job: Job, why: str) -> None:
        released = await self._insist(lambda: self._store.release(job.id, job.fence))
        if released is not None:
            self._attended.on_requeued(released, why)

    async def _insist(self, change: Callable[[], Awaitable[T]]) -> T:
        """Make a change that must not be lost: try until the store keeps it."""
        while True:
            try:
                return await change()
            except TooLarge:
                raise
            except StoreError as error:
                self._site.emit(store_failed(error))
                await sleep(self._site.clock, RETRY_S)


def _defect(run: Run, error: Exception) -> Event:
    return internal(f"keeping job {run.job.id}", error, run.worker.endpoint.id)
