"""The operations of the PostgreSQL store where they differ from those of a database with one writer."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs import model
from flashfw.cluster.jobs.ledger import Ledger, Transition
from flashfw.cluster.jobs.model import Claimer, End, Job, State
from flashfw.cluster.jobs.postgres_database import Connection
from flashfw.cluster.jobs.postgres_tally import PostgresTally
from flashfw.cluster.jobs.shelf import Shelf
from flashfw.cluster.jobs.statements import Kept, Row, changed, inserted, job_of, load
from flashfw.cluster.jobs.store import Change, StoreError

SQL = load("postgres.sql", value="%s", input_of="jobs.input", no_input="''::BYTEA")

NOTE_BYTES = 7_500
"""Of one notification: PostgreSQL takes less than 8,000."""


class Desk:
    """The connection of the transaction under way, as a ledger sees it. `writes` counts statements that change rows."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.writes = 0

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        assert self.connection is not None
        self.writes += not sql.startswith("SELECT")
        return self.connection.execute(sql.encode(), _storable(parameters), binary=True)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any:
        assert self.connection is not None
        self.writes += 1
        cursor = self.connection.cursor()
        cursor.executemany(sql.encode(), map(_storable, parameters))
        return cursor


def _storable(parameters: Sequence[Any]) -> Sequence[Any]:
    """PostgreSQL's text holds no NUL: what has one is written without, and nothing is found by it."""
    if any(isinstance(value, str) and "\0" in value for value in parameters):
        return [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in parameters]
    return parameters


@dataclass(frozen=True, slots=True)
class News:
    """What the transaction under way changed, for the other servers: the last state of each job."""

    boot: str
    states: dict[str, tuple[str, State]] = field(default_factory=dict)

    def add(self, job: Job) -> None:
        self.states[job.id] = job.function, job.state

    def notes(self) -> Iterator[str]:
        """As payloads of notifications, each as large as may be."""
        items: list[str] = []
        size = 0
        for job_id, (function, state) in self.states.items():
            item = json.dumps([job_id, function, state.value])
            if items and size + len(item) > NOTE_BYTES:
                yield self._note(items)
                items, size = [], 0
            items.append(item)
            size += len(item) + 1
        if items:
            yield self._note(items)

    def _note(self, items: Sequence[str]) -> str:
        return f"[{json.dumps(self.boot)},{','.join(items)}]"


def read_note(payload: str) -> tuple[str, list[Change]]:
    """The boot of the server that notified, and what it changed."""
    boot, *items = json.loads(payload)
    return boot, [Change(job, function, State(state)) for job, function, state in items]


class PostgresLedger(Ledger):
    """The jobs of a schema, for the thread that writes. `space` names the locks of the servers on it,
    `home` the folder of files that this one has.

    Other servers write too: what is remembered of a running job is tried first, and read again when
    it is no longer so. `ends` are terminal records that were kept though their writers were told an
    error: whoever writes one again, hears that it is kept.
    """

    def __init__(self, desk: Desk, clock: Clock, tally: PostgresTally, *, boot: str, space: str, home: str) -> None:
        super().__init__(desk, clock, tally, SQL)
        self.tally = tally
        self.news = News(boot)
        self.ends: dict[tuple[str, int], Job] = {}
        self._boot = boot
        self._space = space
        self._home = home

    def submit(self, job: Job, max_queue: int, claim: Claimer | None) -> Job:
        try:
            return super().submit(job, max_queue, claim)
        except _Known:
            # Another server was first with the idempotency key: the insert has waited for its transaction.
            if job.idempotency_key is not None and (earlier := self._earlier(job, self._clock.now())):
                return earlier
            raise StoreError(f"there is a job {job.id} already") from None

    def finish(self, job_id: str, fence: int, end: End) -> Job | None:
        return super().finish(job_id, fence, end) or self.ends.pop((job_id, fence), None)

    def set_progress(self, job_id: str, fence: int, progress: bytes) -> None:
        super().set_progress(job_id, fence, progress)
        self._tell(job_id)

    def add_chunks(self, job_id: str, fence: int, chunks: Sequence[bytes]) -> bool:
        added = super().add_chunks(job_id, fence, chunks)
        self._tell(job_id)
        return added

    def forget(self, limit: int) -> int:
        rows = self._database.execute(SQL["forgettable"], (self._clock.now(), limit)).fetchall()
        seqs = [seq for seq, *_ in rows]
        if seqs:
            for statement in ("superseded_of_jobs", "deliveries_of_jobs", "readers", "chunks", "jobs"):
                self._database.execute(SQL[f"delete_{statement}"], (seqs,))
        for _, function, state in rows:
            self._tally.leave(function, State(state))
        return len(rows)

    def serve(self, functions: Sequence[str] | None) -> None:
        self._database.execute(SQL["serve"], (self._boot, functions))

    def renew(self) -> list[str]:
        """Count what other servers did too; the functions with more waiting jobs than were known of."""
        return self.tally.renew(self._database.execute(SQL["load_tallies"]))

    def requeue(self, boots: Collection[str]) -> int:
        """Requeue what these servers had claimed, those that are gone, and take over their counts; how many jobs."""
        return sum(self._bury(boot) for boot in boots)

    def withdraw(self, job: Job) -> None:
        """Undo a submission that nobody was told of."""
        row = self._database.execute(SQL["withdraw"], (job.id,)).fetchone()
        if row is not None:
            *_, parked = row
            self._tally.leave(job.function, State.IN_QUEUE)
            self._tally.queue(job, parked, -1)

    def _bury(self, boot: str) -> int:
        if not self._database.execute(SQL["is_gone"], (self._space, boot)).fetchone()[0]:
            return 0
        rows = self._database.execute(SQL["orphans_of"], (boot,)).fetchall()
        self.tally.inherit(self._database.execute(SQL["inherit_tallies"], (boot,)))
        self._database.execute(SQL["delete_server"], (boot,))
        return len(self._change_all(rows, lambda job, _: model.orphaned(job, self._boot), self._clock.now()))

    def _next(self, statement: str, functions: Collection[str], now: float, limit: int) -> list[Row]:
        # Each function's first are locked until the commit, though few are taken: meanwhile others find the next ones.
        rows: list[Row] = []
        for name in functions:
            rows += self._database.execute(self._sql[statement], (name, now, now, self._home, limit))
        return sorted(rows, key=lambda row: (-job_of(row).job.priority, row[-1]))[:limit]

    def _load(self, heads: Sequence[Row]) -> list[Row]:
        return list(heads)  # a whole row costs no more than its place

    def _queued(self, function: str, up_to: int, limit: int) -> list[Row]:
        half = (function, up_to, limit)
        return list(self._database.execute(SQL["queued"], (*half, *half, limit)).fetchall())

    def _unpark(self, now: float) -> None:
        for function, jobs, low, alone in self._database.execute(SQL["unpark"], (now,)).fetchall():
            self._tally.unpark(function, jobs, low, alone)

    def _insert(self, job: Job, now: float) -> int:
        row = self._database.execute(SQL["insert_job"], (*inserted(job, now), job.input)).fetchone()
        if row is None:
            raise _Known
        self.news.add(job)
        return int(row[0])

    def _update(self, kept: Kept, after: Job, now: float) -> bool:
        guard = (kept.job.fence, kept.job.state.value)
        if not self._database.execute(SQL["update_job"], (*changed(after, now, kept.seq), *guard)).rowcount:
            return False
        self.news.add(after)
        return True

    def _change(self, job_id: str, transition: Transition) -> Job | None:
        was_remembered = job_id in self._running
        after = super()._change(job_id, transition)
        if after is None and was_remembered:
            del self._running[job_id]
            after = super()._change(job_id, transition)
        return after

    def _held(self, job_id: str, fence: int) -> Kept | None:
        held = super()._held(job_id, fence)
        if held is not None and self._database.execute(SQL["hold_job"], (held.seq, fence)).fetchone() is None:
            self._running.pop(job_id, None)
            return None
        return held

    def _tell(self, job_id: str) -> None:
        if (kept := self._running.get(job_id)) is not None:
            self.news.add(kept.job)


class PostgresShelf(Shelf):
    """The questions to the PostgreSQL store, for the thread that reads."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        # Reading takes no locks.
        super().__init__(desk, clock, {**SQL, "find_job": SQL["get_job"]})

    def absent(self, boot: str, space: str) -> list[str]:
        """The servers besides `boot` that are gone, as it seems."""
        return [name for (name,) in self._database.execute(SQL["absent"], (boot, space))]

    def served(self) -> dict[str, list[str] | None]:
        """What each server said that it serves."""
        return dict(self._database.execute(SQL["served"]).fetchall())


class _Known(Exception):
    """The insert met a job with the same id or idempotency key."""
