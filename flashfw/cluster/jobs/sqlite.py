"""The job store in a SQLite file, or in memory for tests."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs import database
from flashfw.cluster.jobs.database import Synchronous
from flashfw.cluster.jobs.lane import Lane
from flashfw.cluster.jobs.ledger import Ledger
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.shelf import Shelf
from flashfw.cluster.jobs.store import MAX_CHUNK_BYTES, Chunk, Count, Health, StoreError
from flashfw.cluster.jobs.tally import Tally
from flashfw.cluster.jobs.transactions import GroupCommit, read

T = TypeVar("T")

BITE = 500
"""Jobs that one transaction purges or forgets, so that others' work goes on between."""


@dataclass(frozen=True, slots=True)
class _Session:
    """An open store. `held` closes its connections and lets go of its lock."""

    ledger: Ledger
    shelf: Shelf
    writer: Lane
    reader: Lane
    held: ExitStack


class SqliteStore:
    """A `JobStore` for one process. It lives from `open` to `close`, on the loop that opened it.

    All writes go through one thread and are committed in groups; reads of single jobs and lists have
    a thread and a connection of their own. `synchronous="FULL"` survives a power cut, `"NORMAL"` the
    death of the process alone (docs/durability.md). Without a path it is kept in memory, for tests.

    >>> store = SqliteStore(Path("jobs.sqlite"), clock=SystemClock(), synchronous="FULL")
    >>> await store.open(boot)
    0
    """

    def __init__(self, path: Path | None, *, clock: Clock, synchronous: Synchronous = "NORMAL") -> None:
        self._path = path
        self._clock = clock
        self._synchronous: Synchronous = synchronous
        self._tally = Tally()
        self._session: _Session | None = None

    async def open(self, boot: str) -> int:
        """As `JobStore.open`.

        Raises:
            StoreError: another process has it open, a newer flashfw wrote it, or it cannot be read.
        """
        if self._session is not None:
            raise StoreError(f"the job store {self._path or 'in memory'} is open already")
        writing, reading, held = await asyncio.to_thread(self._connect)
        ledger = Ledger(writing, self._clock, self._tally)
        writer = Lane(GroupCommit(writing, self._tally, on_undo=ledger.distrust), name="flashfw-jobs-writer")
        # A database in memory belongs to its one connection.
        reader = writer if reading is None else Lane(read, name="flashfw-jobs-reader")
        self._session = _Session(ledger, Shelf(reading or writing, self._clock), writer, reader, held)
        try:
            return await writer.call(ledger.requeue_orphans, boot)
        except BaseException:
            await self.close()
            raise

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

    async def submit(self, job: Job, *, max_queue: int, claim: Claimer | None = None) -> Job:
        return await self._write(Ledger.submit, job, max_queue, claim)

    async def claim(self, functions: Collection[str], by: Claimer, *, limit: int = 1) -> list[Job]:
        return await self._write(Ledger.claim, functions, by, limit)

    async def finish(self, job_id: str, fence: int, end: End) -> Job | None:
        return await self._write(Ledger.finish, job_id, fence, end)

    async def finish_and_claim(
        self, job_id: str, fence: int, end: End, *, claim: Claimer, functions: Collection[str]
    ) -> tuple[Job | None, Job | None]:
        return await self._write(Ledger.finish_and_claim, job_id, fence, end, claim, functions)

    async def release(self, job_id: str, fence: int) -> Job | None:
        return await self._write(Ledger.release, job_id, fence)

    async def lose(self, job_id: str, fence: int, error: bytes, *, reason: Reason = Reason.WORKER_LOST) -> Job | None:
        return await self._write(Ledger.lose, job_id, fence, error, reason)

    async def cancel(self, job_id: str) -> Job | None:
        return await self._write(Ledger.cancel, job_id)

    async def refuse(self, job_id: str, end: End) -> Job | None:
        return await self._write(Ledger.refuse, job_id, end)

    async def retry(self, job_id: str) -> Job | None:
        return await self._write(Ledger.retry, job_id)

    async def purge(self, function: str) -> int:
        last = await self._write(Ledger.last_seq)
        purged = bite = await self._write(Ledger.purge, function, last, BITE)
        while bite == BITE:
            bite = await self._write(Ledger.purge, function, last, BITE)
            purged += bite
        return purged

    async def get(self, job_id: str) -> Job | None:
        return await self._read(Shelf.get, job_id)

    async def set_progress(self, job_id: str, fence: int, progress: bytes) -> None:
        await self._write(Ledger.set_progress, job_id, fence, progress)

    async def add_chunks(self, job_id: str, fence: int, chunks: Sequence[bytes]) -> bool:
        return await self._write(Ledger.add_chunks, job_id, fence, chunks)

    async def chunks(self, job_id: str, *, after: int = -1, up_to_bytes: int = MAX_CHUNK_BYTES) -> list[Chunk]:
        return await self._read(Shelf.chunks, job_id, after, up_to_bytes)

    async def expire(self, *, limit: int = 1000) -> list[Job]:
        while await self._write(Ledger.forget, BITE) == BITE:
            pass
        return await self._write(Ledger.expire, limit)

    async def oldest_waiting(self, functions: Collection[str]) -> float | None:
        return await self._write(Ledger.oldest_waiting, functions) if self.pending(functions) else None

    def pending(self, functions: Collection[str]) -> int:
        return self._tally.pending(functions)

    def health(self, function: str) -> Health:
        return self._tally.health(function)

    async def counts(self) -> list[Count]:
        self._opened()
        return self._tally.counts()

    async def list(self, *, function: str | None = None, state: State | None = None, limit: int = 100) -> list[Job]:
        return await self._read(Shelf.newest, function, state, limit)

    def _write(self, do: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Have a method of the ledger called by the writer; its transaction is committed before the answer."""
        at = self._opened()
        return at.writer.call(do, at.ledger, *arguments)

    def _read(self, do: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        at = self._opened()
        return at.reader.call(do, at.shelf, *arguments)

    def _opened(self) -> _Session:
        if self._session is None:
            raise StoreError(f"the job store {self._path or 'in memory'} is not open")
        return self._session

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Connection | None, ExitStack]:
        """The connections for writing and, to a file, for reading."""
        with ExitStack() as held:
            if self._path is not None:
                held.callback(os.close, database.lock(self._path))
            writing = held.enter_context(closing(database.connect(self._path, synchronous=self._synchronous)))
            database.migrate(writing)
            self._tally.load(writing)
            reading = None
            if self._path is not None:
                reading = held.enter_context(closing(database.connect(self._path, synchronous=self._synchronous)))
            return writing, reading, held.pop_all()
