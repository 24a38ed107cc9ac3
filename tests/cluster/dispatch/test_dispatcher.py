"""Jobs brought to workers and back: cancel, timeout, broken stores, callers who wait, and shutdown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import anyio
import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs import sqlite
from flashfw.cluster.jobs.model import Claimer, Job, Reason, State
from flashfw.cluster.jobs.store import MAX_CHUNK_BYTES, StoreError
from flashfw.cluster.workers.customer import NoWorker
from flashfw.worker.frames import Kind
from tests.cluster.bench import FAILURE, FailingStore, a_function, an_endpoint, breaks, dispatching, failing, waits

pytestmark = pytest.mark.anyio


async def test_a_result_frees_the_slot_and_takes_the_next_job_in_the_same_transaction(tmp_path: Path) -> None:
    async with dispatching(tmp_path, store=FailingStore) as bench:
        first, second = await bench.submit(), await bench.submit()
        failing(bench).calls.clear()
        bench.worker.result()
        await bench.settle()

        assert [await bench.state(first), await bench.state(second)] == [State.COMPLETED, State.IN_PROGRESS]
        assert failing(bench).calls == ["finish_and_claim"]
        bench.worker.result()
        await bench.settle()
        assert failing(bench).calls == ["finish_and_claim", "finish"]


async def test_a_job_that_is_not_due_takes_no_slot(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        later = await bench.queue(available_at=bench.clock.now() + 5.0)
        bench.worker.result()
        await bench.settle()
        assert await bench.state(job) is State.COMPLETED
        assert bench.dispatcher.pool.workers[0].slots_used == 0
        await bench.advance(5.5)

        assert await bench.state(later) is State.IN_PROGRESS


async def test_jobs_go_by_priority_and_then_by_submission(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        await bench.submit()
        low, high, second = [await bench.submit(priority=priority) for priority in (-1, 1, 0)]
        begun = []
        for _ in range(3):
            bench.worker.result()
            await bench.settle()
            begun.append(bench.worker.calls[bench.worker.number].meta["id"])

        assert begun == [high.id, second.id, low.id]


async def test_concurrency_is_filled_and_never_more(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=3)) as bench:
        jobs = [await bench.submit() for _ in range(5)]

        states = [await bench.state(job) for job in jobs]
        assert len(bench.worker.calls) == 3
        assert states.count(State.IN_PROGRESS) == 3


async def test_a_cancelled_job_ends_at_once_and_its_worker_goes_on(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job, waiting = await bench.submit(), await bench.submit()
        bench.worker.is_obedient = False
        cancelled = await bench.dispatcher.cancel(job.id)
        await bench.settle()

        assert cancelled is not None
        assert cancelled.state is State.CANCELLED
        assert bench.worker.said(Kind.CANCEL)[0].meta == {"reason": "cancelled"}
        assert await bench.state(waiting) is State.IN_QUEUE  # the slot is not free before the worker says so
        bench.worker.result()  # too late to count
        await bench.settle()

        assert await bench.state(job) is State.CANCELLED
        assert await bench.state(waiting) is State.IN_PROGRESS


async def test_work_that_does_not_stop_in_ten_seconds_loses_its_worker(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit(timeout_s=30.0)
        stuck = bench.worker
        stuck.is_obedient = False
        await bench.advance(30.5)
        ended = await bench.job(job)
        assert (ended.state, ended.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
        await bench.advance(9.0)
        assert stuck.is_alive
        await bench.advance(1.0)

        assert not stuck.is_alive
        assert await bench.job(job) == ended


async def test_neighbours_of_work_that_does_not_stop_get_time_and_go_back_unharmed(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=3, drain_timeout_s=20.0)) as bench:
        bad, good, slow = [await bench.submit() for _ in range(3)]
        stuck = bench.worker
        stuck.is_obedient = False
        await bench.dispatcher.cancel(bad.id)
        await bench.advance(10.5)
        later = await bench.submit()
        assert stuck.said(Kind.DRAIN)
        assert (await bench.job(later)).worker != stuck.spec.worker
        assert stuck.is_alive

        stuck.result(2)
        await bench.advance(18.0)
        assert await bench.state(good) is State.COMPLETED
        assert (await bench.job(slow)).worker == stuck.spec.worker
        await bench.advance(2.5)

        assert not stuck.is_alive
        again = await bench.job(slow)
        assert (again.state, again.deaths, again.attempt) == (State.IN_PROGRESS, 0, 1)
        assert await bench.state(bad) is State.CANCELLED


async def test_a_worker_with_work_that_does_not_stop_goes_when_its_neighbours_are_done(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=3, drain_timeout_s=3600.0)) as bench:
        bad, good, other = [await bench.submit() for _ in range(3)]
        stuck = bench.worker
        stuck.is_obedient = False
        await bench.dispatcher.cancel(bad.id)
        await bench.advance(10.5)
        stuck.result(2)
        await bench.advance(1.0)
        assert stuck.is_alive
        stuck.result(3)
        await bench.advance(1.0)

        assert not stuck.is_alive
        assert [await bench.state(job) for job in (good, other)] == [State.COMPLETED] * 2


async def test_a_handler_that_says_its_worker_is_broken_is_tried_on_another(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        bad = bench.worker
        bad.failure(broken=True, message="CUDA error")
        await bench.advance(1.0)

        assert not bad.is_alive
        again = await bench.job(job)
        assert (again.state, again.deaths, again.worker) == (State.IN_PROGRESS, 1, bench.worker.spec.worker)


async def test_a_failure_with_an_unknown_reason_is_an_error_of_the_handler(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        bench.worker.failure(reason="of a newer worker")
        await bench.settle()

        assert (await bench.job(job)).reason is Reason.HANDLER_ERROR


async def test_a_job_that_is_retried_while_its_first_run_still_stops_is_not_mixed_up(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_max=2)) as bench:
        job = await bench.submit()
        old = bench.worker
        old.is_obedient = False
        await bench.dispatcher.cancel(job.id)
        await bench.store.retry(job.id)
        bench.dispatcher.wake()
        await bench.advance(6.0)
        new = bench.workers[1]
        assert (await bench.job(job)).worker == new.spec.worker

        old.result(body=b'"old"')
        new.result(body=b'"new"')
        await bench.settle()

        assert (await bench.job(job)).output == b'"new"'


# Yielded items


async def test_items_are_kept_in_order_though_the_disk_is_full_for_a_while(tmp_path: Path) -> None:
    async with dispatching(tmp_path, store=FailingStore) as bench:
        job = await bench.submit()
        failing(bench).broken = {"add_chunks"}
        bench.worker.chunk(b"1")
        await bench.settle()
        bench.worker.chunk(b"2")
        bench.worker.result()
        await bench.settle()
        assert await bench.state(job) is State.IN_PROGRESS  # not before its items are kept
        assert bench.named("store_failed")
        failing(bench).broken = set()
        await bench.advance(1.5)

        assert [chunk.data for chunk in await bench.store.chunks(job.id)] == [b"1", b"2"]
        assert await bench.state(job) is State.COMPLETED


async def test_credit_is_given_for_what_is_kept_and_not_before(tmp_path: Path) -> None:
    async with dispatching(tmp_path, store=FailingStore) as bench:
        await bench.submit()
        failing(bench).broken = {"add_chunks"}
        bench.worker.chunk(b"12345")
        await bench.settle()
        assert bench.worker.said(Kind.CREDIT) == []
        failing(bench).broken = set()
        await bench.advance(1.5)

        assert [frame.meta for frame in bench.worker.said(Kind.CREDIT)] == [{"bytes": 5}]


async def test_a_job_that_yields_too_much_is_stopped_and_keeps_what_fits(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        await bench.store.add_chunks(job.id, 1, [bytes(MAX_CHUNK_BYTES - 2)])
        for body in (b"1", b"2", b"3", b"4"):
            bench.worker.chunk(body)
        await bench.settle()

        ended = await bench.job(job)
        assert (ended.state, ended.reason) == (State.FAILED, Reason.TOO_LARGE)
        assert [chunk.data for chunk in await bench.store.chunks(job.id, after=0)] == [b"1", b"2"]
        assert [frame.meta for frame in bench.worker.said(Kind.CANCEL)] == [{"reason": "too_large"}]


async def test_progress_is_shown_and_gone_at_the_end(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        bench.worker.progress(b"0.5")
        await bench.settle()
        assert (await bench.job(job)).progress == b"0.5"
        bench.worker.result()
        await bench.settle()
        assert (await bench.job(job)).progress is None


# A store that fails


async def test_a_submission_that_cannot_be_kept_is_refused_and_its_slot_is_free(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1), store=FailingStore) as bench:
        await bench.advance(0.5)
        failing(bench).broken = {"submit"}
        with pytest.raises(StoreError, match="full"):
            await bench.submit()
        failing(bench).broken = set()

        assert bench.dispatcher.pool.workers[0].slots_used == 0
        assert await bench.state(await bench.submit()) is State.IN_PROGRESS


async def test_a_result_is_written_again_until_it_is_kept(tmp_path: Path) -> None:
    async with dispatching(tmp_path, store=FailingStore) as bench:
        job = await bench.submit()
        failing(bench).broken = {"finish"}
        bench.worker.result(body=b'"precious"')
        await bench.advance(5.0)
        assert await bench.state(job) is State.IN_PROGRESS
        assert len(bench.named("store_failed")) >= 5
        failing(bench).broken = set()
        await bench.advance(1.5)

        assert (await bench.job(job)).output == b'"precious"'


async def test_a_result_that_claims_too_gives_the_slot_back_when_it_is_not_kept(tmp_path: Path) -> None:
    async with dispatching(tmp_path, store=FailingStore) as bench:
        first, second = await bench.submit(), await bench.submit()
        failing(bench).broken = {"finish_and_claim", "claim"}
        bench.worker.result()
        await bench.advance(2.0)
        assert bench.dispatcher.pool.workers[0].slots_used == 0
        failing(bench).broken = set()
        await bench.advance(1.5)

        assert [await bench.state(first), await bench.state(second)] == [State.COMPLETED, State.IN_PROGRESS]


async def test_a_caller_that_is_cut_off_in_its_submission_leaves_no_job_in_nobodys_hands(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1)) as bench:
        await bench.advance(0.5)
        job = bench.a_job()
        caller = asyncio.ensure_future(bench.dispatcher.submit(job))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await bench.settle()

        assert bench.dispatcher.pool.workers[0].slots_used == 1
        assert bench.worker.calls[1].meta["id"] == job.id


class SlowStore(sqlite.SqliteStore):
    """A store whose claims are made at once and answered when `answers` is set."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(None, clock=clock)
        self.answers = anyio.Event()
        self.answers.set()

    async def submit(self, job: Job, *, max_queue: int, claim: Claimer | None = None) -> Job:
        kept = await super().submit(job, max_queue=max_queue, claim=claim)
        await self.answers.wait()
        return kept

    async def claim(self, functions: Collection[str], by: Claimer, **how: Any) -> list[Job]:
        claimed = await super().claim(functions, by, **how)
        await self.answers.wait()
        return claimed


@pytest.mark.parametrize("how", ["submit", "claim"])
@pytest.mark.parametrize("end", ["dies", "drains", "falls silent"])
async def test_a_worker_that_goes_between_the_claim_and_its_answer_costs_the_job_nothing(
    tmp_path: Path, how: str, end: str
) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1), store=SlowStore) as bench:
        assert isinstance(bench.store, SlowStore)
        await bench.advance(0.5)
        old = bench.worker
        bench.store.answers = anyio.Event()
        job = bench.a_job()
        submitting = asyncio.ensure_future(bench.dispatcher.submit(job) if how == "submit" else bench.queue(id=job.id))
        await bench.settle()
        bench.dispatcher.wake()
        await bench.settle()
        assert bench.dispatcher.pool.workers[0].slots_used == 1
        if end == "dies":
            old.die(1)
        elif end == "drains":
            bench.dispatcher.apply(an_endpoint(workers_min=1), tmp_path)
        await bench.advance(7.0, beats=end != "falls silent")
        bench.store.answers.set()
        await submitting
        old.beat()
        await bench.advance(1.0)

        after = await bench.job(job)
        assert (after.state, after.deaths, after.attempt) == (State.IN_PROGRESS, 0, 1)
        assert bench.worker.calls[1].meta["id"] == job.id
        assert bench.dispatcher.pool.workers[0].slots_used == 1


# Workers that do not start


async def test_who_waits_is_told_and_who_queues_is_kept(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        bench.placement.on_start = breaks("no weights here")
        queued = await bench.submit()
        async with bench.called() as caller:
            await bench.advance(1.0)
            told = await caller

        assert told is not None
        assert (told.state, told.reason) == (State.FAILED, Reason.STARTUP)
        error = json.loads(told.error or b"")
        assert (error["fixture"], error["place"], error["message"]) == ("model", "f.py:1", "no weights here")
        assert error["traceback"]
        assert await bench.state(queued) is State.IN_QUEUE
        with pytest.raises(NoWorker):
            bench.dispatcher.expect_worker()


async def test_nobody_is_told_before_the_third_failed_start(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        bench.placement.on_start = waits
        async with bench.called() as caller:
            for left in (2, 1, 0):
                assert not caller.done()
                bench.worker.broken()
                await bench.advance(0.5)
                assert caller.done() == (left == 0)


async def test_in_dev_the_first_failure_answers_and_each_call_tries_anew(tmp_path: Path) -> None:
    async with dispatching(tmp_path, start_failures=1, retries_at_call=True) as bench:
        bench.placement.on_start = breaks()
        for calls in (1, 2, 3):
            bench.dispatcher.expect_worker()
            async with bench.called() as caller:
                told = await caller
                assert told is not None
                assert told.reason is Reason.STARTUP
            assert len(bench.named("start_failed")) == calls

        bench.placement.on_start = lambda process: process.ready()
        bench.dispatcher.expect_worker()
        async with bench.called() as caller:
            bench.worker.result()
            told = await caller
        assert told is not None
        assert told.state is State.COMPLETED
        assert len(bench.placement.processes) == 4  # what was refused does not run later


async def test_a_caller_whose_job_was_being_kept_when_it_became_vain_is_told(tmp_path: Path) -> None:
    async with dispatching(tmp_path, start_failures=1) as bench:
        bench.placement.on_start = breaks()
        await bench.submit()
        job = await bench.queue()
        with bench.watch.seat(job.id) as seat, bench.dispatcher.called(job.id):
            bench.dispatcher.refuse_in_vain()
            await bench.settle()

            assert seat.job is not None


async def test_of_two_callers_of_one_job_the_one_that_stays_is_told(tmp_path: Path) -> None:
    async with dispatching(tmp_path, start_failures=1) as bench:
        bench.placement.on_start = breaks()
        await bench.submit()
        job = await bench.queue()
        with bench.watch.seat(job.id) as seat, bench.dispatcher.called(job.id):
            with bench.dispatcher.called(job.id):
                pass  # came with the same idempotency key, and left
            bench.dispatcher.refuse_in_vain()
            await bench.settle()

            assert seat.job is not None


async def test_a_caller_whose_job_runs_is_not_refused(tmp_path: Path) -> None:
    async with dispatching(tmp_path, start_failures=1) as bench, bench.called() as caller:
        bench.worker.hang_up()  # nothing serves any more, and the job is not back yet
        bench.dispatcher.pool.starts.failure = FAILURE
        bench.dispatcher.refuse_in_vain()
        await bench.settle()

        assert bench.dispatcher.pool.refusal is not None
        assert not caller.done()


# Endpoints that go


async def test_when_an_endpoint_goes_callers_are_told_and_its_queue_stays(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(drain_timeout_s=5.0)) as bench:
        running, queued = await bench.submit(), await bench.submit()
        async with bench.called() as caller, anyio.create_task_group() as tasks:
            tasks.start_soon(bench.dispatcher.retire)
            await bench.settle()
            told = await caller
            assert told is not None
            assert (told.state, told.reason) == (State.FAILED, Reason.FUNCTION_GONE)
            await bench.advance(6.0)

        assert bench.workers == []
        assert [await bench.state(job) for job in (running, queued)] == [State.IN_QUEUE] * 2
        assert (await bench.job(running)).deaths == 0


async def test_when_a_function_goes_only_its_callers_are_told(tmp_path: Path) -> None:
    both = an_endpoint(functions=(a_function("gpu"), a_function("gpu/upscale")))
    async with dispatching(tmp_path, both) as bench:
        bench.placement.on_start = waits
        async with bench.called("gpu/upscale") as gone, bench.called("gpu") as stays:
            bench.dispatcher.apply(an_endpoint(), tmp_path)
            await bench.settle()

            assert gone.done()
            assert not stays.done()


async def test_closing_writes_down_what_came_in_time_and_puts_the_rest_back(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2)) as bench:
        done, left = await bench.submit(), await bench.submit()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.dispatcher.close, 3.0)
            await bench.settle()
            bench.worker.result(1)
            await bench.advance(3.5)

        assert bench.workers == []
        assert [await bench.state(done), await bench.state(left)] == [State.COMPLETED, State.IN_QUEUE]
        assert (await bench.job(left)).deaths == 0


async def test_closing_waits_until_all_is_written_down(tmp_path: Path) -> None:
    async with dispatching(tmp_path, store=FailingStore) as bench:
        job = await bench.submit()
        failing(bench).broken = {"release"}
        closing = asyncio.ensure_future(bench.dispatcher.close(30.0))
        await bench.settle()
        bench.worker.die(1)
        await bench.advance(5.0)
        assert not closing.done()
        failing(bench).broken = set()
        bench.clock.advance(1.0)
        await closing

        assert await bench.state(job) is State.IN_QUEUE


async def test_closing_over_a_store_that_fails_ends_in_time(tmp_path: Path) -> None:
    async with dispatching(tmp_path, store=FailingStore) as bench:
        job = await bench.submit()
        failing(bench).broken = {"release"}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.dispatcher.close, 3.0)
            await bench.advance(8.0)

        assert await bench.state(job) is State.IN_PROGRESS  # for the next server to requeue
        assert bench.workers == []
