"""What every job store promises: the seam between the dispatcher and a database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.errors import Exit, FlashfwError

MAX_CHUNK_BYTES = 20_000_000
"""Of one attempt's yielded items together."""


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


class JobStore(Protocol):
    """Keeps jobs. Every method returns after its change is committed, or raises and changed nothing.

    Transitions are those of `flashfw.cluster.jobs.model`, nothing else; a method that answers None
    met a job that does not allow the transition. Times come from the clock given to the store.
    A call whose task is cancelled may still be done: shield claims, or their jobs are nobody's.
    """

    async def open(self, boot: str) -> int:
        """Open for the server process `boot`; requeue what other boots had claimed; return how many."""
        ...

    async def close(self) -> None:
        """Commit what is under way and close."""
        ...

    async def submit(self, job: Job, *, max_queue: int, claim: Claimer | None = None) -> Job:
        """Keep a new job; with `claim`, claim it in the same transaction. The earlier job if the
        idempotency key (per function and principal) is known.

        Raises:
            IdempotencyConflict: same key, other input digest.
            QueueFull: `max_queue` jobs of the function wait already (a job that is claimed at once never waits).
            StoreError: it cannot be kept.
        """
        ...

    async def claim(self, functions: Collection[str], by: Claimer, *, limit: int = 1) -> list[Job]:
        """Up to `limit` jobs of these functions, highest priority first, then by order of submission."""
        ...

    async def finish(self, job_id: str, fence: int, end: End) -> Job | None:
        """Write the terminal record of the attempt that holds `fence`."""
        ...

    async def finish_and_claim(
        self, job_id: str, fence: int, end: End, *, claim: Claimer, functions: Collection[str]
    ) -> tuple[Job | None, Job | None]:
        """`finish`, and in the same transaction `claim` one job: the ended job and the next, each or None."""
        ...

    async def release(self, job_id: str, fence: int) -> Job | None:
        """Put a claimed job back through no fault of its own."""
        ...

    async def lose(self, job_id: str, fence: int, error: bytes, *, reason: Reason = Reason.WORKER_LOST) -> Job | None:
        """Its worker died: requeue it, or at the third death quarantine it with `reason` (worker_lost or oom)."""
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

    async def get(self, job_id: str) -> Job | None:
        """The job, or None if it is unknown or its result has expired."""
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

        It ends at most `limit`: a caller that gets so many calls again.
        """
        ...

    async def counts(self) -> list[Count]:
        """Jobs per function and state, zeros left out."""
        ...

    def health(self, function: str) -> Health:
        """Counts of a function, from memory."""
        ...

    def pending(self, functions: Collection[str]) -> int:
        """How many jobs of these functions are IN_QUEUE, those that wait for a retry too; from memory."""
        ...

    async def oldest_waiting(self, functions: Collection[str]) -> float | None:
        """When the oldest claimable job of these functions was submitted, or None."""
        ...

    async def list(self, *, function: str | None = None, state: State | None = None, limit: int = 100) -> list[Job]:
        """Jobs, newest first."""
        ...
