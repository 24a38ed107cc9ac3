"""A site, a store and a clock around what a test looks at, with workers that do as they are told."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.dispatch.dispatcher import JobDispatcher
from flashfw.cluster.events import Event
from flashfw.cluster.gateway.app import Gateway
from flashfw.cluster.gateway.guard import LoopbackGuard
from flashfw.cluster.gateway.intake import Intake
from flashfw.cluster.jobs.model import Claimer, End, Job, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import JobStore, StoreError
from flashfw.cluster.site import Site
from flashfw.cluster.watch import Watch
from flashfw.manifest import Endpoint, Function, Manifest
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
        self.root = folder
        fields: dict[str, Any] = {
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
        if self.site.devices is not None:
            self.site.devices.clock = self.clock

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

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let everything happen until something holds that needs no time of the clock."""
        with anyio.fail_after(60):
            while not holds():
                await self.settle(1)

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
                endpoint or an_endpoint(),
                root=bench.root,
                site=bench.site,
                store=bench.store,
                watch=bench.watch,
                tasks=tasks,
            )
            tasks.start_soon(bench.dispatcher.run)
            yield bench
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await bench.placement.close()
            await bench.store.close()


class FailingStore(SqliteStore):
    """A store whose disk is full for the operations in `broken`; `calls` are those that were asked for."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(None, clock=clock)
        self.broken: set[str] = set()
        self.calls: list[str] = []

    def _check(self, operation: str) -> None:
        self.calls.append(operation)
        if operation in self.broken:
            raise StoreError("the job store cannot do it: database or disk is full")

    async def submit(self, job: Job, *, max_queue: int, claim: Claimer | None = None) -> Job:
        self._check("submit")
        return await super().submit(job, max_queue=max_queue, claim=claim)

    async def claim(self, functions: Collection[str], by: Claimer, **how: Any) -> list[Job]:
        self._check("claim")
        return await super().claim(functions, by, **how)

    async def finish(self, job_id: str, fence: int, end: End) -> Job | None:
        self._check("finish")
        return await super().finish(job_id, fence, end)

    async def finish_and_claim(self, job_id: str, fence: int, end: End, **claim: Any) -> tuple[Job | None, Job | None]:
        self._check("finish_and_claim")
        return await super().finish_and_claim(job_id, fence, end, **claim)

    async def add_chunks(self, job_id: str, fence: int, chunks: Sequence[bytes]) -> bool:
        self._check("add_chunks")
        return await super().add_chunks(job_id, fence, chunks)

    async def release(self, job_id: str, fence: int) -> Job | None:
        self._check("release")
        return await super().release(job_id, fence)


def failing(bench: JobBench) -> FailingStore:
    assert isinstance(bench.store, FailingStore)
    return bench.store


class Call:
    """One HTTP request to a gateway, as a server would drive it; `answer` runs until it is over."""

    def __init__(self, method: str, path: str, headers: dict[str, str], query: str = "") -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_whole = False
        self.reads = anyio.Event()
        """Whether the reader takes what is sent; a slow one does not at once."""
        self.reads.set()
        self.answer: asyncio.Task[None]
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def send_body(self, body: bytes, *, more: bool = False) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self._incoming.get()

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            assert not self.status, "a second response"
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self.is_whole = not message.get("more_body", False)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a refusal."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found

    @property
    def is_over(self) -> bool:
        return self.answer.done()


class ClusterBench(Bench):
    """A cluster behind its gateway."""

    cluster: Cluster
    gateway: Gateway

    def apply(self, *endpoints: Endpoint, roll: Collection[str] | None = None) -> None:
        manifest = Manifest(project="shop", environment="dev", endpoints=endpoints)
        self.cluster.apply(manifest, root=self.root, roll=None if roll is None else dict.fromkeys(roll))

    async def call(
        self, method: str, path: str, body: bytes | None = None, *, query: str = "", more: bool = False, **headers: str
    ) -> Call:
        """Begin a request and let it go as far as it goes. A body of None is none at all."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named.setdefault("transfer-encoding", "chunked")
        call = Call(method, path, named, query)
        if body or (body is not None and not more):
            call.send_body(body, more=more)
        elif body is None:
            call.send_body(b"")
        call.answer = asyncio.ensure_future(self.gateway(call.scope, call.receive, call.send))
        await self.settle()
        return call

    async def post(self, path: str, value: Any = None, **headers: str) -> Call:
        return await self.call("POST", path, json.dumps(value).encode(), **headers)


@asynccontextmanager
async def clustering(folder: Path, *endpoints: Endpoint, **site: Any) -> AsyncIterator[ClusterBench]:
    """A cluster that serves these endpoints by workers that are ready at once, for as long as the block runs."""
    bench = ClusterBench(folder, **site)
    async with Cluster.running(bench.site, bench.store, grace_s=0.0) as cluster:
        bench.cluster = cluster
        intake = Intake(cluster.watch, bench.clock, bench.store, local_webhooks=bench.site.local_webhooks)
        bench.gateway = Gateway(
            cluster, intake=intake, store=bench.store, guard=LoopbackGuard(), emit=bench.events.append
        )
        bench.apply(*endpoints)
        await bench.settle()
        try:
            yield bench
        finally:
            ending = asyncio.ensure_future(_pass_time(bench.clock))
    ending.cancel()


async def _pass_time(clock: ManualClock) -> None:
    """Let whoever gives something time at the end have had that time."""
    while True:
        clock.advance(STEP_S)
        await asyncio.sleep(0.001)


def breaks(message: str = "no weights here") -> Callable[[ScriptedProcess], None]:
    """What a worker does that cannot start."""
    return lambda process: process.broken(message)


def waits(process: ScriptedProcess) -> None:
    """What a worker does that takes its time to start."""


FAILURE = Failure(reason="startup", type="RuntimeError", message="no weights here")
