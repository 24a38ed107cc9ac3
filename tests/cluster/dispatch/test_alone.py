"""After a death with several jobs in flight each of them runs alone, and is not passed by for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.cluster.jobs.model import Job, Reason, State
from tests.cluster.bench import FailingStore, JobBench, an_endpoint, dispatching, failing, waits

pytestmark = pytest.mark.anyio


async def flight(bench: JobBench, jobs: int) -> list[Job]:
    """So many jobs on the worker that there is."""
    return [await bench.submit() for _ in range(jobs)]


def running(bench: JobBench) -> list[set[str]]:
    """The jobs that each worker has."""
    return [{frame.meta["id"] for frame in worker.calls.values()} for worker in bench.workers]


async def test_those_in_flight_when_a_worker_died_run_one_by_one(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=3)) as bench:
        jobs = await flight(bench, 3)
        bench.worker.die()
        await bench.advance(1.0)
        seen = []
        for _ in jobs:
            (held,) = running(bench)
            seen.append(held)
            bench.worker.result()
            await bench.settle()

        assert seen == [{job.id} for job in jobs]
        assert [fields["alone"] for fields in bench.named("job_requeued")] == [True] * 3
        assert [(await bench.job(job)).alone for job in jobs] == [False] * 3


async def test_the_one_that_kills_is_found_and_the_others_are_done(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=3)) as bench:
        good, bad, other = await flight(bench, 3)
        bench.worker.die()
        for _ in range(20):
            await bench.advance(1.0)
            for worker in bench.workers:
                for number, frame in list(worker.calls.items()):
                    if frame.meta["id"] == bad.id:
                        worker.die()
                        break
                    worker.result(number)

        ended = await bench.job(bad)
        assert (ended.state, ended.reason, ended.deaths) == (State.FAILED, Reason.WORKER_LOST, 3)
        assert [(await bench.job(job)).deaths for job in (good, other)] == [1, 1]
        assert [await bench.state(job) for job in (good, other)] == [State.COMPLETED] * 2


async def test_one_that_was_the_only_call_need_not_be_alone(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2)) as bench:
        job = await bench.submit()
        bench.worker.die()
        await bench.advance(1.0)
        second = await bench.submit()

        assert not (await bench.job(job)).alone
        assert running(bench) == [{job.id, second.id}]


async def test_nobody_joins_one_that_is_alone_and_all_go_on_after_it(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2)) as bench:
        first, second = await flight(bench, 2)
        bench.worker.die()
        await bench.advance(1.0)
        new = [await bench.submit() for _ in range(2)]
        assert running(bench) == [{first.id}]
        bench.worker.result()
        await bench.settle()
        assert running(bench) == [{second.id}]
        bench.worker.result()
        await bench.settle()

        assert running(bench) == [{job.id for job in new}]


async def test_a_worker_is_emptied_for_one_that_must_be_alone(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2, workers_max=2, workers_min=2)) as bench:
        await bench.advance(1.0)
        busy = [await bench.submit() for _ in range(4)]
        one, other = bench.workers
        bench.placement.on_start = waits  # no third worker comes up
        one.die()
        await bench.settle()
        later = [await bench.submit() for _ in range(6)]
        alone = [job for job in busy if (await bench.job(job)).alone]
        assert len(alone) == 2

        numbers = sorted(other.calls)
        other.result(numbers[0])
        await bench.settle()
        assert len(other.calls) == 1, "the free slot is kept free"
        other.result(numbers[1])
        await bench.settle()
        assert running(bench)[0] == {alone[0].id}
        other.result()
        await bench.settle()
        await bench.advance(1.0)
        assert running(bench)[0] == {alone[1].id}
        other.result()
        await bench.settle()
        assert running(bench)[0] == {job.id for job in later[:2]}


async def test_a_worker_that_was_to_be_emptied_takes_calls_again_when_nobody_needs_it(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2, workers_max=2, workers_min=2)) as bench:
        await bench.advance(1.0)
        busy = [await bench.submit() for _ in range(4)]
        one, other = bench.workers
        bench.placement.on_start = waits
        one.die()
        await bench.settle()
        later = await bench.submit()
        other.result(min(other.calls))
        await bench.settle()
        assert await bench.state(later) is State.IN_QUEUE
        for job in busy:
            if (await bench.job(job)).alone:
                await bench.dispatcher.cancel(job.id)
        await bench.advance(1.0)

        assert await bench.state(later) is State.IN_PROGRESS


async def test_jobs_of_higher_priority_go_first_though_the_worker_was_emptied_for_another(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2)) as bench:
        first, second = await flight(bench, 2)
        urgent = [await bench.queue(priority=1) for _ in range(2)]
        bench.worker.die()
        await bench.advance(1.0)
        seen = []
        for _ in range(4):
            seen += running(bench)
            bench.worker.result()
            await bench.settle()

        assert seen == [{job.id} for job in (*urgent, first, second)]


async def test_others_join_one_that_came_first_once_nobody_needs_the_whole_worker(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2)) as bench:
        alone = await flight(bench, 2)
        urgent = [await bench.queue(priority=1) for _ in range(2)]
        bench.worker.die()
        await bench.advance(1.0)
        assert running(bench) == [{urgent[0].id}]
        for job in alone:
            await bench.dispatcher.cancel(job.id)
        await bench.advance(1.0)

        assert running(bench) == [{job.id for job in urgent}]


async def test_a_worker_that_was_taken_whole_in_vain_takes_calls_again(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2), store=FailingStore) as bench:
        alone = await flight(bench, 2)
        bench.worker.die()
        failing(bench).broken = {"claim"}
        await bench.advance(1.0)
        for job in alone:
            await bench.dispatcher.cancel(job.id)
        failing(bench).broken = set()
        later = await bench.submit()
        await bench.advance(2.0)

        assert await bench.state(later) is State.IN_PROGRESS


async def test_those_that_all_find_their_worker_broken_run_one_by_one(tmp_path: Path) -> None:
    """As every call on a GPU does whose context one of them has lost."""
    async with dispatching(tmp_path, an_endpoint(concurrency=3)) as bench:
        good, bad, other = await flight(bench, 3)
        for _ in range(20):
            for worker in bench.workers:
                is_lost = bad.id in {frame.meta["id"] for frame in worker.calls.values()}
                for number in list(worker.calls):
                    if is_lost:
                        worker.failure(number, broken=True, message="CUDA error")
                    else:
                        worker.result(number)
            await bench.advance(1.0)

        assert [await bench.state(job) for job in (good, bad, other)] == [
            State.COMPLETED,
            State.FAILED,
            State.COMPLETED,
        ]
        assert [(await bench.job(job)).deaths for job in (good, bad, other)] == [1, 3, 1]


async def test_a_broken_worker_blames_the_one_that_said_so(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2, drain_timeout_s=5.0)) as bench:
        blamed, neighbour = await flight(bench, 2)
        bench.worker.is_obedient = False
        bench.worker.failure(1, broken=True)
        await bench.advance(7.0)

        assert [(await bench.job(job)).deaths for job in (blamed, neighbour)] == [1, 0]
        assert [(await bench.job(job)).alone for job in (blamed, neighbour)] == [True, False]
