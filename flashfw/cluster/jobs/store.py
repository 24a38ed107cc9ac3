"""What every job store promises: the seam between the dispatcher and a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.errors import Exit, FlashfwError

MAX_CHUNK_BYTES = 20_000_000
"""Of one attempt's yielded items together."""

JOURNAL_S = 7 * 24 * 3600.0
"""How long an entry of the journal is kept."""

JOURNAL_ENTRIES = 100_000
"""How many entries of the journal are kept, the latest ones."""


class StoreError(FlashfwError):
    """The store could not keep what it was given (disk full, database gone); nothing was accepted."""

    exit = Exit.TARGET


class TooLarge(StoreError):
    """The job's yielded items would exceed `MAX_CHUNK_BYTES`; what came before is kept."""


class IdempotencyConflict(FlashfwError):
    """The idempotency key was used before with another input."""


class QueueFull(FlashfwError):
    """The function's queue holds `max_queue` jobs already."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One yielded item of a job; `index` counts from 0 within an attempt, `data` is JSON."""

    attempt: int
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs of a function are in a state."""

    function: str
    state: State
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A function's jobs: `queued` and `running` now, the others since the store was made.

    `failed` counts TIMED_OUT jobs too; `retried` counts attempts given to a job anew because its
    worker died or because somebody asked, not those that it got back through no fault of its own.
    """

    queued: int
    running: int
    completed: int
    failed: int
    retried: int


class Pending(NamedTuple):
    """What is IN_QUEUE: `claimable` now, and `parked` (waiting for a retry). A tuple, since each job asks for it.

    `low` (priority below 0) and `alone` (must be its worker's only call) are counted within `claimable`.
    It is true like any tuple: ask for its `total`.
    """

    claimable: int = 0
    parked: int = 0
    low: int = 0
    alone: int = 0

    @property
    def total(self) -> int:
        """All that is IN_QUEUE."""
        return self.claimable + self.parked


@dataclass(frozen=True, slots=True)
class Change:
    """Another server on the same store brought a job of a function to a state.

    `job` is empty where it is not known which one: there is more to claim of the function. Nothing is
    known where `function` is empty too: news may have been missed, of any job.
    """

    job: str
    function: str
    state: State


@dataclass(frozen=True, slots=True)
class Delivery:
    """A terminal record that its webhook has yet to be told: the job as it ended, though it runs anew by now.

    `id` is the same at each try of it; `tries` have failed so far.
    """

    id: str
    job: Job
    tries: int
    created_at: float


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened, for the journal: to a `job`, or to the endpoint. `fields` are what JSON can hold."""

    at: float
    endpoint: str | None
    name: str
    fields: Mapping[str, object] = field(default_factory=dict)
    job: str | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """How far a schedule has come: the last moment that it named, and the last job that it made, if any."""

    at: float
    job: str | None


class JobStore(Protocol):
    """Keeps jobs. Every method returns after its change is committed, or raises and changed nothing.

    Transitions are those of `flashfw.cluster.jobs.model`, nothing else; a method that answers None
    met a job that does not allow the transition. Times come from the clock given to the store; when that
    is set back, what waits for a time (a retry, a delivery) is moved with it.
    A call whose task is cancelled may still be done: shield claims, or their jobs are nobody's.
    """

    @property
    def is_synced(self) -> bool:
        """Whether a power cut takes nothing of what was answered; what lies beside the store has to hold as much."""
        ...

    async def open(self, boot: str, *, on_change: Callable[[Change], None] | None = None) -> int:
        """Open for the server process `boot`; requeue what servers that are gone had claimed; return how many.

        `on_change` hears, on the loop, what other servers on the same store do. SQLite has no others.
        """
        ...

    async def recover(self) -> int:
        """Requeue what servers that have gone since had claimed; how many. To be called about every second."""
        ...

    async def serve(self, functions: Collection[str] | None) -> frozenset[str] | None:
        """Say which functions this server has, and hear which the others on the same store have.

        None where that cannot be told: then any function may be there. To be called about every second.
        """
        ...

    async def close(self) -> None:
        """Commit what is under way and close."""
        ...

    def submit(self, job: Job, *, max_queue: int, claim: Claimer | None = None) -> Awaitable[Job]:
        """Keep a new job; with `claim`, claim it in the same transaction. The earlier job if the
        idempotency key (per function and principal) is known.

        Raises:
            IdempotencyConflict: same key, other input digest.
            QueueFull: `max_queue` jobs of the function wait already (a job that is claimed at once never waits).
            StoreError: it cannot be kept.
        """
        ...

    async def claim(self, functions: Collection[str], by: Claimer, *, limit: int = 1, alone: bool = True) -> list[Job]:
        """Up to `limit` jobs of these functions, highest priority first, then by order of submission.

        A job that must be alone comes by itself. With `alone=False`, for a worker that has other
        calls, such jobs are passed over.
        """
        ...

    def finish(self, job_id: str, fence: int, end: End) -> Awaitable[Job | None]:
        """Write the terminal record of the attempt that holds `fence`."""
        ...

    async def finish_and_claim(
        self, job_id: str, fence: int, end: End, *, claim: Claimer, functions: Collection[str], alone: bool = True
    ) -> tuple[Job | None, Job | None]:
        """`finish`, and in the same transaction `claim` one job: the ended job and the next, each or None."""
        ...

    async def reschedule(self, job_id: str, fence: int, error: bytes, at: float) -> Job | None:
        """Its handler ended in `error` and is to be tried again: back in the queue, to be claimed from `at`.

        The attempt counts, and `error` is kept until the next one's end.
        """
        ...

    async def release(self, job_id: str, fence: int) -> Job | None:
        """Put a claimed job back through no fault of its own."""
        ...

    async def lose(
        self, job_id: str, fence: int, error: bytes, *, reason: Reason = Reason.WORKER_LOST, alone: bool = False
    ) -> Job | None:
        """Its worker died: requeue it, or at the third death quarantine it with `reason` (worker_lost or oom).

        With `alone` it was not the worker's only call, and will be.
        """
        ...

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel a queued or running job."""
        ...

    async def refuse(self, job_id: str, end: End) -> Job | None:
        """End a job that is queued: no worker can be had for it, and its caller is told so."""
        ...

    async def retry(self, job_id: str) -> Job | None:
        """Put a FAILED, CANCELLED or TIMED_OUT job back in the queue, where it keeps its place by submission."""
        ...

    async def purge(self, function: str) -> int:
        """Cancel the queued jobs of a function, those that wait for a retry too; how many.

        Many are done in several transactions, others' work between them.
        """
        ...

    async def refuse_all(self, function: str, end: End) -> int:
        """End the queued jobs of a function, as `purge` does but with `end`: its function is gone; how many."""
        ...

    async def unpark(self) -> float | None:
        """Make jobs claimable whose wait for a retry is over; when the next one's is (epoch seconds), or None."""
        ...

    async def get(self, job_id: str) -> Job | None:
        """The job, or None if it is unknown or its result has expired."""
        ...

    async def peek(self, job_id: str) -> Job | None:
        """As `get`, with `b""` as its input: for whoever looks again and again at a job whose input may be large."""
        ...

    async def set_progress(self, job_id: str, fence: int, progress: bytes) -> None:
        """Keep the latest progress of a running job; ignored with an older fence."""
        ...

    async def add_chunks(self, job_id: str, fence: int, chunks: Sequence[bytes]) -> bool:
        """Append yielded items, numbered on; False with an older fence.

        Raises:
            TooLarge: together with those before, they exceed `MAX_CHUNK_BYTES`; none of these is kept.
        """
        ...

    async def chunks(self, job_id: str, *, after: int = -1, up_to_bytes: int = MAX_CHUNK_BYTES) -> list[Chunk]:
        """Items of the latest attempt with an index above `after`: the first of them, and so many more as fit."""
        ...

    async def expire(self, *, limit: int = 1000) -> list[Job]:
        """End queued jobs past their ttl and forget results past theirs; the jobs that it ended.

        A job with a delivery that is still to be tried is not forgotten. The journal is cut to what is
        kept of it (`JOURNAL_S`, `JOURNAL_ENTRIES`).

        It ends at most `limit`: a caller that gets so many calls again.
        """
        ...

    async def counts(self) -> list[Count]:
        """Jobs per function and state, zeros left out."""
        ...

    def health(self, function: str) -> Health:
        """Counts of a function, from memory."""
        ...

    def pending(self, functions: Collection[str]) -> Pending:
        """How many jobs of these functions are IN_QUEUE; from memory.

        A job whose wait is over counts as parked until `unpark` or a claim comes by. Where several
        servers share the store, it is as of the last news.
        """
        ...

    async def oldest_waiting(self, functions: Collection[str]) -> float | None:
        """When the oldest claimable job of these functions was submitted, or None.

        Those of low priority (below 0) aside: they wait for workers that others need.
        """
        ...

    async def list(
        self,
        *,
        function: str | None = None,
        state: State | None = None,
        dead: bool = False,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Jobs, newest first: with `dead` only dead letters, with `before` only those submitted before that job.

        They come without what may be large: `b""` as input, None as output and progress. There are none where the
        job `before` is unknown.
        """
        ...

    async def find(self, part: str, *, limit: int) -> Sequence[str]:
        """Ids of jobs that hold this text, the latest ids first; one whose result has expired may be among them."""
        ...

    async def deliveries(self, *, limit: int, lease_s: float) -> Sequence[Delivery]:
        """Deliveries that are due, longest due first, hidden from everyone for `lease_s`.

        There is one for each terminal record of a job with a webhook, written in the same transaction.
        """
        ...

    async def delivered(self, delivery_id: str) -> None:
        """The webhook was told: it is due no more."""
        ...

    async def undelivered(self, delivery_id: str, *, error: str, retry_at: float | None) -> None:
        """A try failed; the next is due at `retry_at`, or none is and it stays with its error until its job goes."""
        ...

    async def record(self, entries: Sequence[Entry]) -> None:
        """Write entries into the journal, in this order."""
        ...

    async def story(self, job_id: str) -> Sequence[Entry]:
        """The entries of a job in the order of writing."""
        ...

    async def happened(self, endpoint: str, *, since: float, until: float, limit: int = 1000) -> Sequence[Entry]:
        """The first `limit` entries of an endpoint that are no job's, from `since` through `until`, oldest first."""
        ...

    async def last_tick(self, key: str) -> Tick | None:
        """The tick that was last set for a schedule, or None."""
        ...

    async def set_tick(self, key: str, tick: Tick) -> None:
        """Remember how far a schedule has come."""
        ...

    async def read_position(self, job_id: str) -> tuple[int, int]:
        """The claim (fence) and index of the last item that a reader of `/v2 .../stream` has got; (0, -1) at first."""
        ...

    async def set_read_position(self, job_id: str, fence: int, index: int) -> None:
        """Remember how far that reader has come. It only moves on: an older claim or a lower index changes nothing."""
        ...
