"""A job store as two lanes: what writes is done in groups, one after the other; what reads, beside that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import anyio

from flashfw.cluster.jobs.ledger import Ledger
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.shelf import Shelf
from flashfw.cluster.jobs.store import MAX_CHUNK_BYTES, Chunk, Count, Delivery, Entry, Health, Pending, StoreError, Tick
from flashfw.cluster.jobs.tally import Tally

T = TypeVar("T")

BITE = 500
"""Jobs that one transaction purges or forgets, so that others' work goes on between."""

SMALL_BYTES = 1 << 15
"""An input or output up to which a loop itself may write it."""


class Writer(Protocol):
    """Does calls in transactions, in the order in which they were asked for, and answers each after its commit."""

    def call(self, do: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        """Have `do(*arguments)` called."""
        ...

    def call_small(self, do: Callable[..., T], *arguments: Any, size: int = 0) -> Awaitable[T]:
        """As `call`, for what writes a few rows, with `size` bytes of somebody else's, and reads none but of late."""
        ...

    async def close(self) -> None:
        """Do what waits. Nothing may be called afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """An open store. `held` closes its connections and lets go of its lock."""

    ledger: Ledger
    shelf: Shelf
    writer: Writer
    reader: Writer
    held: ExitStack


class LaneStore:
    """The methods of `JobStore` that are the same for every database; `name` is what messages call the store.

    Each has the method of the ledger called by the writer, or that of the shelf by the reader; a subclass opens them.
    """

    def __init__(self, tally: Tally, *, name: str) -> None:
        self._tally = tally
        self._name = name
        self._session: Session | None = None

    async def close(self) -> None:
        """As `JobStore.close`. What was asked for before is done; what comes later raises `StoreError`."""
        session, self._session = self._session, None
        if session is None:
            return
        with anyio.CancelScope(shield=True):  # a server closes it while it is being cancelled
            if session.reader is not session.writer:
                await session.reader.close()
            await session.writer.close()
            await asyncio.to_thread(session.held.close)

    def submit(self, job: Job, *, max_queue: int, claim: Claimer | None = None) -> Awaitable[Job]:
        at = self._opened()
        # An idempotency key is looked for among all jobs, and their index may have to be read from the disk.
        size = len(job.input)
        if size > SMALL_BYTES or job.idempotency_key is not None:
            return at.writer.call(at.ledger.submit, job, max_queue, claim)
        return at.writer.call_small(at.ledger.submit, job, max_queue, claim, size=size)

    async def claim(self, functions: Collection[str], by: Claimer, *, limit: int = 1, alone: bool = True) -> list[Job]:
        return await self._write(Ledger.claim, functions, by, limit, alone)

    def finish(self, job_id: str, fence: int, end: End) -> Awaitable[Job | None]:
        at = self._opened()
        size = len(end.output or b"") + len(end.error or b"")
        if size > SMALL_BYTES:
            return at.writer.call(at.ledger.finish, job_id, fence, end)
        return at.writer.call_small(at.ledger.finish, job_id, fence, end, size=size)

    async def finish_and_claim(
        self, job_id: str, fence: int, end: End, *, claim: Claimer, functions: Collection[str], alone: bool = True
    ) -> tuple[Job | None, Job | None]:
        return await self._write(Ledger.finish_and_claim, job_id, fence, end, claim, functions, alone)

    async def reschedule(self, job_id: str, fence: int, error: bytes, at: float) -> Job | None:
        return await self._write(Ledger.reschedule, job_id, fence, error, at)

    async def release(self, job_id: str, fence: int) -> Job | None:
        return await self._write(Ledger.release, job_id, fence)

    async def lose(
        self, job_id: str, fence: int, error: bytes, *, reason: Reason = Reason.WORKER_LOST, alone: bool = False
    ) -> Job | None:
        return await self._write(Ledger.lose, job_id, fence, error, reason, alone)

    async def cancel(self, job_id: str) -> Job | None:
        return await self._write(Ledger.cancel, job_id)

    async def refuse(self, job_id: str, end: End) -> Job | None:
        return await self._write(Ledger.refuse, job_id, end)

    async def retry(self, job_id: str) -> Job | None:
        return await self._write(Ledger.retry, job_id)

    async def purge(self, function: str) -> int:
        last = await self._write(Ledger.last_seq)
        return await self._in_bites(Ledger.purge, function, last, BITE)

    async def refuse_all(self, function: str, end: End) -> int:
        last = await self._write(Ledger.last_seq)
        return await self._in_bites(Ledger.refuse_all, function, end, last, BITE)

    async def unpark(self) -> float | None:
        return await self._write(Ledger.unpark) if self._tally.any_parked() else None

    async def get(self, job_id: str) -> Job | None:
        return await self._read(Shelf.get, job_id)

    async def peek(self, job_id: str) -> Job | None:
        return await self._read(Shelf.peek, job_id)

    async def set_progress(self, job_id: str, fence: int, progress: bytes) -> None:
        await self._write(Ledger.set_progress, job_id, fence, progress)

    async def add_chunks(self, job_id: str, fence: int, chunks: Sequence[bytes]) -> bool:
        return await self._write(Ledger.add_chunks, job_id, fence, chunks)

    async def chunks(self, job_id: str, *, after: int = -1, up_to_bytes: int = MAX_CHUNK_BYTES) -> list[Chunk]:
        return await self._read(Shelf.chunks, job_id, after, up_to_bytes)

    async def expire(self, *, limit: int = 1000) -> list[Job]:
        await self._in_bites(Ledger.forget, BITE)
        await self._in_bites(Ledger.cut_journal, BITE)
        return await self._write(Ledger.expire, limit)

    async def oldest_waiting(self, functions: Collection[str]) -> float | None:
        return await self._write(Ledger.oldest_waiting, functions) if self.pending(functions).total else None

    def pending(self, functions: Collection[str]) -> Pending:
        return self._tally.pending(functions)

    def health(self, function: str) -> Health:
        return self._tally.health(function)

    async def counts(self) -> list[Count]:
        self._opened()
        return self._tally.counts()

    async def list(
        self,
        *,
        function: str | None = None,
        state: State | None = None,
        dead: bool = False,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        return await self._read(Shelf.newest, function, state, dead, before, limit)

    async def find(self, part: str, *, limit: int) -> Sequence[str]:
        return await self._read(Shelf.find, part, limit)

    async def deliveries(self, *, limit: int, lease_s: float) -> Sequence[Delivery]:
        return await self._write(Ledger.deliveries, limit, lease_s)

    async def delivered(self, delivery_id: str) -> None:
        await self._write(Ledger.delivered, delivery_id)

    async def undelivered(self, delivery_id: str, *, error: str, retry_at: float | None) -> None:
        await self._write(Ledger.undelivered, delivery_id, error, retry_at)

    async def record(self, entries: Sequence[Entry]) -> None:
        await self._write(Ledger.record, entries)

    async def story(self, job_id: str) -> Sequence[Entry]:
        return await self._read(Shelf.story, job_id)

    async def happened(self, endpoint: str, *, since: float, until: float, limit: int = 1000) -> Sequence[Entry]:
        return await self._read(Shelf.happened, endpoint, since, until, limit)

    async def last_tick(self, key: str) -> Tick | None:
        return await self._read(Shelf.last_tick, key)

    async def set_tick(self, key: str, tick: Tick) -> None:
        await self._write(Ledger.set_tick, key, tick)

    async def read_position(self, job_id: str) -> tuple[int, int]:
        return await self._read(Shelf.read_position, job_id)

    async def set_read_position(self, job_id: str, fence: int, index: int) -> None:
        await self._write(Ledger.set_read_position, job_id, fence, index)

    async def _in_bites(self, do: Callable[..., int], *arguments: Any) -> int:
        """Have a method called whose last argument is `BITE` until it has less to do; the sum of what it did."""
        done = bite = await self._write(do, *arguments)
        while bite == BITE:
            bite = await self._write(do, *arguments)
            done += bite
        return done

    def _write(self, do: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        """Have a method of the ledger called by the writer; its transaction is committed before the answer."""
        at = self._opened()
        return at.writer.call(getattr(at.ledger, do.__name__), *arguments)  # of a ledger of its own, perhaps

    def _read(self, do: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        at = self._opened()
        return at.reader.call(getattr(at.shelf, do.__name__), *arguments)

    def _opened(self) -> Session:
        if self._session is None:
            raise StoreError(f"the job store {self._name} is not open")
        return self._session
