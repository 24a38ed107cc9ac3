"""The operations of the SQLite store, each as statements inside a transaction that its caller holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs import model
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.statements import SQL, Row, changed, inserted, job_of
from flashfw.cluster.jobs.store import MAX_CHUNK_BYTES, IdempotencyConflict, QueueFull, TooLarge
from flashfw.cluster.jobs.tally import Tally

Transition = Callable[[Job, float], "Job | None"]
"""What the model makes of a job at a time, or None if it does not allow it."""


class Ledger:
    """The jobs in a database, for the thread that writes. Every method is one of `JobStore`.

    A transition is always: load the row, ask the model, write the row. Running jobs are remembered,
    since each is written by nobody else and is soon loaded again; `distrust` forgets them.
    """

    def __init__(self, database: sqlite3.Connection, clock: Clock, tally: Tally) -> None:
        self._database = database
        self._clock = clock
        self._tally = tally
        self._running: dict[str, tuple[int, Job]] = {}

    def distrust(self) -> None:
        """The transaction was undone: what is remembered may not be what is kept."""
        self._running.clear()

    def submit(self, job: Job, max_queue: int, claim: Claimer | None) -> Job:
        now = self._clock.now()
        if job.idempotency_key is not None and (earlier := self._earlier(job, now)):
            return earlier
        kept = model.claimed(job, claim, now) if claim else None
        if kept is None:
            self._refuse_beyond(job.function, max_queue)
            kept = job
        seq = self._database.execute(SQL["insert_job"], inserted(kept, now)).lastrowid
        assert seq is not None
        self._database.execute(SQL["insert_input"], (seq, kept.input))
        self._tally.enter(kept.function, kept.state)
        self._remember(seq, kept)
        return kept

    def claim(self, functions: Collection[str], by: Claimer, limit: int) -> list[Job]:
        now = self._clock.now()
        self._database.execute(SQL["unpark"], (now,))
        heads: list[Row] = []
        for name in functions:
            if self._tally.waiting(name):
                heads += self._database.execute(SQL["next_claimable"], (name, now, limit))
        chosen = sorted(heads)[:limit]
        rows = [self._database.execute(SQL["load_job"], (seq,)).fetchone() for _, seq in chosen]
        return self._change_all(rows, lambda job, now: model.claimed(job, by, now), now)

    def finish(self, job_id: str, fence: int, end: End) -> Job | None:
        return self._change(job_id, lambda job, now: model.finished(job, fence, end, now))

    def finish_and_claim(
        self, job_id: str, fence: int, end: End, claim: Claimer, functions: Collection[str]
    ) -> tuple[Job | None, Job | None]:
        ended = self.finish(job_id, fence, end)
        claimed = self.claim(functions, claim, 1)
        return ended, claimed[0] if claimed else None

    def release(self, job_id: str, fence: int) -> Job | None:
        return self._change(job_id, lambda job, _: model.released(job, fence))

    def lose(self, job_id: str, fence: int, error: bytes, reason: Reason) -> Job | None:
        after = self._change(job_id, lambda job, now: model.lost(job, fence, error, now, reason=reason))
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
        rows = self._database.execute(SQL["orphans"], (boot,)).fetchall()
        return len(self._change_all(rows, lambda job, _: model.orphaned(job, boot), self._clock.now()))

    def last_seq(self) -> int:
        return int(self._database.execute(SQL["last_seq"]).fetchone()[0])

    def purge(self, function: str, up_to: int, limit: int) -> int:
        rows = self._database.execute(SQL["queued"], (function, function, up_to, limit)).fetchall()
        return len(self._change_all(rows, model.cancelled, self._clock.now()))

    def expire(self, limit: int) -> list[Job]:
        now = self._clock.now()
        rows = self._database.execute(SQL["expiring"], (now, limit)).fetchall()
        return self._change_all(rows, model.expired, now)

    def forget(self, limit: int) -> int:
        """Delete up to `limit` jobs whose results have expired; how many."""
        rows = self._database.execute(SQL["forgettable"], (self._clock.now(), limit)).fetchall()
        for seq, function, state in rows:
            self._delete(seq, function, State(state))
        return len(rows)

    def set_progress(self, job_id: str, fence: int, progress: bytes) -> None:
        if (held := self._held(job_id, fence)) is not None:
            seq, _ = held
            # No transition, and every transition clears it: what is remembered of the job may go without.
            self._database.execute(SQL["set_progress"], (progress, seq))

    def add_chunks(self, job_id: str, fence: int, chunks: Sequence[bytes]) -> bool:
        if (held := self._held(job_id, fence)) is None:
            return False
        seq, job = held
        place, total = self._database.execute(SQL["last_chunk"], (seq, fence)).fetchone() or (-1, 0)
        if total + sum(map(len, chunks)) > MAX_CHUNK_BYTES:
            limit = MAX_CHUNK_BYTES // 1_000_000
            raise TooLarge(f"job {job_id} yielded more than {limit} MB", hint="return a File, or write to a volume")
        if place < 0:
            self._database.execute(SQL["delete_older_chunks"], (seq, fence))
        for index, data in enumerate(chunks, start=place + 1):
            total += len(data)
            self._database.execute(SQL["insert_chunk"], (seq, fence, job.attempt, index, data, total))
        return True

    def oldest_waiting(self, functions: Collection[str]) -> float | None:
        now = self._clock.now()
        self._database.execute(SQL["unpark"], (now,))
        rows = (self._database.execute(SQL["oldest_waiting"], (name, now)).fetchone() for name in functions)
        return min((row[0] for row in rows if row), default=None)

    def _earlier(self, job: Job, now: float) -> Job | None:
        key = (job.function, job.principal, job.idempotency_key)
        row = self._database.execute(SQL["find_idempotent"], key).fetchone()
        if row is None:
            return None
        seq, forget_at, digest = row
        _, earlier = job_of(self._database.execute(SQL["load_job"], (seq,)).fetchone())
        if forget_at is not None and forget_at <= now:
            self._delete(seq, earlier.function, earlier.state)
            return None
        if digest != job.input_digest:
            raise IdempotencyConflict(
                f"idempotency key {job.idempotency_key!r} of {job.function} came before with another input",
                hint="use a new key for a new input",
            )
        return earlier

    def _refuse_beyond(self, function: str, max_queue: int) -> None:
        if self._tally.waiting(function) >= max_queue:
            raise QueueFull(f"{function} has {max_queue} jobs waiting already", hint="try again later")

    def _find(self, job_id: str, now: float) -> tuple[int, Job] | None:
        if (running := self._running.get(job_id)) is not None:
            return running
        row = self._database.execute(SQL["find_job"], (job_id, now)).fetchone()
        return None if row is None else job_of(row)

    def _held(self, job_id: str, fence: int) -> tuple[int, Job] | None:
        found = self._find(job_id, self._clock.now())
        return found if found is not None and model.holds(found[1], fence) else None

    def _change(self, job_id: str, transition: Transition) -> Job | None:
        now = self._clock.now()
        if (found := self._find(job_id, now)) is None:
            return None
        seq, job = found
        after = transition(job, now)
        return None if after is None else self._write(seq, job, after, now)

    def _change_all(self, rows: Sequence[Row], transition: Transition, now: float) -> list[Job]:
        found = [(seq, job, transition(job, now)) for seq, job in map(job_of, rows)]
        return [self._write(seq, job, after, now) for seq, job, after in found if after is not None]

    def _write(self, seq: int, before: Job, after: Job, now: float) -> Job:
        self._database.execute(SQL["update_job"], changed(after, now, seq))
        self._tally.move(before.function, before.state, after.state)
        self._remember(seq, after)
        return after

    def _remember(self, seq: int, job: Job) -> None:
        if job.state is State.IN_PROGRESS:
            self._running[job.id] = seq, job
        else:
            self._running.pop(job.id, None)

    def _delete(self, seq: int, function: str, state: State) -> None:
        for statement in ("delete_job", "delete_input", "delete_chunks"):
            self._database.execute(SQL[statement], (seq,))
        self._tally.leave(function, state)
