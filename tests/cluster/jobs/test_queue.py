"""What waits in a queue: retries, jobs that must be alone, priorities, dead letters, on every store."""

from __future__ import annotations

import pytest

from flashfw.cluster.jobs.model import End, Job, Reason, State
from flashfw.cluster.jobs.store import Health, Pending
from tests.cluster.jobs.conformance import BROKEN, BY, DONE, ROOM, Bench, a_job

pytestmark = pytest.mark.anyio

GONE = End(state=State.FAILED, reason=Reason.FUNCTION_GONE, error=b'{"type":"FunctionGone"}')


async def rescheduled(bench: Bench, after_s: float, **changes: object) -> Job:
    job = await bench.running(**changes)  # type: ignore[arg-type]
    after = await bench.store.reschedule(job.id, job.fence, b'"broken"', bench.clock.now() + after_s)
    assert after is not None
    return after


async def must_be_alone(bench: Bench, **changes: object) -> Job:
    job = await bench.running(**changes)  # type: ignore[arg-type]
    after = await bench.store.lose(job.id, job.fence, b'"gone"', alone=True)
    assert after is not None
    return after


async def test_a_job_to_be_tried_again_waits_for_its_time(bench: Bench) -> None:
    store = bench.store
    job = await rescheduled(bench, 30)

    assert (job.state, job.attempt, job.deaths, job.error) == (State.IN_QUEUE, 1, 0, b'"broken"')
    assert (job.available_at, job.boot, job.worker, job.started_at) == (bench.clock.now() + 30, None, None, None)
    assert await store.get(job.id) == job
    assert store.pending(["gpu"]) == Pending(claimable=0, parked=1)
    assert await bench.claim_ids() == []
    assert await store.unpark() == job.available_at
    bench.clock.advance(30)
    assert store.pending(["gpu"]).parked == 1
    assert await store.unpark() is None
    assert store.pending(["gpu"]) == Pending(claimable=1)
    (again,) = await store.claim(["gpu"], BY)
    assert (again.id, again.attempt, again.fence, again.error) == (job.id, 2, 2, b'"broken"')
    assert store.health("gpu") == Health(queued=0, running=1, completed=0, failed=0, retried=1)
    done = await store.finish(job.id, 2, DONE)
    assert done is not None
    assert (done.state, done.error) == (State.COMPLETED, None)


async def test_a_job_to_be_tried_again_at_once_is_claimable_at_once(bench: Bench) -> None:
    job = await rescheduled(bench, 0)

    assert bench.store.pending(["gpu"]) == Pending(claimable=1)
    assert await bench.claim_ids() == [job.id]


async def test_only_the_claim_itself_may_be_tried_again(bench: Bench) -> None:
    job = await bench.running()

    assert await bench.store.reschedule(job.id, job.fence + 1, b"{}", 0) is None
    assert await bench.store.reschedule("nobody", 1, b"{}", 0) is None
    await bench.store.cancel(job.id)
    assert await bench.store.reschedule(job.id, job.fence, b"{}", 0) is None
    assert bench.store.health("gpu").retried == 0


async def test_the_earliest_of_those_that_wait_says_when_to_look_again(bench: Bench) -> None:
    assert await bench.store.unpark() is None
    late, soon = await rescheduled(bench, 50), await rescheduled(bench, 20, function="other")

    assert await bench.store.unpark() == soon.available_at
    bench.clock.advance(20)
    assert await bench.store.unpark() == late.available_at
    assert bench.store.pending(["gpu", "other"]) == Pending(claimable=1, parked=1)


async def test_one_that_waits_for_a_retry_keeps_its_place_by_submission(bench: Bench) -> None:
    first = await rescheduled(bench, 5)
    second = await bench.queued()
    bench.clock.advance(5)

    assert await bench.claim_ids(limit=2) == [first.id, second.id]


@pytest.mark.parametrize("way", ["cancel", "refuse", "purge", "refuse_all", "expire"])
async def test_one_that_waits_for_a_retry_may_end_meanwhile(bench: Bench, way: str) -> None:
    store, parked = bench.store, await rescheduled(bench, 200, priority=-1)
    match way:
        case "cancel":
            await store.cancel(parked.id)
        case "refuse":
            await store.refuse(parked.id, GONE)
        case "purge":
            assert await store.purge("gpu") == 1
        case "refuse_all":
            assert await store.refuse_all("gpu", GONE) == 1
        case "expire":
            bench.clock.advance(100)
            assert [job.id for job in await store.expire()] == [parked.id]

    ended = await store.get(parked.id)
    assert ended is not None
    assert ended.state.is_terminal
    assert store.pending(["gpu"]) == Pending()
    await bench.queued(priority=-1)
    assert store.pending(["gpu"]) == Pending(claimable=1, low=1)


async def test_what_is_pending_is_told_apart(bench: Bench) -> None:
    store = bench.store
    await bench.queued()
    await bench.queued(priority=-1)
    await bench.queued(priority=-1, available_at=bench.clock.now() + 5)
    await must_be_alone(bench)
    await must_be_alone(bench, priority=-2)
    await bench.queued(alone=True, available_at=bench.clock.now() + 5)
    await bench.queued("other", priority=-1)

    assert store.pending(["gpu"]) == Pending(claimable=4, parked=2, low=2, alone=2)
    assert store.pending(["gpu"]).total == 6
    assert store.pending(["gpu", "other", "nothing"]) == Pending(claimable=5, parked=2, low=3, alone=2)
    bench.clock.advance(5)
    await store.unpark()
    assert store.pending(["gpu"]) == Pending(claimable=6, low=3, alone=3)
    while await store.claim(["gpu"], BY, limit=3):
        pass
    assert store.pending(["gpu"]) == Pending()


async def test_who_waits_with_low_priority_is_not_the_oldest_that_waits(bench: Bench) -> None:
    await bench.queued(priority=-1)
    assert await bench.store.oldest_waiting(["gpu"]) is None
    bench.clock.advance(3)
    job = await bench.queued()

    assert await bench.store.oldest_waiting(["gpu"]) == job.submitted_at


async def test_a_job_whose_worker_died_beside_others_runs_alone(bench: Bench) -> None:
    store = bench.store
    lonely = await must_be_alone(bench)
    assert lonely.alone
    assert await store.get(lonely.id) == lonely
    others = [await bench.queued() for _ in range(3)]

    assert [job.id for job in await store.claim(["gpu"], BY, limit=2, alone=False)] == [job.id for job in others[:2]]
    (claimed,) = await store.claim(["gpu"], BY, limit=2)
    assert (claimed.id, claimed.alone) == (lonely.id, True)
    assert await bench.claim_ids(limit=2) == [others[2].id]
    assert store.pending(["gpu"]) == Pending()


async def test_one_that_must_be_alone_is_passed_over_by_who_takes_several(bench: Bench) -> None:
    lonely = await must_be_alone(bench)
    urgent = [await bench.queued(priority=1) for _ in range(2)]
    late = await bench.queued()

    assert await bench.claim_ids(limit=4) == [urgent[0].id, urgent[1].id, late.id]
    assert await bench.claim_ids(limit=4) == [lonely.id]


async def test_one_that_must_be_alone_is_not_the_next_of_a_worker_with_other_calls(bench: Bench) -> None:
    store, job, lonely = bench.store, await bench.running(), await must_be_alone(bench)

    claiming = {"claim": BY, "functions": ["gpu"]}
    ended, begun = await store.finish_and_claim(job.id, job.fence, DONE, **claiming, alone=False)  # type: ignore[arg-type]
    assert ended is not None
    assert begun is None
    assert await store.finish_and_claim(job.id, job.fence, DONE, claim=BY, functions=["gpu"]) == (
        None,
        await store.get(lonely.id),
    )


async def test_a_job_need_not_be_alone_for_ever(bench: Bench) -> None:
    store, lonely = bench.store, await must_be_alone(bench)
    (claimed,) = await store.claim(["gpu"], BY)
    released = await store.release(claimed.id, claimed.fence)
    assert released is not None
    assert released.alone
    (claimed,) = await store.claim(["gpu"], BY)
    lost = await store.lose(claimed.id, claimed.fence, b"{}")
    assert lost is not None
    assert lost.alone
    (claimed,) = await store.claim(["gpu"], BY)
    again = await store.reschedule(claimed.id, claimed.fence, b"{}", 0)
    assert again is not None
    assert not again.alone  # its worker outlived it
    assert (await store.cancel(lonely.id), store.pending(["gpu"])) == (await store.get(lonely.id), Pending())

    ended = await store.cancel((await must_be_alone(bench)).id)
    assert ended is not None
    assert not ended.alone


async def test_a_function_that_is_gone_ends_all_that_waits_for_it(bench: Bench) -> None:
    store, running, other = bench.store, await bench.running(), await bench.queued("other")
    queued = [await bench.queued(priority=priority) for priority in (0, 0, -1)]
    parked = await rescheduled(bench, 10)

    assert await store.refuse_all("gpu", GONE) == 4
    for job in (*queued, parked):
        ended = await store.get(job.id)
        assert ended is not None
        assert (ended.state, ended.reason, ended.error) == (State.FAILED, Reason.FUNCTION_GONE, GONE.error)
    assert await store.get(running.id) == running
    assert await store.get(other.id) == other
    assert await store.refuse_all("gpu", GONE) == 0
    assert store.pending(["gpu"]) == Pending()


async def test_a_queue_of_many_is_refused_in_bites(bench: Bench) -> None:
    for _ in range(1003):
        job = await bench.queued()

    assert await bench.store.refuse_all("gpu", GONE) == 1003
    ended = await bench.store.get(job.id)
    assert ended is not None
    assert ended.reason is Reason.FUNCTION_GONE


async def test_dead_letters_are_those_that_failed_after_more_than_one_attempt(bench: Bench) -> None:
    store = bench.store
    await bench.ended(BROKEN)
    used_up = await rescheduled(bench, 0)
    (claimed,) = await store.claim(["gpu"], BY)
    await store.finish(claimed.id, claimed.fence, BROKEN)
    quarantined = await bench.running("other")
    for _ in range(3):
        await store.lose(quarantined.id, quarantined.fence, b"{}")
        quarantined = next(iter(await store.claim(["other"], BY)), quarantined)
    saved = await rescheduled(bench, 0)
    (claimed,) = await store.claim(["gpu"], BY)
    await store.finish(claimed.id, claimed.fence, DONE)

    dead = await store.list(dead=True)
    assert [job.id for job in dead] == [quarantined.id, used_up.id]
    assert [job.is_dead_letter for job in await store.list()] == [False, True, True, False]
    assert [job.id for job in await store.list(dead=True, function="gpu")] == [used_up.id]
    assert [job.id for job in await store.list(dead=True, before=quarantined.id)] == [used_up.id]
    assert await store.list(dead=True, state=State.COMPLETED) == []
    await store.retry(used_up.id)
    assert [job.id for job in await store.list(dead=True)] == [quarantined.id]
    assert saved.id not in [job.id for job in dead]


async def test_lists_go_on_from_a_job(bench: Bench) -> None:
    jobs = [await bench.queued("gpu" if number % 2 else "other") for number in range(6)]
    ids = [job.id for job in reversed(jobs)]

    async def page(before: str | None, function: str | None = None) -> list[str]:
        return [job.id for job in await bench.store.list(before=before, function=function, limit=2)]

    assert await page(None) == ids[:2]
    assert await page(ids[1]) == ids[2:4]
    assert await page(ids[1], "gpu") == [ids[2], ids[4]]
    assert await page(ids[5]) == []
    assert await page("nobody") == []


async def test_a_server_that_is_alone_recovers_nothing(bench: Bench) -> None:
    job = await bench.running()

    assert await bench.store.recover() == 0
    assert await bench.store.get(job.id) == job


async def test_a_job_that_is_queued_again_counts_once(bench: Bench) -> None:
    for _ in range(3):
        job = await rescheduled(bench, 1, priority=-1)
    bench.clock.advance(1)
    await bench.claim_ids(limit=2)
    await bench.store.submit(a_job(bench.clock, priority=-1), max_queue=ROOM)

    assert bench.store.pending(["gpu"]) == Pending(claimable=2, low=2)
    assert job.attempt == 1


async def test_a_clock_that_goes_back_a_little_lets_no_job_keep_the_others_from_their_turn(bench: Bench) -> None:
    first = await rescheduled(bench, 30, priority=1)
    second = await bench.queued()
    bench.clock.advance(30)
    await bench.store.unpark()
    bench.clock.advance(-0.5)

    assert await bench.claim_ids() == [second.id]
    bench.clock.advance(0.5)
    assert await bench.claim_ids() == [first.id]


async def test_a_clock_that_is_set_back_lets_nobody_wait_for_longer(bench: Bench) -> None:
    store = bench.store
    job = await rescheduled(bench, 30)
    ended = await bench.ended(webhook="https://example.com/")
    (delivery,) = await store.deliveries(limit=1, lease_s=20)
    bench.clock.advance(-100_000)

    assert await store.unpark() == bench.clock.now() + 30
    assert await bench.claim_ids() == []
    assert await store.deliveries(limit=1, lease_s=20) == []
    bench.clock.advance(30)
    assert await store.deliveries(limit=1, lease_s=20) == [delivery]
    assert await bench.claim_ids() == [job.id]
    assert await store.get(ended.id) == ended


async def test_a_job_that_ran_when_the_clock_was_set_back_need_not_wait(bench: Bench) -> None:
    await rescheduled(bench, 30)
    bench.clock.advance(30)
    (job,) = await bench.store.claim(["gpu"], BY)
    bench.clock.advance(-100_000)
    await bench.store.lose(job.id, job.fence, b"{}")

    assert await bench.claim_ids() == [job.id]
