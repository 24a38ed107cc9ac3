"""What is served changes and ends: endpoints that go, come back, change; shutdown in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.events import Event
from flashfw.cluster.jobs.database import Synchronous
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.worker.frames import Kind
from tests.cluster.bench import ROOM, ClusterBench, a_function, an_endpoint, breaks, clustering, waits
from tests.cluster.jobs.conformance import a_job
from tests.cluster.scripted import ScriptedPlacement

pytestmark = pytest.mark.anyio


async def accept(bench: ClusterBench, path: str = "/gpu") -> Job:
    call = await bench.post(path, {}, prefer="respond-async")
    assert call.status == 202, call.body
    job = await bench.store.get(call.headers["flashfw-job"])
    assert job is not None
    return job


async def state(bench: ClusterBench, job: Job) -> State:
    found = await bench.store.get(job.id)
    assert found is not None
    return found.state


async def test_a_queue_outlives_its_endpoint_and_is_done_when_it_is_back(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(drain_timeout_s=5.0)) as bench:
        running, queued = await accept(bench), await accept(bench)
        bench.apply()
        await bench.advance(1.0)
        bench.apply(an_endpoint())  # while the old workers still drain
        await bench.settle()
        assert await state(bench, queued) is State.IN_PROGRESS
        bench.workers[-1].result()
        await bench.advance(5.0)

        assert await state(bench, queued) is State.COMPLETED
        assert await state(bench, running) is State.IN_PROGRESS  # put back by the old, taken by the new at once
        assert len(bench.workers) == 1


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
async def test_files_are_as_durable_as_their_jobs(tmp_path: Path, synchronous: Synchronous) -> None:
    def store(clock: ManualClock) -> SqliteStore:
        return SqliteStore(tmp_path / "jobs.sqlite", clock=clock, synchronous=synchronous)

    async with clustering(tmp_path, an_endpoint(), store=store) as bench:
        site = bench.cluster.site
        start = site.start_message(an_endpoint(), {}, "w1", root=tmp_path, describe=False)

        assert start["synced"] is bench.cluster.job_files.is_synced is (synchronous == "FULL")


async def test_a_function_that_moves_to_another_endpoint_takes_its_jobs_along(tmp_path: Path) -> None:
    upscale = a_function("gpu/upscale")
    whole = an_endpoint("gpu", functions=(a_function("gpu"), upscale), drain_timeout_s=2.0)
    async with clustering(tmp_path, whole) as bench:
        job = await accept(bench, "/gpu/upscale")
        bench.apply(an_endpoint("gpu"), an_endpoint("gpu/upscale", functions=(upscale,)))
        await bench.advance(4.0)

        worker = next(worker for worker in bench.workers if worker.calls)
        assert worker.spec.endpoint == "gpu/upscale"
        assert worker.calls[1].meta["id"] == job.id


async def test_only_what_changed_is_rolled(tmp_path: Path) -> None:
    same, changed = an_endpoint("same", workers_min=1), an_endpoint("changed", workers_min=1)
    async with clustering(tmp_path, same, changed) as bench:
        await bench.advance(0.5)
        before = {worker.spec.endpoint: worker for worker in bench.workers}
        bench.apply(same, an_endpoint("changed", workers_min=1))
        await bench.advance(1.0)

        after = {worker.spec.endpoint: worker for worker in bench.workers}
        assert after["same"] is before["same"]
        assert after["changed"] is not before["changed"]

        bench.apply(same, an_endpoint("changed", workers_min=1), roll=["same"])
        await bench.advance(1.0)
        rolled = {worker.spec.endpoint: worker for worker in bench.workers}
        assert rolled["same"] is not before["same"]
        assert rolled["changed"] is after["changed"]


async def test_an_endpoint_that_goes_while_its_environment_is_made_leaves_nothing(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.environments.is_slow = True
        job = await accept(bench)
        bench.apply()
        await bench.settle()
        bench.environments.finish()
        await bench.advance(1.0)

        assert [worker for worker in bench.workers if not worker.spec.worker.startswith("d-")] == []
        assert await state(bench, job) is State.IN_QUEUE


async def test_expired_jobs_are_told_and_their_callers_answered(tmp_path: Path) -> None:
    function = a_function("gpu", ttl_s=20.0)
    async with clustering(tmp_path, an_endpoint(functions=(function,))) as bench:
        bench.placement.on_start = waits
        call = await bench.post("/gpu", {})
        await bench.advance(22.0)

        assert (call.status, call.error["reason"]) == (504, "expired")
        assert [fields["reason"] for fields in bench.named("job")] == ["expired"]


async def test_a_server_that_cannot_write_descriptions_serves(tmp_path: Path) -> None:
    (tmp_path / ".flashfw").write_text("in the way of the folder")
    async with clustering(tmp_path, an_endpoint()) as bench:
        await bench.advance(1.0)
        job = await accept(bench)

        assert await state(bench, job) is State.IN_PROGRESS
        assert bench.named("internal") == []


async def test_a_description_that_fails_is_told_and_stops_nothing(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), variables=None) as bench:
        await bench.settle()

        assert any(fields["where"] == "describing" for fields in bench.named("internal"))
        assert (await bench.call("GET", "/_flashfw/status")).status == 200


async def test_a_worker_that_does_not_start_shows_in_health_and_status(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        bench.placement.on_start = breaks()
        await accept(bench)
        await bench.advance(5.0)

        health = await bench.call("GET", "/v2/gpu/health")
        status = await bench.call("GET", "/_flashfw/status")
        assert b'"unhealthy": 1' in health.body
        assert b"no weights here" in status.body


class Order:
    """What happened at the end, in its order, by wrapping a placement and a store that are otherwise themselves."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def store(self, clock: Any) -> SqliteStore:
        order = self

        class Store(SqliteStore):
            async def release(self, job_id: str, fence: int) -> Job | None:
                order.seen.append("released")
                return await super().release(job_id, fence)

            async def close(self) -> None:
                order.seen.append("store closed")
                await super().close()

        return Store(None, clock=clock)

    def placement(self) -> ScriptedPlacement:
        order = self

        class Placement(ScriptedPlacement):
            async def close(self) -> None:
                order.seen.append(f"placement closed over {len(self.alive)}")
                await super().close()

        return Placement()


async def test_a_server_that_stops_puts_back_what_runs_then_ends_workers_and_closes_the_store_last(
    tmp_path: Path,
) -> None:
    order = Order()
    placement = order.placement()
    async with clustering(tmp_path, an_endpoint(), store=order.store, placement=placement) as bench:
        bench.placement = placement
        await accept(bench)

    assert order.seen == ["released", "placement closed over 0", "store closed"]


async def test_a_server_that_stops_ends_the_workers_of_endpoints_that_are_going_too(tmp_path: Path) -> None:
    order = Order()
    placement = order.placement()
    slow = an_endpoint(drain_timeout_s=1000.0)
    async with clustering(tmp_path, slow, store=order.store, placement=placement) as bench:
        bench.placement = placement
        await accept(bench)
        bench.apply()
        await bench.settle()
        assert len(bench.workers) == 1

    assert order.seen == ["released", "placement closed over 0", "store closed"]


class Meanwhile(SqliteStore):
    """A store in which something else is asked for while a claim is under way."""

    meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = None
    asked: asyncio.Future[object] | None = None

    async def claim(self, *args: Any, **how: Any) -> list[Job]:
        if self.meanwhile is not None and self.asked is None:
            self.asked = asyncio.ensure_future(self.meanwhile())  # begins once the claim has been asked for
        return await super().claim(*args, **how)


async def test_one_that_is_cancelled_while_it_is_claimed_is_told_to_stop(tmp_path: Path) -> None:
    def store(clock: ManualClock) -> Meanwhile:
        return Meanwhile(None, clock=clock)

    async with clustering(tmp_path, an_endpoint(workers_min=1), store=store) as bench:
        await bench.advance(1.0)
        assert isinstance(bench.store, Meanwhile)
        job = await bench.store.submit(a_job(bench.clock, "gpu"), max_queue=ROOM)
        bench.store.meanwhile = lambda: bench.cluster.cancel(job)
        await bench.advance(2.0)  # the housekeeper tells that there is something to claim

        assert bench.store.asked is not None
        assert bench.worker.said(Kind.CALL), "the claim came first"
        assert await state(bench, job) is State.CANCELLED
        assert bench.worker.calls == {}


async def test_jobs_that_were_there_are_begun_at_once(tmp_path: Path) -> None:
    async with clustering(tmp_path) as bench:
        job = a_job(bench.clock, "gpu")
        await bench.store.submit(job, max_queue=ROOM)
        bench.apply(an_endpoint())
        await bench.settle()

        assert await state(bench, job) is State.IN_PROGRESS


async def test_idle_workers_are_held_while_their_tree_is_broken(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(idle_timeout_s=5.0)) as bench:
        await accept(bench)
        bench.workers[-1].result()
        await bench.settle()
        bench.cluster.hold(["gpu"])
        await bench.advance(10.0)
        assert len(bench.workers) == 1
        bench.cluster.hold([])
        await bench.advance(1.0)
        assert bench.workers == []


async def test_nothing_is_told_twice(tmp_path: Path) -> None:
    """Every event of workers has what its table promises: readers take these fields for granted."""
    async with clustering(tmp_path, an_endpoint()) as bench:
        await accept(bench)
        bench.workers[-1].die(1)
        await bench.advance(2.0)

        events: list[Event] = [event for event in bench.events if event.name == "worker"]
        assert all({"worker", "state", "why"} <= event.fields.keys() for event in events)
        gone = [event.fields["worker"] for event in events if event.fields["state"] == "GONE"]
        assert len(gone) == len(set(gone))
