"""Who waits for jobs of an endpoint, and is told at once when that is in vain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from anyio.abc import TaskGroup

from flashfw.cluster.dispatch.runs import failed
from flashfw.cluster.events import store_failed
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.jobs.store import JobStore, StoreError
from flashfw.cluster.site import Site
from flashfw.worker.frames import Failure


class Callers:
    """The jobs that somebody waits for. `on_ended` hears of those that were refused."""

    def __init__(self, store: JobStore, *, site: Site, tasks: TaskGroup, on_ended: Callable[[Job], None]) -> None:
        self._store = store
        self._site = site
        self._tasks = tasks
        self._on_ended = on_ended
        self._waiting: dict[str, int] = {}  # several may wait for one job, by its idempotency key

    @contextmanager
    def waiting(self, job_id: str) -> Iterator[None]:
        """Somebody waits for the job while the block runs."""
        self.enter(job_id)
        try:
            yield
        finally:
            self.leave(job_id)

    def enter(self, job_id: str) -> None:
        """Somebody waits for the job from now on."""
        self._waiting[job_id] = self._waiting.get(job_id, 0) + 1

    def leave(self, job_id: str) -> None:
        """Undo `enter`."""
        if self._waiting[job_id] == 1:
            del self._waiting[job_id]
        else:
            self._waiting[job_id] -= 1

    def refuse(self, failure: Failure, functions: Collection[str] | None = None) -> None:
        """End the queued jobs that somebody waits for, or those of these functions alone."""
        for job_id in self._waiting:
            self._tasks.start_soon(self._refuse, job_id, failure, functions)

    async def _refuse(self, job_id: str, failure: Failure, functions: Collection[str] | None) -> None:
        try:
            job = await self._store.get(job_id) if functions is not None else None
            if functions is None or (job is not None and job.function in functions):
                refused = await self._store.refuse(job_id, failed(failure))
                if refused is not None:
                    self._on_ended(refused)
        except StoreError as error:  # it stays in the queue, and its caller gets 202 in time
            self._site.emit(store_failed(error))
