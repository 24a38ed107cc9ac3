"""What `JobStore` promises, tried on every store."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import anyio
import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.store import (
    MAX_CHUNK_BYTES,
    Chunk,
    Count,
    Health,
    IdempotencyConflict,
    QueueFull,
    StoreError,
    TooLarge,
)
from tests.cluster.jobs.conformance import BOOT, BROKEN, BY, DONE, ROOM, STORES, Bench, Kind, a_job, opened

pytestmark = pytest.mark.anyio


async def test_a_job_comes_back_as_it_was_kept(bench: Bench) -> None:
    job = a_job(
        bench.clock,
        "gpu/upscale",
        input=bytes(range(256)),
        priority=-3,
        principal="key-1",
        idempotency_key="k",
        input_digest="d",
        webhook="https://example.com/",
        alone=True,
    )

    assert await bench.store.submit(job, max_queue=ROOM) == job
    assert await bench.store.get(job.id) == job


async def test_a_job_is_looked_at_without_its_input(bench: Bench) -> None:
    for job in (await bench.queued(), await bench.running(), await bench.ended()):
        known = await bench.store.get(job.id)
        assert known is not None
        assert await bench.store.peek(job.id) == dataclasses.replace(known, input=b"")

    bench.clock.advance(60.0)
    assert await bench.store.peek(job.id) is None
    assert await bench.store.peek("nobody") is None


async def test_every_answer_is_what_get_says(bench: Bench) -> None:
    store = bench.store
    job = await bench.running()
    assert await store.get(job.id) == job
    released = await store.release(job.id, job.fence)
    assert released is not None
    assert await store.get(job.id) == released
    (claimed,) = await store.claim(["gpu"], BY)
    assert await store.get(job.id) == claimed
    finished = await store.finish(job.id, claimed.fence, BROKEN)
    assert await store.get(job.id) == finished
    retried = await store.retry(job.id)
    assert await store.get(job.id) == retried
    cancelled = await store.cancel(job.id)
    assert await store.get(job.id) == cancelled


async def test_a_job_submitted_with_a_claim_is_running_at_once(bench: Bench) -> None:
    job = await bench.running()

    assert (job.state, job.attempt, job.fence, job.boot, job.worker) == (State.IN_PROGRESS, 1, 1, BOOT, "worker-1")
    assert job.started_at == bench.clock.now()
    assert await bench.claim_ids() == []


async def test_a_job_that_is_not_due_is_kept_queued_though_a_claim_came_with_it(bench: Bench) -> None:
    job = await bench.running(available_at=bench.clock.now() + 5)

    assert job.state is State.IN_QUEUE


async def test_unknown_jobs_are_none(bench: Bench) -> None:
    store = bench.store

    assert await store.get("nobody") is None
    assert await store.finish("nobody", 1, DONE) is None
    assert await store.release("nobody", 1) is None
    assert await store.lose("nobody", 1, b"{}") is None
    assert await store.cancel("nobody") is None
    assert await store.retry("nobody") is None
    assert await store.chunks("nobody") == []
    assert await store.add_chunks("nobody", 1, [b"1"]) is False
    await store.set_progress("nobody", 1, b"1")


@pytest.mark.parametrize("odd", ["\0", "a\0b", "x" * 10_000, "%", "'"])
async def test_whatever_is_asked_for_is_unknown_or_found(bench: Bench, odd: str) -> None:
    kept = await bench.queued()
    store = bench.store
    assert [await store.get(odd), await store.peek(odd), await store.cancel(odd), await store.retry(odd)] == [None] * 4
    assert (await store.list(before=odd), await store.list(function=odd), await store.find(odd, limit=9)) == (
        [],
        [],
        [],
    )
    assert (await store.chunks(odd), await store.story(odd), await store.purge(odd)) == ([], [], 0)
    assert [job.id for job in await store.list()] == [kept.id]


async def test_claims_go_by_priority_and_then_by_submission_over_all_functions(bench: Bench) -> None:
    first = await bench.queued("gpu")
    second = await bench.queued("gpu/upscale")
    urgent = await bench.queued("gpu/upscale", priority=7)
    late = await bench.queued("gpu", priority=-1)
    await bench.queued("other")

    assert await bench.claim_ids("gpu", "gpu/upscale", limit=3) == [urgent.id, first.id, second.id]
    assert await bench.claim_ids("gpu", "gpu/upscale", "nothing", limit=3) == [late.id]


async def test_a_released_job_keeps_its_place(bench: Bench) -> None:
    first = await bench.queued()
    await bench.queued()
    (claimed,) = await bench.store.claim(["gpu"], BY)
    await bench.store.release(first.id, claimed.fence)

    assert await bench.claim_ids() == [first.id]


async def test_no_job_is_claimed_twice_however_many_ask(bench: Bench) -> None:
    jobs = [await bench.queued() for _ in range(20)]

    claims = await asyncio.gather(*(bench.store.claim(["gpu"], BY) for _ in range(40)))

    assert sorted(job.id for claim in claims for job in claim) == sorted(job.id for job in jobs)


async def test_a_job_is_claimed_when_it_is_due(bench: Bench) -> None:
    later = await bench.queued(available_at=bench.clock.now() + 30, priority=9)
    now = await bench.queued()

    assert await bench.claim_ids(limit=2) == [now.id]
    assert await bench.store.oldest_waiting(["gpu"]) is None
    bench.clock.advance(30)
    assert await bench.store.oldest_waiting(["gpu"]) == later.submitted_at
    assert await bench.claim_ids(limit=2) == [later.id]


async def test_the_oldest_waiting_is_by_submission_whatever_its_priority(bench: Bench) -> None:
    assert await bench.store.oldest_waiting(["gpu"]) is None
    first = await bench.queued("gpu")
    bench.clock.advance(1)
    await bench.queued("gpu", priority=5)

    assert await bench.store.oldest_waiting(["other"]) is None
    assert await bench.store.oldest_waiting(["other", "gpu"]) == first.submitted_at


async def test_a_writer_with_an_older_fence_changes_nothing(bench: Bench) -> None:
    store = bench.store
    old = await bench.running()
    await store.release(old.id, old.fence)
    (new,) = await store.claim(["gpu"], BY)

    assert await store.finish(old.id, old.fence, DONE) is None
    assert await store.release(old.id, old.fence) is None
    assert await store.lose(old.id, old.fence, b"{}") is None
    assert await store.add_chunks(old.id, old.fence, [b"1"]) is False
    await store.set_progress(old.id, old.fence, b"1")
    assert await store.get(old.id) == new
    assert await store.chunks(old.id) == []


async def test_the_terminal_record_is_written_once(bench: Bench) -> None:
    job = await bench.running()

    ends = await asyncio.gather(*(bench.store.finish(job.id, job.fence, end) for end in (DONE, BROKEN, DONE)))

    assert [end is None for end in ends] == [False, True, True]
    assert await bench.store.cancel(job.id) is None
    assert await bench.store.get(job.id) == ends[0]


async def test_a_job_may_end_and_the_next_begin_in_one_transaction(bench: Bench) -> None:
    store, job, waiting = bench.store, await bench.running(), await bench.queued()

    ended, begun = await store.finish_and_claim(job.id, job.fence, DONE, claim=BY, functions=["gpu"])
    assert ended is not None
    assert begun is not None
    assert (ended.id, ended.state) == (job.id, State.COMPLETED)
    assert (begun.id, begun.state) == (waiting.id, State.IN_PROGRESS)
    assert await store.finish_and_claim(job.id, job.fence, DONE, claim=BY, functions=["gpu"]) == (None, None)


async def test_the_third_death_of_a_worker_ends_the_job(bench: Bench) -> None:
    job = await bench.running()
    for deaths in (1, 2):
        lost = await bench.store.lose(job.id, job.fence, b'"gone"')
        assert lost is not None
        assert (lost.state, lost.deaths) == (State.IN_QUEUE, deaths)
        (job,) = await bench.store.claim(["gpu"], BY)
    lost = await bench.store.lose(job.id, job.fence, b'"gone"')

    assert lost is not None
    assert (lost.state, lost.reason, lost.deaths, lost.error) == (State.FAILED, Reason.WORKER_LOST, 3, b'"gone"')
    assert await bench.claim_ids() == []
    assert bench.store.health("gpu") == Health(queued=0, running=0, completed=0, failed=1, retried=2)


async def test_a_job_that_killed_its_workers_may_end_for_another_reason(bench: Bench) -> None:
    job = await bench.running()
    for _ in range(2):
        await bench.store.lose(job.id, job.fence, b"{}")
        (job,) = await bench.store.claim(["gpu"], BY)
    lost = await bench.store.lose(job.id, job.fence, b"{}", reason=Reason.OOM)

    assert lost is not None
    assert (lost.state, lost.reason) == (State.FAILED, Reason.OOM)


async def test_a_cancelled_job_is_not_claimed_and_its_worker_is_discarded(bench: Bench) -> None:
    queued, running = await bench.queued(), await bench.running()
    for job in (queued, running):
        cancelled = await bench.store.cancel(job.id)
        assert cancelled is not None
        assert (cancelled.state, cancelled.reason) == (State.CANCELLED, Reason.CANCELLED)

    assert await bench.claim_ids() == []
    assert await bench.store.finish(running.id, running.fence, DONE) is None


async def test_a_job_asked_for_anew_has_a_fresh_life(bench: Bench) -> None:
    job = await bench.ended(BROKEN)
    bench.clock.advance(30)
    retried = await bench.store.retry(job.id)

    assert retried is not None
    assert (retried.state, retried.reason, retried.error, retried.finished_at) == (State.IN_QUEUE, None, None, None)
    assert retried.expires_at == bench.clock.now() + 100
    bench.clock.advance(60)  # the earlier result would be forgotten by now
    (again,) = await bench.store.claim(["gpu"], BY)
    assert (again.id, again.attempt, again.fence) == (job.id, 1, 2)
    assert await bench.store.retry(job.id) is None
    assert await bench.store.finish(job.id, again.fence, DONE) is not None
    assert await bench.store.retry(job.id) is None


async def test_waiting_jobs_end_with_their_ttl(bench: Bench) -> None:
    old, parked = await bench.queued(), await bench.queued(available_at=bench.clock.now() + 1000)
    running = await bench.running()
    bench.clock.advance(99)
    young = await bench.queued()
    bench.clock.advance(1)

    assert await bench.claim_ids(limit=5) == [young.id]
    ended = await bench.store.expire()
    assert {job.id for job in ended} == {old.id, parked.id}
    assert {(job.state, job.reason) for job in ended} == {(State.TIMED_OUT, Reason.EXPIRED)}
    assert await bench.store.expire() == []
    assert await bench.store.finish(running.id, running.fence, DONE) is not None


async def test_a_sweep_ends_at_most_its_limit(bench: Bench) -> None:
    for _ in range(5):
        await bench.queued()
    bench.clock.advance(100)

    assert [len(await bench.store.expire(limit=3)) for _ in range(3)] == [3, 2, 0]


async def test_a_result_is_gone_after_its_ttl_swept_or_not(bench: Bench) -> None:
    job = await bench.ended(BROKEN)
    chunked = await bench.running()
    await bench.store.add_chunks(chunked.id, chunked.fence, [b"1"])
    await bench.store.finish(chunked.id, chunked.fence, DONE)
    bench.clock.advance(49.9)
    assert await bench.store.get(job.id) == job
    bench.clock.advance(0.1)

    assert await bench.store.get(job.id) is None
    assert await bench.store.chunks(chunked.id) == []
    assert await bench.store.retry(job.id) is None
    assert await bench.store.list() == []
    assert await bench.store.expire() == []
    assert await bench.store.counts() == []
    assert bench.store.health("gpu").completed == 1


async def test_a_full_queue_refuses_what_would_wait(bench: Bench) -> None:
    store = bench.store
    for _ in range(2):
        await store.submit(a_job(bench.clock), max_queue=2)
    refused = a_job(bench.clock)

    with pytest.raises(QueueFull, match="gpu has 2 jobs waiting"):
        await store.submit(refused, max_queue=2)
    assert await store.get(refused.id) is None
    assert (await store.submit(a_job(bench.clock), max_queue=2, claim=BY)).state is State.IN_PROGRESS
    await store.submit(a_job(bench.clock, "other"), max_queue=2)
    await store.claim(["gpu"], BY)
    await store.submit(refused, max_queue=2)


async def test_a_full_queue_holds_among_calls_of_one_moment(bench: Bench) -> None:
    jobs = [a_job(bench.clock) for _ in range(30)]
    answers = await asyncio.gather(*(bench.store.submit(job, max_queue=7) for job in jobs), return_exceptions=True)

    assert [isinstance(answer, Job) for answer in answers] == [True] * 7 + [False] * 23
    assert bench.store.pending(["gpu"]).total == 7


async def test_an_idempotency_key_gives_the_earlier_job(bench: Bench) -> None:
    first = await bench.queued(idempotency_key="k", input_digest="d")

    assert await bench.queued(idempotency_key="k", input_digest="d") == first
    assert await bench.running(idempotency_key="k", input_digest="d") == first
    with pytest.raises(IdempotencyConflict, match="'k' of gpu"):
        await bench.queued(idempotency_key="k", input_digest="another")
    other = await bench.queued(idempotency_key="k", input_digest="another", principal="somebody else")
    elsewhere = await bench.queued("other", idempotency_key="k", input_digest="another")
    assert len({first.id, other.id, elsewhere.id}) == 3
    assert bench.store.pending(["gpu", "other"]).total == 3


async def test_duplicates_of_one_moment_are_one_job(bench: Bench) -> None:
    jobs = await asyncio.gather(*(bench.queued(idempotency_key="k", input_digest="d") for _ in range(10)))

    assert len({job.id for job in jobs}) == 1


async def test_an_idempotency_key_is_free_when_the_result_is_forgotten(bench: Bench) -> None:
    first = await bench.ended(idempotency_key="k", input_digest="d")
    bench.clock.advance(50)
    second = await bench.queued(idempotency_key="k", input_digest="another")

    assert second.id != first.id
    assert await bench.store.get(second.id) == second


async def test_a_purge_cancels_what_is_queued_and_nothing_else(bench: Bench) -> None:
    running, other = await bench.running(), await bench.queued("other")
    queued = [await bench.queued() for _ in range(3)]
    parked = await bench.queued(available_at=bench.clock.now() + 10)

    assert await bench.store.purge("gpu") == 4
    for job in (*queued, parked):
        after = await bench.store.get(job.id)
        assert after is not None
        assert after.state is State.CANCELLED
    assert await bench.store.get(running.id) == running
    assert await bench.store.get(other.id) == other
    assert await bench.store.purge("gpu") == 0


async def test_a_purge_of_many_jobs_counts_them_all(bench: Bench) -> None:
    await asyncio.gather(*(bench.queued() for _ in range(1203)))

    assert await bench.store.purge("gpu") == 1203
    assert bench.store.pending(["gpu"]).total == 0


async def test_a_job_is_refused_while_nobody_has_it(bench: Bench) -> None:
    end = End(state=State.FAILED, reason=Reason.STARTUP, error=b'{"type":"ImportError"}')
    queued, running = await bench.queued(), await bench.running()

    refused = await bench.store.refuse(queued.id, end)

    assert refused is not None
    assert (refused.state, refused.reason, refused.error) == (State.FAILED, Reason.STARTUP, end.error)
    assert await bench.store.get(queued.id) == refused
    assert bench.store.pending(["gpu"]).total == 0
    assert await bench.store.refuse(queued.id, end) is None
    assert await bench.store.refuse(running.id, end) is None
    assert await bench.store.refuse("nobody", end) is None


async def test_chunks_are_numbered_on(bench: Bench) -> None:
    job = await bench.running()

    assert await bench.store.add_chunks(job.id, job.fence, [b"a", b"b"])
    assert await bench.store.add_chunks(job.id, job.fence, [])
    assert await bench.store.add_chunks(job.id, job.fence, [b"c"])
    assert await bench.store.chunks(job.id) == [Chunk(1, 0, b"a"), Chunk(1, 1, b"b"), Chunk(1, 2, b"c")]
    await bench.store.finish(job.id, job.fence, DONE)
    assert await bench.store.chunks(job.id, after=1) == [Chunk(1, 2, b"c")]
    assert await bench.store.add_chunks(job.id, job.fence, [b"d"]) is False


async def test_chunks_are_read_in_bites_of_at_least_one(bench: Bench) -> None:
    job = await bench.running()
    await bench.store.add_chunks(job.id, job.fence, [b"aa", b"bb", b"cc"])

    async def read(up_to_bytes: int, after: int = -1) -> list[int]:
        return [chunk.index for chunk in await bench.store.chunks(job.id, after=after, up_to_bytes=up_to_bytes)]

    assert [await read(0), await read(3), await read(4), await read(100)] == [[0], [0], [0, 1], [0, 1, 2]]
    assert await read(2, after=1) == [2]


async def test_a_new_claim_begins_its_chunks_anew_though_its_attempt_has_the_same_number(bench: Bench) -> None:
    job = await bench.running()
    await bench.store.add_chunks(job.id, job.fence, [b"a", b"b"])
    await bench.store.release(job.id, job.fence)
    assert len(await bench.store.chunks(job.id)) == 2
    (again,) = await bench.store.claim(["gpu"], BY)

    assert again.attempt == job.attempt
    assert await bench.store.chunks(job.id) == []
    await bench.store.add_chunks(job.id, again.fence, [b"c"])
    assert await bench.store.chunks(job.id) == [Chunk(1, 0, b"c")]


async def test_chunks_beyond_the_limit_are_refused_whole(bench: Bench) -> None:
    job = await bench.running()
    half = bytes(MAX_CHUNK_BYTES // 2)
    await bench.store.add_chunks(job.id, job.fence, [half])

    with pytest.raises(TooLarge, match="more than 20 MB"):
        await bench.store.add_chunks(job.id, job.fence, [half, b"1"])
    assert await bench.store.add_chunks(job.id, job.fence, [half])
    assert [chunk.index for chunk in await bench.store.chunks(job.id)] == [0, 1]


async def test_progress_is_the_latest_of_the_running_attempt(bench: Bench) -> None:
    job = await bench.running()
    await bench.store.set_progress(job.id, job.fence, b"0.1")
    await bench.store.set_progress(job.id, job.fence, b"0.2")
    seen = await bench.store.get(job.id)
    assert seen is not None
    assert seen.progress == b"0.2"

    released = await bench.store.release(job.id, job.fence)
    assert released is not None
    assert released.progress is None


async def test_jobs_are_listed_newest_first(bench: Bench) -> None:
    first, other, last = await bench.queued(), await bench.queued("other"), await bench.running()

    async def ids(**wanted: object) -> list[str]:
        return [job.id for job in await bench.store.list(**wanted)]  # type: ignore[arg-type]

    assert await ids() == [last.id, other.id, first.id]
    assert await ids(limit=2) == [last.id, other.id]
    assert await ids(function="gpu") == [last.id, first.id]
    assert await ids(state=State.IN_QUEUE) == [other.id, first.id]
    assert await ids(function="gpu", state=State.IN_QUEUE) == [first.id]


async def test_a_list_leaves_out_what_may_be_large(bench: Bench) -> None:
    made = await bench.ended()
    (listed,) = await bench.store.list()

    assert (listed.input, listed.output, listed.progress) == (b"", None, None)
    assert dataclasses.replace(listed, input=made.input, output=made.output) == made


async def test_ids_are_found_by_any_part_of_them(bench: Bench) -> None:
    for name in ("01-aa-77", "02-ab-77", "03-%_-78"):
        await bench.queued(id=name)

    assert list(await bench.store.find("77", limit=9)) == ["02-ab-77", "01-aa-77"]
    assert list(await bench.store.find("-7", limit=2)) == ["03-%_-78", "02-ab-77"]
    assert list(await bench.store.find("01-aa-77", limit=9)) == ["01-aa-77"]
    assert list(await bench.store.find("%_", limit=9)) == ["03-%_-78"]
    assert list(await bench.store.find("AA", limit=9)) == []


async def test_counts_are_exact(bench: Bench) -> None:
    store = bench.store
    assert store.health("gpu") == Health(queued=0, running=0, completed=0, failed=0, retried=0)
    await bench.queued("other")
    await bench.queued()
    await bench.running()
    await bench.ended()
    await store.retry((await bench.ended(BROKEN)).id)

    assert await store.counts() == [
        Count("gpu", State.COMPLETED, 1),
        Count("gpu", State.IN_PROGRESS, 1),
        Count("gpu", State.IN_QUEUE, 2),
        Count("other", State.IN_QUEUE, 1),
    ]
    assert store.health("gpu") == Health(queued=2, running=1, completed=1, failed=1, retried=1)
    assert store.pending(["gpu", "other", "nothing"]).total == 3


async def test_a_call_that_fails_undoes_no_other_of_its_moment(bench: Bench) -> None:
    jobs = [a_job(bench.clock) for _ in range(9)]
    calls = [bench.store.submit(job, max_queue=ROOM) for job in (*jobs[:5], jobs[0], *jobs[5:])]
    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(answer) for answer in answers] == [Job] * 5 + [StoreError] + [Job] * 4
    assert bench.store.pending(["gpu"]).total == 9
    assert len(await bench.store.list()) == 9


async def test_a_call_whose_caller_has_left_disturbs_nobody(bench: Bench) -> None:
    gone = asyncio.ensure_future(bench.queued())
    await asyncio.sleep(0)
    gone.cancel()
    job = await bench.queued()

    assert await bench.store.get(job.id) == job
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_ten_megabytes_go_in_and_out(bench: Bench) -> None:
    large = bytes(10_000_000)
    job = await bench.running(input=large)
    ended = await bench.store.finish(job.id, job.fence, DONE)

    assert ended is not None
    assert (await bench.store.get(job.id)) == ended
    assert ended.input == large


async def test_a_closed_store_says_so(bench: Bench) -> None:
    job = await bench.queued()
    await bench.store.close()
    await bench.store.close()

    for call in (bench.store.get(job.id), bench.store.claim(["gpu"], BY), bench.store.counts()):
        with pytest.raises(StoreError, match="not open"):
            await call


async def test_a_store_is_closed_though_its_server_is_being_cancelled(bench: Bench) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bench.store.close()

    await bench.store.open(BOOT)


async def test_work_in_several_transactions_ends_with_an_error_when_the_store_is_closed(bench: Bench) -> None:
    await asyncio.gather(*(bench.queued() for _ in range(1100)))
    purge = asyncio.ensure_future(bench.store.purge("gpu"))
    await asyncio.sleep(0)
    await bench.store.close()

    with pytest.raises(StoreError, match="not open"):
        await purge


async def test_a_store_is_opened_once(bench: Bench) -> None:
    with pytest.raises(StoreError, match="open already"):
        await bench.store.open(BOOT)


async def test_what_was_asked_before_closing_is_done(bench: Bench) -> None:
    jobs = [asyncio.ensure_future(bench.queued()) for _ in range(50)]
    await asyncio.sleep(0)
    await bench.store.close()

    assert {(await job).state for job in jobs} == {State.IN_QUEUE}


DURABLE = pytest.mark.parametrize("kind", [kind for kind in STORES if kind.is_durable], ids=lambda kind: kind.name)


@DURABLE
async def test_a_new_server_finds_all_and_requeues_what_the_dead_one_had(kind: Kind, tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(kind.make(tmp_path, clock)) as store:
        bench = Bench(store, clock)
        running, ended, queued = await bench.running(), await bench.ended(), await bench.queued()
        before = await store.counts()
    store = kind.make(tmp_path, clock)

    assert await store.open("boot-2") == 1
    try:
        orphan = await store.get(running.id)
        assert orphan is not None
        assert (orphan.state, orphan.attempt, orphan.boot) == (State.IN_QUEUE, 0, None)
        assert [await store.get(job.id) for job in (ended, queued)] == [ended, queued]
        assert sum(count.jobs for count in await store.counts()) == sum(count.jobs for count in before)
        assert store.health("gpu") == Health(queued=2, running=0, completed=1, failed=0, retried=0)
        (again,) = await store.claim(["gpu"], Claimer(boot="boot-2", worker="w"))
        assert (again.id, again.fence) == (running.id, running.fence + 1)
        assert await store.finish(running.id, running.fence, DONE) is None
    finally:
        await store.close()


@DURABLE
async def test_the_same_server_keeps_its_claims(kind: Kind, tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(kind.make(tmp_path, clock)) as store:
        running = await Bench(store, clock).running()
    async with opened(kind.make(tmp_path, clock)) as store:
        assert await store.get(running.id) == running
