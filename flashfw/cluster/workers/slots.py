"""The free slots of an endpoint's workers: who gets the next call, and who is kept for one that must be alone."""

from __future__ import annotations

from flashfw.cluster.clock import Clock
from flashfw.cluster.workers.worker import Worker


class Slots:
    """Hands out the slots of the workers in a list that its pool keeps. Lives as long as the pool."""

    def __init__(self, workers: list[Worker], clock: Clock) -> None:
        self._workers = workers
        self._clock = clock
        self._emptying: Worker | None = None

    def take(self, function: str | None = None) -> Worker | None:
        """A worker with a free slot, which is reserved for the caller; or None. With `function`, one that has it.

        Of the newest release the one with the fewest calls, of these the oldest, so that spare ones grow idle.
        """
        best: Worker | None = None
        least = 0
        for worker in self._workers:  # by hand: each call asks, of as many workers as there are
            used = worker.slots_used
            if best is not None and (worker.generation, -used) <= (best.generation, -least):
                continue
            if worker.takes_calls and (function is None or function in worker.functions):
                best, least = worker, used
        if best is not None:
            best.reserved += 1
        return best

    def take_whole(self) -> Worker | None:
        """A worker without any call, kept from others until `share`, `give_back` or the end of its call.

        If there is none, one of them takes nothing new until it is empty, so that what asks is not for ever
        passed by others.
        """
        serving = [worker for worker in self._workers if worker.serves]
        empty = [worker for worker in serving if not worker.slots_used]
        if empty:
            worker = min(empty, key=_by_release_and_calls)
            self.fill_up()
            worker.is_lone = True
            worker.reserved += 1
            return worker
        if serving and not any(worker.is_lone for worker in serving):
            self.fill_up()
            self._emptying = min(serving, key=_by_release_and_calls)
            self._emptying.is_lone = True
        return None

    def fill_up(self) -> None:
        """Nobody waits for an empty worker any more: the one that takes nothing until it is may take calls again."""
        if self._emptying is not None:
            self._emptying.is_lone = False
            self._emptying = None

    def share(self, worker: Worker) -> None:
        """What came for a worker that was taken whole does not mind others beside it."""
        worker.is_lone = False

    def give_back(self, worker: Worker) -> None:
        """Undo `take`; tells nobody, since the caller found nothing to do for the slot."""
        worker.reserved -= 1
        if not worker.slots_used:
            worker.is_lone = False
            worker.idle_since = self._clock.monotonic()


def _by_release_and_calls(worker: Worker) -> tuple[int, int]:
    return -worker.generation, worker.slots_used
