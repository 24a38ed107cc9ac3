"""Jobs by the clock: each tick of a function's cron lines to one job, however many servers share the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from flashfw import manifest
from flashfw.cluster.clock import sleep
from flashfw.cluster.events import Event, internal, store_failed
from flashfw.cluster.jobs.making import Options, new_job
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.jobs.store import JobStore, QueueFull, StoreError, Tick
from flashfw.cluster.schedules.ticks import due, upcoming
from flashfw.cluster.site import Site
from flashfw.manifest import Function, Manifest

PRINCIPAL = "flashfw:schedule"
"""Who asks for these jobs: a name that no caller has, so that nobody else's idempotency key is one of theirs."""

LATE_S = 60.0
"""A tick that is later than this was missed; so a server that starts anew meanwhile skips none."""

LOOK_S = 1.0
"""How long a change of the manifest or of the machine's clock may go unnoticed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One cron line of a function."""

    endpoint: str
    function: Function
    schedule: manifest.Schedule

    @property
    def key(self) -> str:
        """What names it in the store: a line with another time or input is another one, and begins anew."""
        told = json.dumps([self.schedule.cron, self.schedule.tz, self.schedule.input], sort_keys=True)
        return f"{self.function.id} {hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def next(self, after: float) -> float | None:
        """Its first tick later than `after`."""
        return upcoming(self.schedule.cron, self.schedule.tz, after=after)


def lines(served: Manifest) -> Iterator[Line]:
    """Every cron line of the functions that are served."""
    for endpoint in served.endpoints:
        for function in endpoint.functions:
            yield from (Line(endpoint.id, function, schedule) for schedule in function.schedule)


def soonest(served: Manifest, now: float) -> tuple[float, Line] | None:
    """The next tick of all lines, and whose it is."""
    ticks = [(tick, line) for line in lines(served) if (tick := line.next(now)) is not None]
    return min(ticks, key=lambda found: found[0], default=None)


class Schedules:
    """Submits jobs at their ticks. The last tick of each line is in the store, so that a restart neither repeats
    nor forgets one; a clock that is set back repeats none either.

    With `overlap` a job is made at each tick. Without it a tick is skipped while the line's last job has not ended,
    but with `catch_up` it waits for that. Ticks that passed while no server ran are skipped, or with `catch_up` made
    up for: the last 100, oldest first.
    """

    def __init__(
        self,
        site: Site,
        store: JobStore,
        *,
        served: Callable[[], Manifest],
        submit: Callable[[Job], Awaitable[Job]],
    ) -> None:
        self._site = site
        self._store = store
        self._served = served
        self._submit = submit
        self._next: dict[str, float] = {}

    async def run(self) -> None:
        """Submit what is due, until cancelled."""
        while True:
            for line in lines(self._served()):
                if self._site.clock.now() >= self._next.get(line.key, 0.0):
                    await self._try(line)
            wait_s = min(self._next.values(), default=float("inf")) - self._site.clock.now()
            await sleep(self._site.clock, min(LOOK_S, max(wait_s, 0.0)))

    async def _try(self, line: Line) -> None:
        """One look at a line; one that fails is repeated soon."""
        self._next[line.key] = self._site.clock.now() + LOOK_S
        try:
            await self._look(line)
        except StoreError as error:
            self._site.emit(store_failed(error, line.endpoint))
        except Exception as error:  # the supervisor goes on, whatever one line met
            self._site.emit(internal("starting jobs by the clock", error, line.endpoint))

    async def _look(self, line: Line) -> None:
        now = self._site.clock.now()
        last = await self._store.last_tick(line.key)
        if last is None:  # a line counts from when it is first seen
            last = Tick(now, None)
            await self._store.set_tick(line.key, last)
        ticks = due(line.schedule.cron, line.schedule.tz, after=last.at, now=now)
        if not line.schedule.catch_up:
            late = [tick for tick in ticks if tick < now - LATE_S]
            last = await self._skip(line, last, late, "missed: no server ran then")
            ticks = ticks[len(late) :]
        for tick in ticks:
            after = await self._tick(line, last, tick)
            if after is None:
                return
            last = after
        self._next[line.key] = line.next(max(last.at, now)) or float("inf")

    async def _tick(self, line: Line, last: Tick, tick: float) -> Tick | None:
        """The line after one tick, or None if that has to wait."""
        if not line.schedule.overlap and await self._is_busy(last):
            if line.schedule.catch_up:
                return None
            return await self._skip(line, last, [tick], f"job {last.job} has not ended")
        options = Options(idempotency_key=f"{line.key} {tick:.0f}", principal=PRINCIPAL)
        body = b"{}" if line.schedule.input is None else json.dumps(line.schedule.input).encode()
        job = new_job(line.function, line.endpoint, body, self._site.clock.now(), options)
        try:
            kept = await self._submit(job)
        except QueueFull as error:
            return None if line.schedule.catch_up else await self._skip(line, last, [tick], str(error))
        after = Tick(tick, kept.id)
        await self._store.set_tick(line.key, after)
        if kept.id == job.id:  # else another server was first
            self._tell(line, tick, job=kept.id)
        return after

    async def _is_busy(self, last: Tick) -> bool:
        job = None if last.job is None else await self._store.get(last.job)
        return job is not None and not job.state.is_terminal

    async def _skip(self, line: Line, last: Tick, ticks: list[float], why: str) -> Tick:
        if not ticks:
            return last
        after = Tick(ticks[-1], last.job)
        await self._store.set_tick(line.key, after)
        self._tell(line, ticks[-1], skipped=why if len(ticks) == 1 else f"{len(ticks)} ticks, {why}")
        return after

    def _tell(self, line: Line, tick: float, **more: object) -> None:
        fields = {"function": line.function.id, "cron": line.schedule.cron, "tz": line.schedule.tz, "tick": tick}
        self._site.emit(Event("schedule", line.endpoint, {**fields, **more}))
