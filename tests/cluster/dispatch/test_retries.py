"""Jobs whose handler raises: tried again after a pause, or ended, by what `retries` asks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flashfw.cluster.jobs.model import Job, Reason, State
from flashfw.manifest import Endpoint, Retries
from tests.cluster.bench import JobBench, a_function, an_endpoint, dispatching

pytestmark = pytest.mark.anyio

OSERROR = {"type": "Busy", "types": ["endpoints.gpu.Busy", "builtins.OSError", "builtins.Exception"]}


def retrying(retries: Retries, **changes: Any) -> Endpoint:
    return an_endpoint(functions=(a_function("gpu", retries=retries),), **changes)


def surely() -> float:
    """A chance that takes nothing off the pauses."""
    return 1.0


async def fail(bench: JobBench, **failure: Any) -> None:
    bench.worker.failure(**{**OSERROR, **failure})
    await bench.settle()


async def test_an_error_is_tried_again_after_pauses_that_double_until_they_are_used_up(tmp_path: Path) -> None:
    async with dispatching(tmp_path, retrying(Retries(max=2, backoff_s=4.0)), chance=surely) as bench:
        job = await bench.submit()
        await fail(bench, message="first")
        parked = await bench.job(job)
        assert (parked.state, parked.attempt, parked.deaths) == (State.IN_QUEUE, 1, 0)
        assert json.loads(parked.error or b"")["message"] == "first"
        await bench.advance(3.5)
        assert await bench.state(job) is State.IN_QUEUE
        await bench.advance(0.5)
        assert (await bench.job(job)).attempt == 2

        await fail(bench, message="second")
        await bench.advance(7.5)
        assert await bench.state(job) is State.IN_QUEUE
        await bench.advance(0.5)
        await fail(bench, message="third")
        ended = await bench.job(job)

        assert (ended.state, ended.reason, ended.attempt) == (State.FAILED, Reason.HANDLER_ERROR, 3)
        assert ended.is_dead_letter
        assert json.loads(ended.error or b"") == {"reason": "handler_error", "message": "third", "type": "Busy"}
        retries = bench.named("job_retry")
        assert [(fields["attempt"], fields["in_s"]) for fields in retries] == [(1, 4.0), (2, 8.0)]
        assert "second" in retries[1]["error"]
        assert [fields["attempt"] for fields in bench.named("job_started")] == [1, 2, 3]


async def test_a_retry_that_goes_well_completes_the_job_for_who_waits(tmp_path: Path) -> None:
    async with dispatching(tmp_path, retrying(Retries(max=1)), chance=surely) as bench:
        async with bench.called() as caller:
            await fail(bench)
            await bench.advance(1.0)
            bench.worker.result()
            ended = await caller

        assert ended is not None
        assert (ended.state, ended.error, ended.attempt) == (State.COMPLETED, None, 2)
        assert not ended.is_dead_letter


@pytest.mark.parametrize(
    ("retries", "failure", "state"),
    [
        (Retries(max=1, on=("OSError",)), {}, State.IN_QUEUE),
        (Retries(max=1, on=("KeyError", "endpoints.gpu.Busy")), {}, State.IN_QUEUE),
        (Retries(max=1, on=("KeyError",)), {}, State.FAILED),
        (Retries(max=1, on=("Busy",)), {"types": []}, State.IN_QUEUE),
        (Retries(max=1), {"reason": "validation"}, State.FAILED),
        (Retries(max=1), {"reason": "encode"}, State.FAILED),
        (Retries(max=1), {"reason": "too_large"}, State.FAILED),
        (Retries(), {}, State.FAILED),
    ],
)
async def test_only_errors_of_the_handler_that_are_asked_for_are_tried_again(
    tmp_path: Path, retries: Retries, failure: dict[str, Any], state: State
) -> None:
    async with dispatching(tmp_path, retrying(retries)) as bench:
        job = await bench.submit()
        await fail(bench, **failure)

        assert await bench.state(job) is state


async def test_a_timeout_is_not_tried_again(tmp_path: Path) -> None:
    async with dispatching(tmp_path, retrying(Retries(max=3, on=("Timeout", "TimeoutError")))) as bench:
        job = await bench.submit(timeout_s=5.0)
        await bench.advance(6.0)

        assert await bench.state(job) is State.TIMED_OUT


@pytest.mark.parametrize(("on", "state"), [((), State.FAILED), (("OSError",), State.IN_QUEUE)])
async def test_a_stream_that_was_heard_begins_anew_only_if_it_is_asked_for(
    tmp_path: Path, on: tuple[str, ...], state: State
) -> None:
    async with dispatching(tmp_path, retrying(Retries(max=1, on=on)), chance=surely) as bench:
        job = await bench.submit()
        bench.worker.chunk(b"1")
        await fail(bench)
        assert await bench.state(job) is state
        if state is State.IN_QUEUE:
            await bench.advance(1.0)
            bench.worker.chunk(b"2")
            bench.worker.result()
            await bench.settle()
            assert [chunk.data for chunk in await bench.store.chunks(job.id)] == [b"2"]


async def test_deaths_of_workers_use_up_no_retries(tmp_path: Path) -> None:
    async with dispatching(tmp_path, retrying(Retries(max=1)), chance=surely) as bench:
        job = await bench.submit()
        for _ in range(2):
            bench.worker.die()
            await bench.advance(1.0)
        await fail(bench)
        assert await bench.state(job) is State.IN_QUEUE
        await bench.advance(1.0)
        await fail(bench)

        ended = await bench.job(job)
        assert (ended.state, ended.attempt, ended.deaths) == (State.FAILED, 4, 2)


async def test_a_job_that_waits_for_a_retry_holds_nobody_up_and_asks_for_no_worker(tmp_path: Path) -> None:
    endpoint = retrying(Retries(max=1, backoff_s=120.0), idle_timeout_s=10.0)
    async with dispatching(tmp_path, endpoint, chance=surely) as bench:
        job = await bench.submit()
        await fail(bench)
        other = await bench.submit()
        assert await bench.state(other) is State.IN_PROGRESS
        bench.worker.result()
        await bench.advance(12.0)
        assert bench.workers == []
        decision = bench.dispatcher.pool.decision
        assert decision is not None
        assert "1 waits for a retry" in decision.reason

        await bench.advance(110.0)
        assert await bench.state(job) is State.IN_PROGRESS


async def test_a_job_can_be_cancelled_or_expire_while_it_waits_for_a_retry(tmp_path: Path) -> None:
    async with dispatching(tmp_path, retrying(Retries(max=1, backoff_s=60.0)), chance=surely) as bench:
        cancelled, expires = await bench.submit(), await bench.submit(expires_at=bench.clock.now() + 65.0)
        await fail(bench)
        await fail(bench)
        await bench.dispatcher.cancel(cancelled.id)
        busy = await bench.submit(expires_at=bench.clock.now() + 1000.0)
        await bench.advance(66.0)
        (ended,) = await bench.store.expire()

        assert (await bench.job(cancelled)).reason is Reason.CANCELLED
        assert (ended.id, ended.reason) == (expires.id, Reason.EXPIRED)
        assert await bench.state(busy) is State.IN_PROGRESS


async def test_an_error_ends_a_job_whose_time_to_live_is_over_before_the_next_attempt(tmp_path: Path) -> None:
    async with dispatching(tmp_path, retrying(Retries(max=1, backoff_s=60.0)), chance=surely) as bench:
        job = await bench.submit(expires_at=bench.clock.now() + 30.0)
        await fail(bench)

        assert (await bench.job(job)).reason is Reason.HANDLER_ERROR


async def test_an_attempt_that_was_cancelled_is_not_tried_again_though_it_raises(tmp_path: Path) -> None:
    async with dispatching(tmp_path, retrying(Retries(max=1))) as bench:
        job = await bench.submit()
        bench.worker.is_obedient = False
        await bench.dispatcher.cancel(job.id)
        await fail(bench)
        await bench.advance(5.0)

        assert await bench.state(job) is State.CANCELLED


async def test_retries_go_on_after_a_restart(tmp_path: Path) -> None:
    endpoint = retrying(Retries(max=1, backoff_s=30.0))
    async with dispatching(tmp_path, endpoint, chance=surely) as bench:
        job = await bench.queue(available_at=bench.clock.now() + 30.0)  # as the server before left it
        bench.dispatcher.wake()
        await bench.advance(29.0)
        assert bench.workers == []
        await bench.advance(1.5)

        assert await bench.state(job) is State.IN_PROGRESS


async def test_jobs_that_failed_together_are_spread(tmp_path: Path) -> None:
    chances = iter([0.0, 0.5, 1.0])
    endpoint = retrying(Retries(max=1, backoff_s=8.0), concurrency=3)
    async with dispatching(tmp_path, endpoint, chance=lambda: next(chances)) as bench:
        jobs: list[Job] = await asyncio.gather(*(bench.submit() for _ in range(3)))
        for number in sorted(bench.worker.calls):
            bench.worker.failure(number, **OSERROR)
        await bench.settle()

        waits = [(await bench.job(job)).available_at - bench.clock.now() for job in jobs]
        assert sorted(waits) == [4.0, 6.0, 8.0]
