"""Jobs of functions that are no longer there, and changes that other servers on the same store make."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from flashfw.cluster.cluster import Cluster
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import Change, StoreError
from flashfw.worker.frames import Kind
from tests.cluster.bench import ROOM, ClusterBench, a_function, an_endpoint, clustering
from tests.cluster.jobs.conformance import a_job

pytestmark = pytest.mark.anyio


async def queued(bench: ClusterBench, function: str = "gpu", **changes: float) -> Job:
    """A job that was left in the queue."""
    patient = {"expires_at": bench.clock.now() + 1e6, "timeout_s": 1e6, "result_ttl_s": 1e6}
    return await bench.store.submit(a_job(bench.clock, function, **{**patient, **changes}), max_queue=ROOM)


async def now(bench: ClusterBench, job: Job | str) -> Job:
    """The record as it is by now."""
    found = await bench.store.get(job if isinstance(job, str) else job.id)
    assert found is not None
    return found


async def test_queued_jobs_of_a_function_that_is_gone_end_after_a_minute(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint("other")) as bench:
        waits, parked = await queued(bench), await queued(bench, available_at=bench.clock.now() + 1000.0)
        await bench.advance(59.0)
        assert [(await now(bench, one)).state for one in (waits, parked)] == [State.IN_QUEUE] * 2
        with bench.cluster.watch.seat(waits.id) as seat:
            await bench.advance(4.0)
            told = seat.job

        ended = await now(bench, waits)
        assert told == await bench.store.peek(waits.id)
        assert (ended.state, ended.reason) == (State.FAILED, Reason.FUNCTION_GONE)
        assert json.loads(ended.error or b"")["message"] == (
            "gpu is not served any more: retry the job when the function is back"
        )
        assert (await now(bench, parked)).reason is Reason.FUNCTION_GONE
        assert bench.named("function_gone") == [{"function": "gpu", "jobs": 2}]


async def test_a_function_that_comes_back_within_the_minute_takes_its_jobs_up(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint("other")) as bench:
        left = await queued(bench)
        await bench.advance(50.0)
        bench.apply(an_endpoint("gpu"))
        await bench.advance(1.0)
        assert (await now(bench, left)).state is State.IN_PROGRESS

        later = await queued(bench)
        bench.apply()
        await bench.advance(50.0)
        assert (await now(bench, later)).state is State.IN_QUEUE, "the minute begins anew"


async def test_a_job_that_ended_so_can_be_retried_once_the_function_is_back(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint("other")) as bench:
        left = await queued(bench)
        await bench.advance(65.0)
        bench.apply(an_endpoint("gpu"))
        answer = await bench.call("POST", f"/v2/gpu/retry/{left.id}")
        await bench.advance(1.0)

        assert answer.status == 200
        assert (await now(bench, left)).state is State.IN_PROGRESS


@pytest.mark.parametrize("kept", [None, frozenset({"gpu"})])
async def test_a_function_that_may_be_there_though_it_is_not_served_is_not_gone(
    tmp_path: Path, kept: frozenset[str] | None
) -> None:
    async with clustering(tmp_path) as bench:
        bench.cluster.apply(bench.cluster.manifest, root=bench.root, kept=kept)
        left = await queued(bench)
        await bench.advance(200.0)

        assert (await now(bench, left)).state is State.IN_QUEUE


async def test_before_anything_is_served_nothing_is_gone(tmp_path: Path) -> None:
    bench = ClusterBench(tmp_path)
    async with Cluster.running(bench.site, bench.store, grace_s=0.0):
        left = await queued(bench)
        await bench.advance(200.0)

        assert (await now(bench, left)).state is State.IN_QUEUE


class Full(SqliteStore):
    """A store whose disk is full while `is_full`."""

    is_full = False

    async def expire(self, *, limit: int = 1000) -> list[Job]:
        if self.is_full:
            raise StoreError("the job store cannot do it: database or disk is full")
        return await super().expire(limit=limit)


async def test_a_store_that_fails_is_told_and_the_next_round_comes(tmp_path: Path) -> None:
    async with clustering(tmp_path, store=lambda clock: Full(None, clock=clock)) as bench:
        assert isinstance(bench.store, Full)
        left = await queued(bench)
        bench.store.is_full = True
        await bench.advance(100.0)
        assert (await now(bench, left)).state is State.IN_QUEUE
        assert len(bench.named("store_failed")) >= 90
        assert not bench.named("store_back")
        bench.store.is_full = False
        await bench.advance(62.0)

        assert len(bench.named("store_back")) == 1
        assert (await now(bench, left)).reason is Reason.FUNCTION_GONE
        [missing] = bench.named("function_missing")
        assert missing == {"function": "gpu", "jobs": 1, "in_s": 60.0}


# Other servers


class Shared(SqliteStore):
    """A store of which another server tells its changes: `elsewhere` is called with each."""

    elsewhere: Callable[[Change], None]
    recoverable = 0
    served: frozenset[str] | None = frozenset()

    async def open(self, boot: str, *, on_change: Callable[[Change], None] | None = None) -> int:
        assert on_change is not None
        self.elsewhere = on_change
        return await super().open(boot)

    async def recover(self) -> int:
        recovered, self.recoverable = self.recoverable, 0
        return recovered

    async def serve(self, functions: Collection[str] | None) -> frozenset[str] | None:
        return self.served


def shared(bench: ClusterBench) -> Shared:
    assert isinstance(bench.store, Shared)
    return bench.store


def tell(bench: ClusterBench, job: Job, state: State) -> None:
    shared(bench).elsewhere(Change(job.id, job.function, state))


async def running(bench: ClusterBench) -> Job:
    call = await bench.post("/gpu", {}, prefer="respond-async")
    return await now(bench, call.headers["flashfw-job"])


async def test_a_job_that_another_server_accepted_starts_a_worker_here(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), store=lambda clock: Shared(None, clock=clock)) as bench:
        new = await queued(bench)
        tell(bench, new, State.IN_QUEUE)
        await bench.settle()

        assert (await now(bench, new)).state is State.IN_PROGRESS


async def test_who_waits_here_is_told_of_an_end_elsewhere(tmp_path: Path) -> None:
    async with clustering(tmp_path, store=lambda clock: Shared(None, clock=clock)) as bench:
        one = await queued(bench)
        with bench.cluster.watch.seat(one.id) as seat:
            (claimed,) = await bench.store.claim(("gpu",), Claimer(boot="another", worker="w"))
            tell(bench, one, State.IN_PROGRESS)
            await bench.settle()
            assert await seat.wait(0.0)
            await bench.store.finish(one.id, claimed.fence, End(state=State.COMPLETED, output=b"1"))
            tell(bench, one, State.COMPLETED)
            await bench.settle()

            assert seat.job is not None
            assert seat.job.output == b"1"


async def test_a_run_whose_job_was_cancelled_elsewhere_is_stopped(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), store=lambda clock: Shared(None, clock=clock)) as bench:
        mine = await running(bench)
        await bench.store.cancel(mine.id)
        tell(bench, mine, State.CANCELLED)
        await bench.settle()

        assert [frame.meta for frame in bench.worker.said(Kind.CANCEL)] == [{"reason": "cancelled"}]
        assert bench.worker.calls == {}


async def test_a_run_whose_claim_was_taken_away_is_stopped_and_one_that_is_ours_is_not(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), store=lambda clock: Shared(None, clock=clock)) as bench:
        mine = await running(bench)
        tell(bench, mine, State.IN_PROGRESS)
        await bench.settle()
        assert len(bench.worker.calls) == 1
        await bench.store.release(mine.id, mine.fence)  # as a server does that takes this one for dead
        (theirs,) = await bench.store.claim(("gpu",), Claimer(boot="another", worker="w"))
        tell(bench, theirs, State.IN_PROGRESS)
        await bench.settle()

        assert bench.worker.calls == {}
        assert (await now(bench, mine)).fence == theirs.fence


async def test_what_a_dead_server_had_claimed_is_taken_up(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint(), store=lambda clock: Shared(None, clock=clock)) as bench:
        left = await queued(bench)
        shared(bench).recoverable = 1
        await bench.advance(1.5)

        assert (await now(bench, left)).state is State.IN_PROGRESS
        assert bench.named("recovered") == [{"jobs": 1}]


async def test_a_function_that_another_server_has_is_gone_a_minute_after_that_server_is(tmp_path: Path) -> None:
    async with clustering(tmp_path, store=lambda clock: Shared(None, clock=clock)) as bench:
        shared(bench).served = frozenset({"gpu"})
        theirs, forgotten = await queued(bench), await queued(bench, "nobodys")
        await bench.advance(120.0)
        assert (await now(bench, theirs)).state is State.IN_QUEUE
        assert (await now(bench, forgotten)).reason is Reason.FUNCTION_GONE

        shared(bench).served = frozenset()
        await bench.advance(50.0)
        assert (await now(bench, theirs)).state is State.IN_QUEUE, "the minute begins when it goes"
        await bench.advance(14.0)
        assert (await now(bench, theirs)).reason is Reason.FUNCTION_GONE


async def test_nothing_is_gone_while_another_server_cannot_tell_what_it_has(tmp_path: Path) -> None:
    async with clustering(tmp_path, store=lambda clock: Shared(None, clock=clock)) as bench:
        shared(bench).served = None
        left = await queued(bench)
        await bench.advance(200.0)

        assert (await now(bench, left)).state is State.IN_QUEUE


async def test_an_endpoint_loses_a_function_and_its_queue_with_it(tmp_path: Path) -> None:
    both = an_endpoint(functions=(a_function("gpu"), a_function("gpu/upscale")))
    async with clustering(tmp_path, both) as bench:
        busy = await bench.post("/gpu", {}, prefer="respond-async")
        waits = await bench.post("/gpu/upscale", {}, prefer="respond-async")
        bench.apply(an_endpoint(drain_timeout_s=1e6))
        await bench.advance(65.0)

        states = [await now(bench, call.headers["flashfw-job"]) for call in (busy, waits)]
        assert [one.state for one in states] == [State.IN_PROGRESS, State.FAILED]


async def test_the_worker_of_an_endpoint_that_is_removed_says_why_it_goes(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint("gpu")) as bench:
        await queued(bench)
        await bench.advance(1.0)
        bench.apply(an_endpoint("other"))
        await bench.advance(60.0)

        assert [found["why"] for found in bench.named("worker") if found["state"] == "GONE"] == [
            "its endpoint is not served any more"
        ]
