"""Who waits for a job: readers are told that its record changed, and read what they need from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from flashfw.cluster.jobs.model import Job


class Seat:
    """One reader of one job. `job` is the terminal record once it is known."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self._rung = asyncio.Event()

    async def wait(self, timeout_s: float | None) -> bool:
        """Until the job changed since the last wait; False when the time is over first."""
        try:
            await asyncio.wait_for(self._rung.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        self._rung.clear()
        return True

    def ring(self, job: Job | None) -> None:
        self.job = job or self.job
        self._rung.set()


class Watch:
    """The seats of all jobs that somebody waits for; a job that nobody watches costs nothing."""

    def __init__(self) -> None:
        self._seats: dict[str, list[Seat]] = {}

    @contextmanager
    def seat(self, job_id: str) -> Iterator[Seat]:
        """A seat for as long as the block runs. Take it before reading the record, so that no change is missed."""
        seat = Seat()
        self._seats.setdefault(job_id, []).append(seat)
        try:
            yield seat
        finally:
            seats = self._seats[job_id]
            seats.remove(seat)
            if not seats:
                del self._seats[job_id]

    def watched(self) -> list[str]:
        """The jobs that somebody waits for now."""
        return list(self._seats)

    def ring(self, job_id: str, ended: Job | None = None) -> None:
        """The job changed; with `ended`, to its terminal record."""
        for seat in self._seats.get(job_id, ()):
            seat.ring(ended)
