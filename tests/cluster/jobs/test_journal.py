"""What a store keeps besides jobs: the journal, the ticks of schedules, how far a reader has come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs import chronicle
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import JOURNAL_S, Entry, JobStore, Tick
from tests.cluster.jobs.conformance import BY, DONE, STORES, Bench, Kind, opened

pytestmark = pytest.mark.anyio

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def entry(bench: Bench, name: str, job: str | None = None, endpoint: str | None = "gpu", **fields: object) -> Entry:
    return Entry(bench.clock.now(), endpoint, name, fields, job=job, worker="w" if job else None)


async def names(bench: Bench, endpoint: str = "gpu", **bounds: float) -> list[str]:
    found = await bench.store.happened(endpoint, **{"since": 0, "until": bench.clock.now(), **bounds})  # type: ignore[arg-type]
    return [entry.name for entry in found]


async def test_a_story_is_the_entries_of_its_job_in_the_order_of_writing(bench: Bench) -> None:
    queued, started = (
        entry(bench, "job_queued", "a", priority=1),
        entry(bench, "job_started", "a", attempt=1, delay_s=0.5),
    )
    await bench.store.record([queued, entry(bench, "job_queued", "b"), entry(bench, "scale", wanted=1)])
    bench.clock.advance(-100)  # a clock may be set back
    started_again = entry(bench, "job_started", "a")
    await bench.store.record([started, started_again])

    assert await bench.store.story("a") == [queued, started, started_again]
    assert await bench.store.story("nobody") == []


@given(fields=st.dictionaries(st.text(), json_values, max_size=4))
@settings(max_examples=50)
def test_fields_come_back_as_they_were(fields: dict[str, object]) -> None:
    async def written() -> list[Entry]:
        async with opened(SqliteStore(None, clock=ManualClock())) as store:
            await store.record([Entry(1.5, None, "job", fields, "a", "w")])
            return list(await store.story("a"))

    assert asyncio.run(written()) == [Entry(1.5, None, "job", fields, "a", "w")]


async def test_every_store_keeps_all_that_json_can_say(bench: Bench) -> None:
    fields = {"\0": "\ud800 é \0 \U0001f600", "": [None, True, -1.5, 2**70, {"a": []}]}
    await bench.store.record([Entry(1.5, None, "job", fields, "a", "w")])

    assert await bench.store.story("a") == [Entry(1.5, None, "job", fields, "a", "w")]


async def test_what_json_does_not_know_is_written_as_its_text(bench: Bench) -> None:
    await bench.store.record([Entry(1.0, "gpu", "scale", {"path": Path("/tmp/x")}, "a")])

    (found,) = await bench.store.story("a")
    assert found.fields == {"path": "/tmp/x"}


async def test_what_happened_to_an_endpoint_is_what_is_no_jobs(bench: Bench) -> None:
    await bench.store.record([entry(bench, "worker"), entry(bench, "job", "a"), entry(bench, "worker", endpoint="api")])
    await bench.store.record([entry(bench, "store_failed", endpoint=None)])
    for name in ("scale", "rolled"):
        bench.clock.advance(10)
        await bench.store.record([entry(bench, name)])
    now = bench.clock.now()

    assert await names(bench) == ["worker", "scale", "rolled"]
    assert await names(bench, since=now - 10, until=now) == ["scale", "rolled"]
    assert await names(bench, until=now - 10) == ["worker", "scale"]
    assert await names(bench, since=now + 1, until=now + 2) == []
    assert await names(bench, limit=2) == ["worker", "scale"]
    assert await names(bench, "api") == ["worker"]


async def test_no_entry_is_no_work(bench: Bench) -> None:
    await bench.store.record([])

    assert await names(bench) == []


async def test_the_journal_is_kept_for_seven_days(bench: Bench) -> None:
    await bench.store.record([entry(bench, "old"), entry(bench, "old", "a")])
    bench.clock.advance(10)
    await bench.store.record([entry(bench, "young")])
    bench.clock.advance(JOURNAL_S - 10)
    await bench.store.expire()
    assert await names(bench) == ["old", "young"]
    bench.clock.advance(1)
    await bench.store.expire()

    assert await names(bench) == ["young"]
    assert await bench.store.story("a") == []


async def test_the_journal_keeps_its_latest_entries(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "JOURNAL_ENTRIES", 700)
    await bench.store.record([entry(bench, f"{number}") for number in range(2345)])
    await bench.store.expire()

    assert await names(bench) == [f"{number}" for number in range(1645, 2345)]
    await bench.store.record([entry(bench, "next")])
    await bench.store.expire()
    assert (await names(bench))[-1] == "next"
    assert len(await names(bench)) == 700


async def test_a_schedule_goes_on_from_its_last_tick(bench: Bench) -> None:
    assert await bench.store.last_tick("gpu 0 * * * *") is None
    await bench.store.set_tick("gpu 0 * * * *", Tick(3600.0, "job-1"))
    await bench.store.set_tick("other", Tick(5.0, None))
    assert await bench.store.last_tick("gpu 0 * * * *") == Tick(3600.0, "job-1")
    await bench.store.set_tick("gpu 0 * * * *", Tick(7200.0, None))

    assert await bench.store.last_tick("gpu 0 * * * *") == Tick(7200.0, None)
    assert await bench.store.last_tick("other") == Tick(5.0, None)


async def test_a_reader_goes_on_where_it_was(bench: Bench) -> None:
    store, job = bench.store, await bench.running()
    assert await store.read_position(job.id) == (0, -1)
    await store.add_chunks(job.id, 1, [b"a", b"b"])
    await store.set_read_position(job.id, 1, 1)
    assert await store.read_position(job.id) == (1, 1)
    await store.set_read_position(job.id, 1, 0)
    assert await store.read_position(job.id) == (1, 1)
    await store.set_read_position(job.id, 2, 0)
    assert await store.read_position(job.id) == (2, 0)
    await store.set_read_position(job.id, 1, 9)
    assert await store.read_position(job.id) == (2, 0)
    await store.set_read_position("nobody", 1, 1)
    assert await store.read_position("nobody") == (0, -1)


async def test_a_position_goes_with_its_job(bench: Bench) -> None:
    store, job = bench.store, await bench.running()
    await store.add_chunks(job.id, 1, [b"a"])
    await store.finish(job.id, 1, DONE)
    await store.set_read_position(job.id, 1, 0)
    bench.clock.advance(50)
    await store.expire()

    later = await bench.queued()  # where the order of submission ended with the one before, it has its number
    assert await store.read_position(later.id) == (0, -1)


@pytest.mark.parametrize("kind", [kind for kind in STORES if kind.is_durable], ids=lambda kind: kind.name)
async def test_all_of_it_outlives_the_server(kind: Kind, tmp_path: Path) -> None:
    clock = ManualClock()

    async def seen(store: JobStore) -> list[object]:
        told = await store.story("a"), await store.happened("gpu", since=0, until=clock.now())
        deliveries = await store.deliveries(limit=5, lease_s=0)
        place = await store.read_position(running.id)
        return [*told, deliveries, place, await store.last_tick("key"), store.pending(["gpu"])]

    async with opened(kind.make(tmp_path, clock)) as store:
        bench = Bench(store, clock)
        running = await bench.running()
        await store.add_chunks(running.id, 1, [b"a"])
        await store.set_read_position(running.id, 1, 0)
        await store.record([entry(bench, "job", "a"), entry(bench, "scale")])
        await store.set_tick("key", Tick(1.0, "a"))
        await bench.ended(webhook="https://example.com/")
        lost = await bench.running(priority=-1)
        await store.lose(lost.id, 1, b"{}", alone=True)
        parked = await bench.running()
        await store.reschedule(parked.id, 1, b"{}", clock.now() + 5)
        before = await seen(store)
    async with opened(kind.make(tmp_path, clock)) as store:
        assert await seen(store) == before
        clock.advance(5)
        assert [job.id for job in await store.claim(["gpu"], BY)] == [parked.id]
