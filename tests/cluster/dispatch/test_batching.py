"""Jobs of a function with `batch` go to a worker together: when, how many, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flashfw.cluster.jobs.model import Job, Reason, State
from flashfw.manifest import Batch, Endpoint, Retries, Scaler
from flashfw.worker.frames import Frame, Kind
from tests.cluster.bench import FailingStore, JobBench, a_function, an_endpoint, dispatching, failing, waits
from tests.cluster.scripted import ScriptedProcess

pytestmark = pytest.mark.anyio


def batching(max_size: int = 4, max_wait_s: float = 2.0, *, retries: int = 0, **changes: Any) -> Endpoint:
    batch = Batch(max_size=max_size, max_wait_s=max_wait_s)
    function = a_function("gpu", batch=batch, retries=Retries(max=retries, backoff_s=1.0))
    return an_endpoint(**{"functions": (function,), "workers_min": 1, **changes})


def batches(worker: ScriptedProcess) -> list[list[str]]:
    """The jobs of each batch that a worker was handed, in order; each CALL says how many there are."""
    found: dict[str, list[Frame]] = {}
    for frame in worker.said(Kind.CALL):
        found.setdefault(frame.meta["batch"], []).append(frame)
    assert all(frame.meta["of"] == len(frames) for frames in found.values() for frame in frames)
    return [[frame.meta["id"] for frame in frames] for frames in found.values()]


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def slots(bench: JobBench) -> list[int]:
    return [worker.slots_used for worker in bench.dispatcher.pool.workers]


def finish_all(worker: ScriptedProcess) -> None:
    for number in sorted(worker.calls):
        worker.result(number)


async def test_a_full_batch_goes_at_once_in_one_slot(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching()) as bench:
        await bench.advance(0.5)
        jobs = [await bench.submit() for _ in range(4)]

        assert batches(bench.worker) == [ids(jobs)]
        assert slots(bench) == [1]
        finish_all(bench.worker)
        await bench.settle()
        assert [await bench.state(job) for job in jobs] == [State.COMPLETED] * 4
        assert slots(bench) == [0]


async def test_a_batch_that_does_not_fill_goes_when_its_first_has_waited(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching()) as bench:
        await bench.advance(0.5)
        first = await bench.submit()
        await bench.advance(1.5)
        second = await bench.submit()
        assert batches(bench.worker) == []
        await bench.advance(0.5)

        assert batches(bench.worker) == [[first.id, second.id]]


async def test_a_short_wait_is_kept_to_the_moment(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(max_wait_s=0.2)) as bench:
        await bench.advance(0.5)
        job = await bench.submit()
        bench.clock.advance(0.19)
        await bench.settle()
        assert batches(bench.worker) == []
        bench.clock.advance(0.01)
        await bench.settle()

        assert batches(bench.worker) == [[job.id]]


async def test_what_a_full_batch_leaves_waits_for_others_anew(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(2, concurrency=2)) as bench:
        await bench.advance(0.5)
        first = await bench.submit()
        await bench.advance(1.5)
        second, third = await bench.queue(), await bench.queue()
        bench.dispatcher.wake()
        await bench.advance(1.5)
        assert batches(bench.worker) == [[first.id, second.id]]
        await bench.advance(0.6)

        assert batches(bench.worker) == [[first.id, second.id], [third.id]]


async def test_without_a_wait_what_is_there_goes(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(max_wait_s=0.0)) as bench:
        await bench.advance(0.5)
        job = await bench.submit()

        assert batches(bench.worker) == [[job.id]]


async def test_what_waited_for_a_busy_worker_goes_with_it_at_once(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching()) as bench:
        await bench.advance(0.5)
        jobs = [await bench.submit() for _ in range(10)]
        assert batches(bench.worker) == [ids(jobs[:4])]
        await bench.advance(3.0)
        finish_all(bench.worker)
        await bench.settle()
        finish_all(bench.worker)
        await bench.settle()

        assert batches(bench.worker) == [ids(jobs[:4]), ids(jobs[4:8]), ids(jobs[8:])]


async def test_a_result_that_claims_the_next_takes_its_batch_along(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(2, 0.0), store=FailingStore) as bench:
        await bench.advance(0.5)
        first = [await bench.submit(), await bench.submit(), await bench.submit(), await bench.submit()]
        failing(bench).calls.clear()
        finish_all(bench.worker)
        await bench.settle()

        assert "finish_and_claim" in failing(bench).calls
        assert [len(batch) for batch in batches(bench.worker)] == [1, 2]
        assert await bench.state(first[3]) is State.IN_QUEUE


async def test_when_the_others_of_a_batch_cannot_be_claimed_the_first_goes_by_itself(tmp_path: Path) -> None:
    class Forgetful(FailingStore):
        async def claim(self, functions: Any, by: Any, **how: Any) -> list[Job]:
            if how["limit"] > 1:
                self._check("claim others")
            return await super().claim(functions, by, **how)

    async with dispatching(tmp_path, batching(max_wait_s=0.0), store=Forgetful) as bench:
        await bench.advance(0.5)
        failing(bench).broken = {"claim others"}
        job = await bench.submit()

        assert batches(bench.worker) == [[job.id]]


async def test_jobs_of_two_functions_are_never_in_one_batch(tmp_path: Path) -> None:
    batch = Batch(max_size=4, max_wait_s=2.0)
    functions = (a_function("gpu", batch=batch), a_function("gpu/b", batch=batch), a_function("gpu/single"))
    async with dispatching(tmp_path, an_endpoint(functions=functions, concurrency=3, workers_min=1)) as bench:
        await bench.advance(0.5)
        one = [await bench.submit("gpu") for _ in range(2)]
        other = [await bench.submit("gpu/b") for _ in range(2)]
        single = await bench.submit("gpu/single")
        assert [frame.meta["id"] for frame in bench.worker.said(Kind.CALL)] == [single.id], "it waits for nobody"
        assert "batch" not in bench.worker.said(Kind.CALL)[0].meta
        await bench.advance(2.0)

        calls = bench.worker.said(Kind.CALL)[1:]
        assert {frame.meta["batch"] for frame in calls[:2]}.isdisjoint(frame.meta["batch"] for frame in calls[2:])
        assert sorted(frame.meta["id"] for frame in calls) == sorted(ids(one) + ids(other))
        assert slots(bench) == [3]


async def test_one_of_a_batch_ends_by_itself(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(retries=1), chance=lambda: 1.0) as bench:
        await bench.advance(0.5)
        done, wrong, again, cancelled = [await bench.submit() for _ in range(4)]
        bench.worker.result(1)
        bench.worker.failure(2, reason="validation")
        bench.worker.failure(3)
        await bench.dispatcher.cancel(cancelled.id)
        await bench.settle()

        assert [await bench.state(job) for job in (done, wrong)] == [State.COMPLETED, State.FAILED]
        assert await bench.state(again) is State.IN_QUEUE
        assert await bench.state(cancelled) is State.CANCELLED
        assert slots(bench) == [0]
        await bench.advance(1.0)
        assert await bench.state(again) is State.IN_QUEUE
        await bench.advance(1.0)  # 2 s after its submission
        assert batches(bench.worker)[1:] == [[again.id]]


async def test_a_slot_is_free_when_the_last_of_a_batch_has_ended(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(2, 0.0)) as bench:
        await bench.advance(0.5)
        jobs = [await bench.queue() for _ in range(4)]
        bench.dispatcher.wake()
        await bench.settle()
        bench.worker.result(1)
        await bench.settle()
        assert slots(bench) == [1]
        assert await bench.state(jobs[2]) is State.IN_QUEUE
        bench.worker.result(2)
        await bench.settle()

        assert batches(bench.worker) == [ids(jobs[:2]), ids(jobs[2:])]


async def test_each_of_a_batch_whose_worker_died_is_tried_alone(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(3)) as bench:
        await bench.advance(0.5)
        jobs = [await bench.submit() for _ in range(3)]
        bench.worker.die()
        for _ in jobs:
            await bench.advance(1.0)
            finish_all(bench.worker)
        await bench.settle()

        assert batches(bench.worker) == [[job.id] for job in jobs]
        assert [(await bench.job(job)).deaths for job in jobs] == [1, 1, 1]


async def test_nobody_joins_the_batch_of_one_that_is_tried_alone(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(3)) as bench:
        await bench.advance(0.5)
        jobs = [await bench.submit() for _ in range(3)]
        bench.worker.die()
        await bench.submit()
        await bench.advance(1.0)

        assert batches(bench.worker) == [[jobs[0].id]]


async def test_one_of_a_batch_that_takes_too_long_has_its_timeout_and_the_others_their_time(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(2)) as bench:
        await bench.advance(0.5)
        short, long = await bench.submit(timeout_s=5.0), await bench.submit(timeout_s=60.0)
        await bench.advance(6.0)
        assert [await bench.state(job) for job in (short, long)] == [State.TIMED_OUT, State.IN_PROGRESS]
        assert slots(bench) == [1]
        bench.worker.result()
        await bench.settle()

        assert await bench.state(long) is State.COMPLETED


@pytest.mark.parametrize("how", ["dies", "is drained"])
async def test_a_batch_whose_worker_goes_before_it_began_costs_nobody_anything(tmp_path: Path, how: str) -> None:
    def goes(bench: JobBench) -> None:
        if how == "dies":
            bench.worker.die()
        else:
            bench.dispatcher.apply(batching(2, 0.0), tmp_path)

    async with dispatching(tmp_path, batching(2, 0.0), store=Between) as bench:
        await bench.advance(0.5)
        assert isinstance(bench.store, Between)
        jobs = [await bench.queue() for _ in range(2)]
        bench.store.between = lambda: goes(bench)
        bench.dispatcher.wake()
        await bench.advance(2.0)

        after = [await bench.job(job) for job in jobs]
        assert [(job.state, job.deaths, job.attempt) for job in after] == [(State.IN_PROGRESS, 0, 1)] * 2
        assert batches(bench.worker) == [ids(jobs)]


@pytest.mark.parametrize(("before", "after", "of"), [(None, 8, None), (2, 8, 2), (2, None, 2)])
async def test_while_a_release_comes_up_the_worker_before_gets_what_its_own_takes(
    tmp_path: Path, before: int | None, after: int | None, of: int | None
) -> None:
    def release(size: int | None) -> Endpoint:
        return an_endpoint(workers_min=1) if size is None else batching(size, 0.0)

    async with dispatching(tmp_path, release(before)) as bench:
        await bench.advance(0.5)
        bench.placement.on_start = waits
        bench.dispatcher.apply(release(after), tmp_path)
        await bench.settle()
        jobs = [await bench.queue() for _ in range(4)]
        bench.dispatcher.wake()
        await bench.advance(1.0)

        old = bench.workers[0]
        assert [frame.meta["id"] for frame in old.calls.values()] == ids(jobs[: of or 1])
        assert [frame.meta.get("of") for frame in old.calls.values()] == [of] * (of or 1)


async def test_a_batch_that_breaks_its_worker_is_tried_one_by_one(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(3, 0.0)) as bench:
        await bench.advance(0.5)
        jobs = [await bench.queue() for _ in range(3)]
        bench.dispatcher.wake()
        for _ in range(10):
            await bench.advance(1.0)
            for worker in bench.workers:
                is_bad = jobs[1].id in {frame.meta["id"] for frame in worker.calls.values()}
                for number in list(worker.calls):
                    if is_bad:
                        worker.failure(number, broken=True)
                    else:
                        worker.result(number)

        assert [await bench.state(job) for job in jobs] == [State.COMPLETED, State.FAILED, State.COMPLETED]
        assert [(await bench.job(job)).deaths for job in jobs] == [1, 3, 1]


async def test_one_that_is_cancelled_while_its_batch_is_claimed_does_not_run(tmp_path: Path) -> None:
    async with dispatching(tmp_path, batching(3, 0.0), store=Between) as bench:
        await bench.advance(0.5)
        assert isinstance(bench.store, Between)
        jobs = [await bench.queue() for _ in range(3)]

        async def cancel() -> None:
            await bench.dispatcher.cancel(jobs[0].id)

        bench.store.between_async = cancel
        bench.dispatcher.wake()
        await bench.advance(1.0)

        assert (await bench.job(jobs[0])).reason is Reason.CANCELLED
        assert batches(bench.worker) == [ids(jobs[1:])]
        await bench.advance(12.0)
        assert bench.worker.said(Kind.CANCEL) == []
        assert len(bench.worker.calls) == 2, "nobody waits in vain for it to stop"


async def test_workers_are_wanted_for_batches_and_not_for_each_job(tmp_path: Path) -> None:
    endpoint = batching(10, 0.0, workers_min=0, workers_max=5, scaler=Scaler(type="queue_delay", value=0.0))
    async with dispatching(tmp_path, endpoint) as bench:
        bench.placement.on_start = waits
        for _ in range(25):
            await bench.queue()
        bench.dispatcher.wake()
        await bench.advance(2.0)

        assert len(bench.workers) == 3
        assert bench.dispatcher.demand().queued == 25


class Between(FailingStore):
    """A store in which something happens between the claim of the first of a batch and that of the others."""

    between: Callable[[], None] | None = None
    between_async: Callable[[], Any] | None = None

    async def claim(self, functions: Any, by: Any, **how: Any) -> list[Job]:
        if how["limit"] > 1:
            if self.between is not None:
                between, self.between = self.between, None
                between()
            if self.between_async is not None:
                between_async, self.between_async = self.between_async, None
                await between_async()
        return await super().claim(functions, by, **how)
