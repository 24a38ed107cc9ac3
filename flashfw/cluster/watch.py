"""Who waits for a job: readers are told that its record changed, and read what they need from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.jobs.store import JobStore


class Reader(Protocol):
    """Who is told of one job. One who `follows` can go on elsewhere from where it was, and is not waited for."""

    follows: bool

    def ring(self, job: Job | None) -> None:
        """The job changed; with its terminal record, once it has that."""
        ...

    def dismiss(self) -> None:
        """Nobody can wait for the end here any more."""
        ...


class Seat:
    """One reader of one job. `job` is the terminal record once it is known.

    One who `follows` can go on elsewhere from where it was, and is not waited for.
    """

    def __init__(self, clock: Clock, *, follows: bool = False) -> None:
        self.job: Job | None = None
        self.follows = follows
        self.is_dismissed = False
        self._clock = clock
        self._is_rung = False
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self, timeout_s: float) -> bool:
        """Until the job changed since the last wait; False when the time is over first. For one waiter at a time."""
        if not self._is_rung:
            # A bare future: this is on the way of every plain call, and `wait_for` makes a task.
            self._waiter = asyncio.get_running_loop().create_future()
            timer = self._clock.call_later(timeout_s, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        was_rung, self._is_rung = self._is_rung, False
        return was_rung

    async def end(self, timeout_s: float) -> Job | None:
        """The terminal record of the job; None when the time is over first, or the server ends."""
        deadline = self._clock.monotonic() + timeout_s
        while self.job is None and not self.is_dismissed and (left := deadline - self._clock.monotonic()) > 0:
            if not await self.wait(left):
                break
        return self.job

    def dismiss(self) -> None:
        """Nobody can wait for the end here any more."""
        self.is_dismissed = True
        self._wake()

    def ring(self, job: Job | None) -> None:
        self.job = job or self.job
        self._is_rung = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Watch:
    """The seats of all jobs that somebody waits for; a job that nobody watches costs nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seats: dict[str, list[Reader]] = {}
        self._is_dismissed = self._is_ending = False

    @contextmanager
    def seat(self, job_id: str, *, follows: bool = False) -> Iterator[Seat]:
        """A seat for as long as the block runs. Take it before reading the record, so that no change is missed."""
        seat = Seat(self._clock, follows=follows)
        self.sit(job_id, seat)
        try:
            yield seat
        finally:
            self.leave(job_id, seat)

    @property
    def is_dismissed(self) -> bool:
        """Whether nobody can wait here any more."""
        return self._is_dismissed

    def sit(self, job_id: str, reader: Reader) -> None:
        """Have a reader told of a job until it leaves; it may be told something at once."""
        self._seats.setdefault(job_id, []).append(reader)
        if self._is_dismissed or (self._is_ending and reader.follows):
            reader.dismiss()

    def leave(self, job_id: str, reader: Reader) -> None:
        """Undo `sit`."""
        readers = self._seats[job_id]
        readers.remove(reader)
        if not readers:
            del self._seats[job_id]

    def dismiss(self) -> None:
        """The server ends: whoever waits for a job's end is told that it goes on without them."""
        self._is_dismissed = True
        for reader in self._readers():
            reader.dismiss()

    def dismiss_followers(self) -> None:
        """The server begins to end: those who would hold that up, and can go on with the next one."""
        self._is_ending = True
        for reader in self._readers():
            if reader.follows:
                reader.dismiss()

    def watched(self) -> list[str]:
        """The jobs that somebody waits for now."""
        return list(self._seats)

    def is_watched(self, job_id: str) -> bool:
        """Whether anybody waits for the job now."""
        return job_id in self._seats

    async def look(self, store: JobStore) -> None:
        """Many jobs may have ended at once: tell those who wait for one of them.

        Raises:
            StoreError: the store cannot be read.
        """
        for job_id in self.watched():
            job = await store.peek(job_id)
            if job is not None and job.state.is_terminal:
                self.ring(job_id, job)

    def ring(self, job_id: str, ended: Job | None = None) -> None:
        """The job changed; with `ended`, to its terminal record."""
        for reader in tuple(self._seats.get(job_id, ())):  # which may leave when they hear it
            reader.ring(ended)

    def _readers(self) -> list[Reader]:
        return [reader for readers in self._seats.values() for reader in readers]
