"""The job store in a PostgreSQL database, which several servers may share."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs import postgres_database as database
from flashfw.cluster.jobs.lane import Lane
from flashfw.cluster.jobs.lanes import LaneStore, Session
from flashfw.cluster.jobs.model import State
from flashfw.cluster.jobs.postgres_commits import Commits, Reads
from flashfw.cluster.jobs.postgres_database import Line
from flashfw.cluster.jobs.postgres_ledger import Desk, PostgresLedger, PostgresShelf
from flashfw.cluster.jobs.postgres_listener import Listener
from flashfw.cluster.jobs.postgres_tally import PostgresTally
from flashfw.cluster.jobs.store import Change, StoreError

GRACE_S = 5.0
"""How long a server may be without its lock: a connection that broke is made anew in less."""

UNSURE_S = 10.0
"""How long the callers of a transaction wait whose COMMIT had no answer, until the database can be asked for it."""


ANYTHING = Change("", "", State.IN_QUEUE)
"""What is told when news may have been missed."""


@dataclass(frozen=True, slots=True)
class _Wires:
    """What was connected; `is_settled` once the database runs for so long that a server without its lock is gone."""

    writer: Line
    reader: Line
    listener: Listener
    is_settled: bool
    held: ExitStack


class PostgresStore(LaneStore):
    """A `JobStore` for any number of processes on one schema, from `open` to `close` on the loop that opened it.

    It holds three connections: one writes, in groups of calls that share a transaction; one reads; one
    listens to the other servers. While the database cannot be reached every call raises `StoreError` at
    once; it is connected to again by itself. `grace_s` is how long a server may be silent before its jobs
    are given to others; `home` names its folder of files, and of the jobs that came with files it claims those there.

    >>> store = PostgresStore("postgresql://flashfw:secret@db/jobs", clock=SystemClock(), schema="shop_dev")
    >>> await store.open(boot)
    0
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        schema: str = "flashfw",
        home: str = "",
        grace_s: float = GRACE_S,
        unsure_s: float = UNSURE_S,
    ) -> None:
        """Raises `UsageError` if the URL cannot be understood."""
        self._address = database.address(url, schema)
        self._counts = PostgresTally()
        super().__init__(self._counts, name=str(self._address))
        self._clock = clock
        self._grace_s = grace_s
        self._unsure_s = unsure_s
        # A name of any schema, short enough for a channel.
        self._space = f"flashfw_{hashlib.sha256(schema.encode()).hexdigest()[:24]}"
        self._home = home
        self._boot = ""
        self._on_change: Callable[[Change], None] = _ignore
        self._suspects: dict[str, float] = {}
        self._heard: list[Change] = []
        self._renewing: asyncio.Task[None] | None = None

    @property
    def is_synced(self) -> bool:
        """As `JobStore.is_synced`: by its own settings PostgreSQL waits for the disk at each commit."""
        return True

    async def open(self, boot: str, *, on_change: Callable[[Change], None] | None = None) -> int:
        """As `JobStore.open`. Servers whose end is not certain yet are left to `recover`.

        Raises:
            StoreError: the database cannot be reached or refuses, or a newer flashfw made the schema.
        """
        if self._session is not None:
            raise StoreError(f"the job store {self._name} is open already")
        self._boot = boot
        self._on_change = on_change or _ignore
        wires = await asyncio.to_thread(self._connect, asyncio.get_running_loop())
        self._session = self._lanes(wires)
        try:
            await self._write(PostgresLedger.renew)
            absent = await self._absent()
            return await self._write(PostgresLedger.requeue, absent) if absent and wires.is_settled else 0
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        await super().close()

    async def recover(self) -> int:
        """As `JobStore.recover`: of servers that were without their lock for the whole grace."""
        now = self._clock.monotonic()
        try:
            absent = await self._absent()
        except StoreError:
            self._suspects.clear()
            raise
        self._suspects = {boot: self._suspects.get(boot, now) for boot in absent}
        gone = [boot for boot, since in self._suspects.items() if now - since >= self._grace_s]
        return await self._write(PostgresLedger.requeue, gone) if gone else 0

    async def serve(self, functions: Collection[str] | None) -> frozenset[str] | None:
        """As `JobStore.serve`. A server that is gone counts until its jobs are taken over."""
        mine = None if functions is None else sorted(functions)
        served = await self._read(PostgresShelf.served)
        if self._boot not in served or served.pop(self._boot) != mine:
            await self._write(PostgresLedger.serve, mine)
        known = [names for names in served.values() if names is not None]
        return frozenset().union(*known) if len(known) == len(served) else None

    def _absent(self) -> Awaitable[list[str]]:
        return self._read(PostgresShelf.absent, self._boot, self._space)

    def _connect(self, loop: asyncio.AbstractEventLoop) -> _Wires:
        def on_news(changes: Sequence[Change], was_lost: bool) -> None:
            try:
                loop.call_soon_threadsafe(self._hear, changes, was_lost)
            except RuntimeError:
                pass  # the loop is closed, and nobody listens

        with ExitStack() as held:
            writer, reader = self._line("writer", held), self._line("reader", held)
            connection = writer.connection()
            database.migrate(connection, self._address)
            listener = Listener(self._line("listener", held), boot=self._boot, space=self._space, on_news=on_news)
            held.callback(listener.close)
            listener.start()
            row = connection.execute("SELECT extract(epoch FROM now() - pg_postmaster_start_time())").fetchone()
            is_settled = row is not None and float(row[0]) >= self._grace_s
            return _Wires(writer, reader, listener, is_settled, held.pop_all())

    def _line(self, role: str, held: ExitStack) -> Line:
        line = Line(self._address, self._clock, name=f"flashfw {role} {self._boot}"[:63])
        held.callback(line.close)
        return line

    def _lanes(self, wires: _Wires) -> Session:
        desk, reading_desk = Desk(), Desk()
        ledger = PostgresLedger(desk, self._clock, self._counts, boot=self._boot, space=self._space, home=self._home)
        commits = Commits(
            wires.writer,
            desk,
            ledger,
            self._clock,
            channel=self._space,
            listener=wires.listener,
            unsure_s=self._unsure_s,
        )
        return Session(
            ledger,
            PostgresShelf(reading_desk, self._clock),
            Lane(commits, name="flashfw-jobs-writer"),
            Lane(Reads(wires.reader, reading_desk), name="flashfw-jobs-reader"),
            wires.held,
        )

    def _hear(self, changes: Sequence[Change], was_lost: bool) -> None:
        """On the loop: what others did, or that it is time to look."""
        if was_lost:
            self._suspects.clear()  # they may have lost their connections as this one did
            self._heard.append(ANYTHING)
        self._heard += changes
        if self._renewing is None and self._session is not None:
            self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        """Count anew before anybody is woken, so that who is woken finds what there is."""
        try:
            goes_on = True
            while goes_on:
                heard, self._heard = self._heard, []
                try:
                    grown = await self._write(PostgresLedger.renew)
                except StoreError:
                    grown = []
                for change in (*heard, *(Change("", function, State.IN_QUEUE) for function in grown)):
                    self._on_change(change)
                goes_on = bool(self._heard)
        finally:
            self._renewing = None


def _ignore(change: Change) -> None:
    """Nobody asked."""
