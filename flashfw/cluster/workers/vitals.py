"""Whether ready workers are well: their heartbeats and their memory, and when to look again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs.model import Reason
from flashfw.cluster.workers.memory import resident_bytes
from flashfw.cluster.workers.worker import Worker

TICK_S = 0.5
IDLE_TICK_S = 1.0
"""Where no worker has a call or is starting, and nothing waits."""
FLAG_SILENT_S = 5.0
KILL_SILENT_S = 60.0
ASLEEP_S = 3.0
"""If so much time passed between two looks, it was the server that stood still; it looks far more often."""


@dataclass(frozen=True, slots=True)
class Ill:
    """What is wrong with a worker. It is ended if that is fatal, and gets no further call otherwise."""

    reason: Reason
    why: str
    is_fatal: bool


class Vitals:
    """Looks at the workers of one pool. Lives as long as the pool."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked_at = clock.monotonic()

    def look(self, workers: Iterable[Worker]) -> Iterator[tuple[Worker, Ill]]:
        """Each worker that is not well now, and why.

        A server that was stopped itself (Ctrl-Z, a suspended machine) has heard no beat meanwhile: that time does
        not count.
        """
        now = self._clock.monotonic()
        asleep_s = now - self._looked_at
        self._looked_at = now
        for worker in workers:
            if worker.ready is None or worker.is_deaf:
                continue
            if asleep_s > ASLEEP_S:
                worker.last_beat = min(now, worker.last_beat + asleep_s)
            if ill := _examined(worker, now):
                yield worker, ill


def next_look_s(clock: Clock, workers: Collection[Worker], *, is_urgent: bool) -> float:
    """In how many seconds a pool with these workers is to be looked at again.

    Pools share the moments, so that a server with many of them wakes once for all.
    """
    is_idle = all(worker.ready is not None and not worker.slots_used for worker in workers)
    tick_s = IDLE_TICK_S if is_idle and not is_urgent else TICK_S
    return tick_s - clock.monotonic() % tick_s


def _examined(worker: Worker, now: float) -> Ill | None:
    limit, silent_s = worker.endpoint.memory_bytes, now - worker.last_beat
    if limit is not None and worker.process is not None and (used := resident_bytes(worker.process.pid)) > limit:
        return Ill(Reason.OOM, f"used {_mb(used)} of memory, more than its {_mb(limit)}", is_fatal=True)
    if silent_s > FLAG_SILENT_S:
        return Ill(Reason.WORKER_LOST, f"was silent for {silent_s:.0f} s", is_fatal=silent_s > KILL_SILENT_S)
    return None


def _mb(size: int) -> str:
    return f"{size / 1_000_000:.0f} MB"
