"""Deliveries to webhooks, on every store: one for each terminal record, in its transaction, until it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from flashfw.cluster.jobs.model import End, Job, Reason, State
from flashfw.cluster.jobs.store import Delivery
from tests.cluster.jobs.conformance import BROKEN, BY, DONE, Bench

pytestmark = pytest.mark.anyio

HOOK = "https://example.com/hook"
GONE = End(state=State.FAILED, reason=Reason.FUNCTION_GONE, error=b'{"type":"FunctionGone"}')


async def due(bench: Bench, limit: int = 100) -> list[Delivery]:
    return list(await bench.store.deliveries(limit=limit, lease_s=20))


async def lose_three_times(bench: Bench, job: Job) -> None:
    for _ in range(3):
        (claimed,) = await bench.store.claim(["gpu"], BY)
        await bench.store.lose(job.id, claimed.fence, b"{}")


async def finish(bench: Bench, job: Job) -> None:
    (claimed,) = await bench.store.claim(["gpu"], BY)
    await bench.store.finish(job.id, claimed.fence, DONE)


async def finish_and_claim(bench: Bench, job: Job) -> None:
    (claimed,) = await bench.store.claim(["gpu"], BY)
    await bench.store.finish_and_claim(job.id, claimed.fence, BROKEN, claim=BY, functions=["gpu"])


async def expire(bench: Bench, job: Job) -> None:
    bench.clock.advance(100)
    await bench.store.expire()


ENDS: dict[str, Callable[[Bench, Job], Awaitable[object]]] = {
    "finish": finish,
    "finish_and_claim": finish_and_claim,
    "lose": lose_three_times,
    "cancel": lambda bench, job: bench.store.cancel(job.id),
    "refuse": lambda bench, job: bench.store.refuse(job.id, GONE),
    "refuse_all": lambda bench, job: bench.store.refuse_all("gpu", GONE),
    "purge": lambda bench, job: bench.store.purge("gpu"),
    "expire": expire,
}


@pytest.mark.parametrize("way", ENDS)
async def test_however_a_job_ends_there_is_one_delivery_of_its_end(bench: Bench, way: str) -> None:
    job = await bench.queued(webhook=HOOK)
    await ENDS[way](bench, job)

    (delivery,) = await due(bench)
    assert delivery.job == await bench.store.get(job.id)
    assert delivery.job.state.is_terminal
    assert (delivery.tries, delivery.created_at) == (0, bench.clock.now())


async def test_what_is_no_end_is_delivered_to_nobody(bench: Bench) -> None:
    await bench.ended()
    for _ in range(3):
        await bench.running(webhook=HOOK)
    lost, retried, released = await bench.store.list(state=State.IN_PROGRESS)
    await bench.store.lose(lost.id, lost.fence, b"{}")
    await bench.store.reschedule(retried.id, retried.fence, b"{}", 0)
    await bench.store.release(released.id, released.fence)

    assert await due(bench) == []


async def test_a_delivery_is_hidden_while_it_is_tried_and_gone_once_it_is_made(bench: Bench) -> None:
    await bench.ended(webhook=HOOK)
    (first,) = await due(bench)
    assert await due(bench) == []
    bench.clock.advance(20)

    assert await due(bench) == [first]
    await bench.store.delivered(first.id)
    bench.clock.advance(20)
    assert await due(bench) == []
    await bench.store.delivered(first.id)
    await bench.store.undelivered(first.id, error="late", retry_at=0)
    assert await due(bench) == []


async def test_a_delivery_that_failed_is_due_when_it_was_said(bench: Bench) -> None:
    await bench.ended(webhook=HOOK)
    (first,) = await due(bench)
    await bench.store.undelivered(first.id, error="HTTP 500", retry_at=bench.clock.now() + 5)
    assert await due(bench) == []
    bench.clock.advance(5)

    (again,) = await due(bench)
    assert (again.id, again.tries, again.created_at) == (first.id, 1, first.created_at)
    await bench.store.undelivered(first.id, error="HTTP 410", retry_at=None)
    bench.clock.advance(1_000_000)
    assert await due(bench) == []


async def test_a_delivery_fails_with_whatever_a_receiver_says(bench: Bench) -> None:
    await bench.ended(webhook="https://example.com/hook")
    (due,) = await bench.store.deliveries(limit=1, lease_s=1.0)
    await bench.store.undelivered(due.id, error="answered 500: no\0 \N{CAT}", retry_at=bench.clock.now())

    assert [delivery.tries for delivery in await bench.store.deliveries(limit=1, lease_s=1.0)] == [1]


async def test_the_longest_due_come_first(bench: Bench) -> None:
    jobs = []
    for _ in range(4):
        jobs.append(await bench.ended(webhook=HOOK))
        bench.clock.advance(1)

    assert [delivery.job.id for delivery in await due(bench, limit=3)] == [job.id for job in jobs[:3]]
    assert [delivery.job.id for delivery in await due(bench, limit=3)] == [jobs[3].id]


async def test_a_job_asked_for_anew_delivers_both_of_its_ends(bench: Bench) -> None:
    first = await bench.ended(BROKEN, webhook=HOOK)
    await bench.store.retry(first.id)
    assert [delivery.job for delivery in await due(bench)] == [first]
    bench.clock.advance(3)
    (claimed,) = await bench.store.claim(["gpu"], BY)
    second = await bench.store.finish(claimed.id, claimed.fence, DONE)
    bench.clock.advance(20)

    both = await due(bench)
    assert [delivery.job for delivery in both] == [second, first] or [delivery.job for delivery in both] == [
        first,
        second,
    ]
    assert len({delivery.id for delivery in both}) == 2
    for delivery in both:
        await bench.store.delivered(delivery.id)
    bench.clock.advance(20)
    assert await due(bench) == []


async def test_each_of_many_ends_is_delivered_as_it_was(bench: Bench) -> None:
    job, ends = await bench.queued(webhook=HOOK), []
    for _ in range(3):
        ends.append(await bench.store.cancel(job.id))
        bench.clock.advance(1)
        await bench.store.retry(job.id)

    assert [delivery.job for delivery in await due(bench)] == ends


async def test_a_job_is_kept_until_its_delivery_is_made_or_given_up(bench: Bench) -> None:
    made, given_up, waiting = [await bench.ended(webhook=HOOK) for _ in range(3)]
    ids = {delivery.job.id: delivery.id for delivery in await due(bench)}
    await bench.store.delivered(ids[made.id])
    bench.clock.advance(50)
    await bench.store.expire()
    assert [await bench.store.get(job.id) for job in (made, given_up, waiting)] == [None, None, None]

    assert {delivery.job.id: delivery.job for delivery in await due(bench)} == {
        given_up.id: given_up,
        waiting.id: waiting,
    }
    await bench.store.undelivered(ids[given_up.id], error="HTTP 410", retry_at=None)
    await bench.store.expire()
    assert sum(count.jobs for count in await bench.store.counts()) == 1
    bench.clock.advance(20)
    (last,) = await due(bench)
    await bench.store.delivered(last.id)
    await bench.store.expire()
    assert await bench.store.counts() == []


async def test_an_idempotency_key_is_free_though_the_delivery_of_a_forgotten_job_is_not_made(bench: Bench) -> None:
    first = await bench.ended(webhook=HOOK, idempotency_key="k", input_digest="d")
    bench.clock.advance(50)
    second = await bench.queued(webhook=HOOK, idempotency_key="k", input_digest="another")
    await bench.store.expire()

    (delivery,) = await due(bench)
    assert delivery.job.id == first.id != second.id
    assert await bench.queued(webhook=HOOK, idempotency_key="k", input_digest="another") == second
