"""The job store in a SQLite file, or in memory for tests."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from pathlib import Path

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs import database
from flashfw.cluster.jobs.database import Synchronous
from flashfw.cluster.jobs.lane import Lane
from flashfw.cluster.jobs.lanes import LaneStore, Session, Writer
from flashfw.cluster.jobs.ledger import Ledger
from flashfw.cluster.jobs.shelf import Shelf
from flashfw.cluster.jobs.store import Change, StoreError
from flashfw.cluster.jobs.tally import Tally
from flashfw.cluster.jobs.transactions import GroupCommit, read
from flashfw.cluster.jobs.turns import TurnWriter


class SqliteStore(LaneStore):
    """A `JobStore` for one process. It lives from `open` to `close`, on the loop that opened it.

    All writes are committed in groups, by the loop or by a thread (`turns.py`); reads of single jobs and lists have
    a thread and a connection of their own. `synchronous="FULL"` survives a power cut, `"NORMAL"` the
    death of the process alone (docs/durability.md). Without a path it is kept in memory, for tests.

    >>> store = SqliteStore(Path("jobs.sqlite"), clock=SystemClock(), synchronous="FULL")
    >>> await store.open(boot)
    0
    """

    def __init__(self, path: Path | None, *, clock: Clock, synchronous: Synchronous = "NORMAL") -> None:
        super().__init__(Tally(), name=str(path or "in memory"))
        self._path = path
        self._clock = clock
        self._synchronous: Synchronous = synchronous

    @property
    def is_synced(self) -> bool:
        return self._path is not None and self._synchronous == "FULL"

    async def open(self, boot: str, *, on_change: Callable[[Change], None] | None = None) -> int:
        """As `JobStore.open`; nobody else writes to it, and `on_change` is never called.

        Raises:
            StoreError: another process has it open, a newer flashfw wrote it, or it cannot be read.
        """
        if self._session is not None:
            raise StoreError(f"the job store {self._name} is open already")
        writing, reading, held = await asyncio.to_thread(self._connect)
        ledger = Ledger(writing, self._clock, self._tally)
        transaction = GroupCommit(writing, self._tally, on_undo=ledger.distrust)
        writer = TurnWriter(transaction, waits_for_disk=self.is_synced, name="flashfw-jobs-writer")
        # A database in memory belongs to its one connection.
        reader: Writer = writer if reading is None else Lane(read, name="flashfw-jobs-reader")
        self._session = Session(ledger, Shelf(reading or writing, self._clock), writer, reader, held)
        try:
            return await writer.call(ledger.requeue_orphans, boot)
        except BaseException:
            await self.close()
            raise

    async def recover(self) -> int:
        """As `JobStore.recover`: none, `open` did it."""
        self._opened()
        return 0

    async def serve(self, functions: Collection[str] | None) -> frozenset[str] | None:
        """As `JobStore.serve`: there are no others."""
        self._opened()
        return frozenset()

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
