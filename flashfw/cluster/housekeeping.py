"""What a server does each second for all jobs of its store: end those whose time is over or whose function is gone."""

from __future__ import annotations

from collections.abc import Callable, Collection

from flashfw.cluster.clock import sleep
from flashfw.cluster.dispatch.job_events import ended
from flashfw.cluster.dispatch.runs import error_json
from flashfw.cluster.events import Event, internal, store_failed
from flashfw.cluster.explaining.waiting import Absence
from flashfw.cluster.jobs.model import End, Reason, State
from flashfw.cluster.jobs.store import JobStore, StoreError
from flashfw.cluster.site import Site
from flashfw.cluster.watch import Watch

EVERY_S = 1.0
GONE_AFTER_S = 60.0
"""How long a function may be missing before its queued jobs end: long enough for `git checkout` to bring it back."""


class Housekeeper:
    """Lives as long as the cluster. `on_claimable` is called when jobs may have come back to the queue."""

    def __init__(self, site: Site, store: JobStore, watch: Watch, *, on_claimable: Callable[[], None]) -> None:
        self._site = site
        self._store = store
        self._watch = watch
        self._on_claimable = on_claimable
        self._exist: Collection[str] | None = None
        self._elsewhere: Collection[str] | None = ()
        self._missing: dict[str, float] = {}
        self._has_failed = False

    def serve(self, functions: Collection[str] | None) -> None:
        """Which functions there are from now on; with None nobody can tell, and none is gone."""
        self._exist = functions

    def absence(self, function: str) -> Absence:
        """What is known of a function that this server does not serve."""
        now = self._site.clock.monotonic()
        return Absence(
            is_here=self._exist is None or function in self._exist,
            is_elsewhere=None if self._elsewhere is None else function in self._elsewhere,
            ends_in_s=self._missing.get(function, now) + GONE_AFTER_S - now,
        )

    async def run(self) -> None:
        """Look after the jobs until cancelled."""
        while True:
            await sleep(self._site.clock, EVERY_S)
            try:
                await self._expire()
                await self._requeue()
                await self._refuse_gone()
                self._note_success()
            except StoreError as error:
                self._has_failed = True
                self._site.emit(store_failed(error))
            except Exception as error:  # the supervisor goes on, whatever one round met
                self._site.emit(internal("looking after jobs", error))

    def _note_success(self) -> None:
        if self._has_failed:
            self._has_failed = False
            self._site.emit(Event("store_back"))

    async def _expire(self) -> None:
        while expired := await self._store.expire():
            for job in expired:
                self._watch.ring(job.id, job)
                self._site.emit(ended(job))

    async def _requeue(self) -> None:
        """Jobs of servers that are gone, and those whose wait for a retry is over."""
        if recovered := await self._store.recover():
            self._site.emit(Event("recovered", None, {"jobs": recovered}))
        await self._store.unpark()
        self._on_claimable()

    async def _refuse_gone(self) -> None:
        elsewhere = self._elsewhere = await self._store.serve(self._exist)
        if self._exist is None or elsewhere is None:
            self._missing.clear()
            return
        now = self._site.clock.monotonic()
        queued = {count.function: count.jobs for count in await self._store.counts() if count.state is State.IN_QUEUE}
        missing = queued.keys() - {*self._exist, *elsewhere}
        for name in sorted(missing - self._missing.keys()):
            fields = {"function": name, "jobs": queued[name], "in_s": GONE_AFTER_S}
            self._site.emit(Event("function_missing", None, fields))
        self._missing = {name: self._missing.get(name, now) for name in missing}
        for name, since in list(self._missing.items()):
            if now - since >= GONE_AFTER_S:
                await self._refuse(name)

    async def _refuse(self, function: str) -> None:
        message = f"{function} is not served any more: retry the job when the function is back"
        error = error_json("FunctionGone", message)
        jobs = await self._store.refuse_all(function, End(state=State.FAILED, reason=Reason.FUNCTION_GONE, error=error))
        self._site.emit(Event("function_gone", None, {"function": function, "jobs": jobs}))
        await self._watch.look(self._store)
