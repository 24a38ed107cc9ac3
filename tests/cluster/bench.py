"""A site, a store and a clock around what a test looks at, with workers that do as they are told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.dispatcher import JobDispatcher
from flashfw.cluster.events import Event
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import JobStore
from flashfw.cluster.site import Site
from flashfw.cluster.watch import Watch
from flashfw.manifest import Endpoint, Function
from flashfw.worker.frames import Failure
from tests.cluster.jobs.conformance import ROOM, a_job
from tests.cluster.scripted import ReadyEnvironments, ScriptedPlacement, ScriptedProcess

STEP_S = 0.5
_numbers = itertools.count()


def a_function(name: str, kind: str = "job", **changes: Any) -> Function:
    fields: dict[str, Any] = {
        "id": name if kind == "job" else f"{name}::get",
        "kind": kind,
        "module": "m",
        "attribute": "handler",
        "file": "handler.py",
        "line": 1,
        "route": f"/{name}",
        "method": "" if kind == "job" else "GET",
    }
    return Function(**{**fields, **changes})


def an_endpoint(name: str = "gpu", kind: str = "job", **changes: Any) -> Endpoint:
    """An endpoint with one function of its name, at most one worker, and a fingerprint of its own."""
    fields: dict[str, Any] = {
        "id": name,
        "kind": kind,
        "directory": f"endpoints/{name}",
        "functions": (a_function(name, kind),),
        "workers_max": 1,
        "python": "3.11",
        "fingerprint": f"f{next(_numbers)}",
    }
    return Endpoint(**{**fields, **changes})


class Bench:
    """What surrounds the parts of a cluster. `advance` lets time pass in steps as small as the pool's ticks."""

    def __init__(self, folder: Path, store: Callable[[ManualClock], JobStore] | None = None, **site: Any) -> None:
        self.clock = ManualClock()
        self.placement = ScriptedPlacement()
        self.environments = ReadyEnvironments()
        self.events: list[Event] = []
        self.store: JobStore = store(self.clock) if store else SqliteStore(None, clock=self.clock)
        self.watch = Watch(self.clock)
        fields: dict[str, Any] = {
            "root": folder,
            "state": folder / ".flashfw",
            "project": "shop",
            "environment": "dev",
            "boot": "boot-1",
            "placement": self.placement,
            "environments": self.environments,
            "overlay": folder,
            "variables": {},
            "clock": self.clock,
            "emit": self.events.append,
        }
        self.site = Site(**{**fields, **site})

    @property
    def workers(self) -> list[ScriptedProcess]:
        """The workers that live, the oldest first."""
        return self.placement.alive

    @property
    def worker(self) -> ScriptedProcess:
        (worker,) = self.workers
        return worker

    def named(self, name: str) -> list[dict[str, Any]]:
        """The fields of the events of that name."""
        return [event.fields for event in self.events if event.name == name]

    def states(self) -> list[str]:
        """What was told of workers."""
        return [fields["state"] for fields in self.named("worker")]

    async def settle(self, rounds: int = 8) -> None:
        """Let everything happen that needs no time: the loop turns, and the store does what it was asked."""
        for _ in range(rounds):
            for _ in range(4):
                await asyncio.sleep(0)
            await self.store.get("-")

    async def advance(self, seconds: float, *, beats: bool = True) -> None:
        """Let time pass; workers that live beat meanwhile, if they do."""
        left = seconds
        while left > 0:
            self.clock.advance(min(STEP_S, left))
            left -= STEP_S
            for worker in self.workers if beats else ():
                worker.beat()
            await self.settle(2)
        await self.settle()


class JobBench(Bench):
    """A dispatcher of jobs, running."""

    dispatcher: JobDispatcher

    async def submit(self, function: str = "gpu", **changes: Any) -> Job:
        job = await self.dispatcher.submit(self.a_job(function, **changes))
        await self.settle()
        return job

    def a_job(self, function: str = "gpu", **changes: Any) -> Job:
        """A job with all the time there is, if nothing else is said."""
        patient = {"timeout_s": 1e6, "expires_at": self.clock.now() + 1e6, "result_ttl_s": 1e6}
        return a_job(self.clock, function, **{**patient, **changes})

    async def queue(self, function: str = "gpu", **changes: Any) -> Job:
        """A job that the dispatcher does not hear of."""
        return await self.store.submit(self.a_job(function, **changes), max_queue=ROOM)

    async def job(self, job: Job) -> Job:
        found = await self.store.get(job.id)
        assert found is not None
        return found

    async def state(self, job: Job) -> State:
        return (await self.job(job)).state

    @asynccontextmanager
    async def called(self, function: str = "gpu", **changes: Any) -> AsyncIterator[asyncio.Task[Job | None]]:
        """A job whose caller waits for it, up to 90 s."""
        job = self.a_job(function, **changes)
        with self.watch.seat(job.id) as seat, self.dispatcher.called(job.id):
            await self.dispatcher.submit(job)
            waiting = asyncio.ensure_future(seat.end(90.0))
            await self.settle()
            try:
                yield waiting
            finally:
                waiting.cancel()


@asynccontextmanager
async def dispatching(folder: Path, endpoint: Endpoint | None = None, **site: Any) -> AsyncIterator[JobBench]:
    """A dispatcher over workers that are ready at once, for as long as the block runs."""
    bench = JobBench(folder, **site)
    await bench.store.open(bench.site.boot)
    try:
        async with anyio.create_task_group() as tasks:
            bench.dispatcher = JobDispatcher(
                endpoint or an_endpoint(), site=bench.site, store=bench.store, watch=bench.watch, tasks=tasks
            )
            tasks.start_soon(bench.dispatcher.run)
            yield bench
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await bench.placement.close()
            await bench.store.close()


def breaks(message: str = "no weights here") -> Callable[[ScriptedProcess], None]:
    """What a worker does that cannot start."""
    return lambda process: process.broken(message)


def waits(process: ScriptedProcess) -> None:
    """What a worker does that takes its time to start."""


FAILURE = Failure(reason="startup", type="RuntimeError", message="no weights here")
