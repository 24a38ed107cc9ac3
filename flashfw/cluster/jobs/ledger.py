"""The operations of a store, each as statements inside a transaction that its caller holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs import model
from flashfw.cluster.jobs.chronicle import Chronicle
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.outbox import Outbox
from flashfw.cluster.jobs.statements import SQL, Database, Kept, Row, changed, ended, inserted, job_of
from flashfw.cluster.jobs.store import (
    MAX_CHUNK_BYTES,
    Delivery,
    Entry,
    IdempotencyConflict,
    QueueFull,
    Tick,
    TooLarge,
)
from flashfw.cluster.jobs.tally import Tally

SET_BACK_S = 1.0
"""A clock that is so far behind what it once said was set back; less is what clocks do all day."""

Transition = Callable[[Job, float], "Job | None"]
"""What the model makes of a job at a time, or None if it does not allow it."""


class Ledger:
    """The jobs in a database, for the thread that writes. Every method is one of `JobStore`.

    A transition is always: load the row, ask the model, write the row. Running jobs are remembered,
    since each is written by nobody else and is soon loaded again; `distrust` forgets them.
    """

    def __init__(self, database: Database, clock: Clock, tally: Tally, sql: Mapping[str, str] = SQL) -> None:
        self._database = database
        self._sql = sql
        self._clock = clock
        self._tally = tally
        self._outbox = Outbox(database, sql)
        self._chronicle = Chronicle(database, sql)
        self._running: dict[str, Kept] = {}
        self._latest, self._later = clock.now(), -math.inf

    def distrust(self) -> None:
        """The transaction was undone: what is remembered may not be what is kept."""
        self._running.clear()
        self._latest, self._later = max(self._latest, self._later), -math.inf

    def submit(self, job: Job, max_queue: int, claim: Claimer | None) -> Job:
        now = self._now()
        if job.idempotency_key is not None and (earlier := self._earlier(job, now)):
            return earlier
        new = model.claimed(job, claim, now) if claim else None
        if new is None:
            self._refuse_beyond(job.function, max_queue)
            new = job
        seq = self._insert(new, now)
        self._tally.enter(new.function, new.state)
        if new.state is State.IN_QUEUE:
            self._tally.queue(new, new.available_at > now, 1)
        self._remember(seq, new)
        return new

    def claim(self, functions: Collection[str], by: Claimer, limit: int, alone: bool) -> list[Job]:
        now = self._now()
        waiting = [name for name in functions if self._tally.waiting(name)]
        self._unpark_of(waiting, now)
        choose = self._choose_apart if any(map(self._tally.alone, waiting)) else self._choose
        rows = choose(waiting, now, limit, alone)
        return self._change_all(rows, lambda job, now: model.claimed(job, by, now), now)

    def finish(self, job_id: str, fence: int, end: End) -> Job | None:
        return self._change(job_id, lambda job, now: model.finished(job, fence, end, now))

    def finish_and_claim(
        self, job_id: str, fence: int, end: End, claim: Claimer, functions: Collection[str], alone: bool
    ) -> tuple[Job | None, Job | None]:
        ended = self.finish(job_id, fence, end)
        claimed = self.claim(functions, claim, 1, alone)
        return ended, claimed[0] if claimed else None

    def reschedule(self, job_id: str, fence: int, error: bytes, at: float) -> Job | None:
        after = self._change(job_id, lambda job, _: model.rescheduled(job, fence, error, at))
        if after is not None:
            self._tally.retry(after.function)
        return after

    def release(self, job_id: str, fence: int) -> Job | None:
        return self._change(job_id, lambda job, _: model.released(job, fence))

    def lose(self, job_id: str, fence: int, error: bytes, reason: Reason, alone: bool) -> Job | None:
        after = self._change(job_id, lambda job, now: model.lost(job, fence, error, now, reason=reason, alone=alone))
        if after is not None and not after.state.is_terminal:
            self._tally.retry(after.function)
        return after

    def cancel(self, job_id: str) -> Job | None:
        return self._change(job_id, model.cancelled)

    def refuse(self, job_id: str, end: End) -> Job | None:
        return self._change(job_id, lambda job, now: model.refused(job, end, now))

    def retry(self, job_id: str) -> Job | None:
        after = self._change(job_id, model.retried)
        if after is not None:
            self._tally.retry(after.function)
        return after

    def requeue_orphans(self, boot: str) -> int:
        rows = self._database.execute(self._sql["orphans"], (boot,)).fetchall()
        return len(self._change_all(rows, lambda job, _: model.orphaned(job, boot), self._now()))

    def last_seq(self) -> int:
        return int(self._database.execute(self._sql["last_seq"]).fetchone()[0])

    def purge(self, function: str, up_to: int, limit: int) -> int:
        return len(self._change_all(self._queued(function, up_to, limit), model.cancelled, self._now()))

    def refuse_all(self, function: str, end: End, up_to: int, limit: int) -> int:
        rows = self._queued(function, up_to, limit)
        return len(self._change_all(rows, lambda job, now: model.refused(job, end, now), self._now()))

    def unpark(self) -> float | None:
        self._unpark(self._now())
        due: float | None = self._database.execute(self._sql["next_due"]).fetchone()[0]
        return due

    def expire(self, limit: int) -> list[Job]:
        now = self._now()
        rows = self._database.execute(self._sql["expiring"], (now, limit)).fetchall()
        return self._change_all(rows, model.expired, now)

    def forget(self, limit: int) -> int:
        """Delete up to `limit` jobs whose results have expired; how many."""
        rows = self._database.execute(self._sql["forgettable"], (self._now(), limit)).fetchall()
        for seq, function, state, webhook in rows:
            self._delete(seq, function, State(state))
            if webhook is not None:
                self._outbox.forget(seq)
        return len(rows)

    def cut_journal(self, limit: int) -> int:
        return self._chronicle.cut(self._now(), limit)

    def set_progress(self, job_id: str, fence: int, progress: bytes) -> None:
        if (held := self._held(job_id, fence)) is not None:
            # No transition, and every transition clears it: what is remembered of the job may go without.
            self._database.execute(self._sql["set_progress"], (progress, held.seq))

    def add_chunks(self, job_id: str, fence: int, chunks: Sequence[bytes]) -> bool:
        if (held := self._held(job_id, fence)) is None:
            return False
        if not chunks:
            return True
        seq, job, _ = held
        place, total = self._database.execute(self._sql["last_chunk"], (seq, fence)).fetchone() or (-1, 0)
        if total + sum(map(len, chunks)) > MAX_CHUNK_BYTES:
            limit = MAX_CHUNK_BYTES // 1_000_000
            raise TooLarge(f"job {job_id} yielded more than {limit} MB", hint="return a File, or write to a volume")
        if place < 0:
            self._database.execute(self._sql["delete_older_chunks"], (seq, fence))
        for index, data in enumerate(chunks, start=place + 1):
            total += len(data)
            self._database.execute(self._sql["insert_chunk"], (seq, fence, job.attempt, index, data, total))
        return True

    def oldest_waiting(self, functions: Collection[str]) -> float | None:
        now = self._now()
        self._unpark_of(functions, now)
        rows = (self._database.execute(self._sql["oldest_waiting"], (name, now)).fetchone() for name in functions)
        return min((row[0] for row in rows if row), default=None)

    def deliveries(self, limit: int, lease_s: float) -> list[Delivery]:
        return self._outbox.due(self._now(), limit, lease_s)

    def delivered(self, delivery_id: str) -> None:
        self._outbox.delivered(delivery_id)

    def undelivered(self, delivery_id: str, error: str, retry_at: float | None) -> None:
        self._outbox.undelivered(delivery_id, error, retry_at)

    def record(self, entries: Sequence[Entry]) -> None:
        self._chronicle.record(entries)

    def set_tick(self, key: str, tick: Tick) -> None:
        self._chronicle.set_tick(key, tick)

    def set_read_position(self, job_id: str, fence: int, index: int) -> None:
        self._database.execute(self._sql["set_read_position"], (fence, index, job_id))

    def _now(self) -> float:
        now = self._clock.now()
        if now > self._latest:
            self._latest = now
        elif now < self._latest - SET_BACK_S:
            self._set_back(now)
        return now

    def _set_back(self, now: float) -> None:
        """The clock was set back, and what waits for a time waits no longer for that than it would have."""
        by, self._later = self._latest - now, self._latest
        for statement in ("set_back_jobs", "set_back_deliveries"):
            self._database.execute(self._sql[statement], (by, now))
        self._latest = now

    def _choose(self, functions: Collection[str], now: float, limit: int, alone: bool) -> list[Row]:
        """The next claimable jobs, where none has to be alone."""
        return self._load(self._next("next_claimable", functions, now, limit))

    def _choose_apart(self, functions: Collection[str], now: float, limit: int, alone: bool) -> list[Row]:
        """Where some have to: the first by itself if it is such a one and may be had, else others."""
        if alone:
            rows = self._load(self._next("next_claimable", functions, now, limit))
            if not any(job_of(row).job.alone for row in rows):
                return rows
            if job_of(rows[0]).job.alone:
                return rows[:1]
        return self._load(self._next("next_beside", functions, now, limit))

    def _next(self, statement: str, functions: Collection[str], now: float, limit: int) -> list[Row]:
        heads: list[Row] = []
        for name in functions:
            heads += self._database.execute(self._sql[statement], (name, now, now, limit))
        return sorted(heads)[:limit]

    def _load(self, heads: Sequence[Row]) -> list[Row]:
        return [self._database.execute(self._sql["load_job"], (seq,)).fetchone() for _, seq in heads]

    def _queued(self, function: str, up_to: int, limit: int) -> list[Row]:
        return self._database.execute(self._sql["queued"], (function, function, up_to, limit)).fetchall()

    def _unpark_of(self, functions: Collection[str], now: float) -> None:
        if any(map(self._tally.parked, functions)):
            self._unpark(now)

    def _unpark(self, now: float) -> None:
        due = self._database.execute(self._sql["due"], (now,)).fetchall()
        if due:
            self._database.execute(self._sql["unpark"], (now,))
            for function, jobs, low, alone in due:
                self._tally.unpark(function, jobs, low, alone)

    def _earlier(self, job: Job, now: float) -> Job | None:
        key = (job.function, job.principal, job.idempotency_key)
        row = self._database.execute(self._sql["find_idempotent"], key).fetchone()
        if row is None:
            return None
        seq, forget_at, digest = row
        if forget_at is not None and forget_at <= now:
            self._database.execute(self._sql["free_key"], (seq,))  # the next sweep deletes it, if nothing keeps it
            return None
        if digest != job.input_digest:
            raise IdempotencyConflict(
                f"idempotency key {job.idempotency_key!r} of {job.function} came before with another input",
                hint="use a new key for a new input",
            )
        return job_of(self._database.execute(self._sql["load_job"], (seq,)).fetchone()).job

    def _refuse_beyond(self, function: str, max_queue: int) -> None:
        if self._tally.waiting(function) >= max_queue:
            raise QueueFull(f"{function} has {max_queue} jobs waiting already", hint="try again later")

    def _insert(self, job: Job, now: float) -> int:
        seq = self._database.execute(self._sql["insert_job"], inserted(job, now)).lastrowid
        assert seq is not None
        self._database.execute(self._sql["insert_input"], (seq, job.input))
        return seq

    def _update(self, kept: Kept, after: Job, now: float) -> bool:
        """Write the changed row; whether it still was what it is taken for."""
        # What ran has only these changed by `model.finished`; a worker's death is counted, too.
        if kept.job.state is State.IN_PROGRESS and after.state.is_terminal and after.deaths == kept.job.deaths:
            self._database.execute(self._sql["end_job"], ended(after, kept.seq))
        else:
            self._database.execute(self._sql["update_job"], changed(after, now, kept.seq))
        return True

    def _find(self, job_id: str, now: float) -> Kept | None:
        if (running := self._running.get(job_id)) is not None:
            return running
        row = self._database.execute(self._sql["find_job"], (job_id, now)).fetchone()
        return None if row is None else job_of(row)

    def _held(self, job_id: str, fence: int) -> Kept | None:
        found = self._find(job_id, self._now())
        return found if found is not None and model.holds(found.job, fence) else None

    def _change(self, job_id: str, transition: Transition) -> Job | None:
        now = self._now()
        if (found := self._find(job_id, now)) is None:
            return None
        after = transition(found.job, now)
        return None if after is None else self._write(found, after, now)

    def _change_all(self, rows: Sequence[Row], transition: Transition, now: float) -> list[Job]:
        found = [(kept, transition(kept.job, now)) for kept in map(job_of, rows)]
        written = (self._write(kept, after, now) for kept, after in found if after is not None)
        return [job for job in written if job is not None]

    def _write(self, kept: Kept, after: Job, now: float) -> Job | None:
        seq, before, parked = kept
        if after.webhook is not None and before.state.is_terminal:
            self._outbox.supersede(seq)
        if not self._update(kept, after, now):
            return None
        if after.webhook is not None and after.state.is_terminal:
            self._outbox.enter(seq, now)
        self._tally.move(before.function, before.state, after.state)
        if before.state is State.IN_QUEUE:
            self._tally.queue(before, parked, -1)
        elif after.state is State.IN_QUEUE:
            self._tally.queue(after, after.available_at > now, 1)
        self._remember(seq, after)
        return after

    def _remember(self, seq: int, job: Job) -> None:
        if job.state is State.IN_PROGRESS:
            self._running[job.id] = Kept(seq, job)
        else:
            self._running.pop(job.id, None)

    def _delete(self, seq: int, function: str, state: State) -> None:
        for statement in ("delete_job", "delete_input"):
            self._database.execute(self._sql[statement], (seq,))
        if self._database.execute(self._sql["delete_chunks"], (seq,)).rowcount:
            self._database.execute(self._sql["delete_reader"], (seq,))
        self._tally.leave(function, state)
