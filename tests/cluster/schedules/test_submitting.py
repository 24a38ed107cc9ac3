"""Jobs by the clock, over a real store, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.model import Claimer, End, Job, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import QueueFull, StoreError, Tick
from flashfw.cluster.schedules.submitting import PRINCIPAL, Schedules, lines, soonest
from flashfw.manifest import Manifest, Schedule
from tests.cluster.bench import Bench, a_function, an_endpoint

DONE = End(state=State.COMPLETED, output=b"1")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def serving(*schedules: Schedule, name: str = "gpu") -> Manifest:
    function = a_function(name, schedule=schedules)
    return Manifest(project="shop", environment="dev", endpoints=(an_endpoint(name, functions=(function,)),))


HOURLY = Schedule(cron="0 * * * *")


class Server(Bench):
    """Schedules of one server."""

    manifest = serving(HOURLY)
    max_queue = 100
    failure: Exception | None = None

    async def settle(self, rounds: int = 40) -> None:
        """Let everything happen that needs no time; each round the store reads and writes what it was asked to."""
        for _ in range(rounds):
            await asyncio.sleep(0)
            await self.store.get("-")
            await self.store.set_tick("-", Tick(0.0, None))

    async def submit(self, job: Job) -> Job:
        if self.failure is not None:
            raise self.failure
        return await self.store.submit(job, max_queue=self.max_queue)

    async def go(self, text: str) -> None:
        """The clock shows that time, and what is due happens."""
        self.clock.advance(max(0.0, at(text) - self.clock.time))
        self.clock.time = at(text)
        await self.settle()

    async def second(self) -> None:
        self.clock.advance(1.0)
        await self.settle()

    async def jobs(self) -> list[Job]:
        """All of them, the oldest first; a summary has all but the input."""
        return [job for one in reversed(await self.store.list()) if (job := await self.store.get(one.id))]

    async def finish(self) -> None:
        """Every job that waits is done."""
        for job in await self.store.claim({"gpu"}, Claimer(boot="boot-1", worker="w"), limit=100):
            await self.store.finish(job.id, job.fence, DONE)

    def ticks(self) -> list[str]:
        """What was told: each tick, with a star if it was skipped."""
        told = self.named("schedule")
        times = [datetime.fromtimestamp(fields["tick"], timezone.utc) for fields in told]
        return [f"{time:%H:%M}{'*' * ('skipped' in fields)}" for time, fields in zip(times, told, strict=True)]

    def why(self) -> list[str]:
        return [fields["skipped"] for fields in self.named("schedule") if "skipped" in fields]


@asynccontextmanager
async def running(
    folder: Path, manifest: Manifest, *, now: str = "2026-03-02T11:30", store: Any = None, clock: Any = None
) -> AsyncIterator[Server]:
    server = Server(folder, store)
    server.manifest = manifest
    if clock is not None:
        server.clock = clock
        server.site = replace(server.site, clock=clock)
    server.clock.time = at(now)
    await server.store.open("boot-1")
    schedules = Schedules(server.site, server.store, served=lambda: server.manifest, submit=server.submit)
    task = asyncio.ensure_future(schedules.run())
    await server.settle()
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.wait([task])
        await server.store.close()


@pytest.fixture
def shared(tmp_path: Path) -> Callable[[ManualClock], SqliteStore]:
    return lambda clock: SqliteStore(tmp_path / "jobs.db", clock=clock)


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_tick_makes_a_job(tmp_path: Path) -> None:
    async with running(tmp_path, serving(replace(HOURLY, input={"n": 1}))) as server:
        await server.go("2026-03-02T11:59:59")
        assert await server.jobs() == []

        await server.go("2026-03-02T12:00:00")

        (job,) = await server.jobs()
        assert (job.function, job.endpoint, json.loads(job.input), job.principal) == ("gpu", "gpu", {"n": 1}, PRINCIPAL)
        (fields,) = server.named("schedule")
        assert fields == {
            "function": "gpu",
            "cron": "0 * * * *",
            "tz": "UTC",
            "tick": at("2026-03-02T12:00"),
            "job": job.id,
        }


async def test_each_tick_makes_one(tmp_path: Path) -> None:
    async with running(tmp_path, serving(HOURLY)) as server:
        for hour in ("12", "13", "14"):
            await server.go(f"2026-03-02T{hour}:00")
            await server.finish()
            await server.second()

        assert server.ticks() == ["12:00", "13:00", "14:00"]
        assert len(await server.jobs()) == 3


async def test_a_line_without_input_has_none(tmp_path: Path) -> None:
    async with running(tmp_path, serving(HOURLY)) as server:
        await server.go("2026-03-02T12:00")

        assert [job.input for job in await server.jobs()] == [b"{}"]


async def test_a_tick_is_skipped_while_the_last_job_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, serving(HOURLY)) as server:
        await server.go("2026-03-02T12:00")
        await server.go("2026-03-02T13:00")
        await server.go("2026-03-02T14:00")
        await server.finish()
        await server.go("2026-03-02T15:00")

        assert server.ticks() == ["12:00", "13:00*", "14:00*", "15:00"]
        first = (await server.jobs())[0]
        assert server.why() == [f"job {first.id} has not ended"] * 2


async def test_jobs_may_overlap(tmp_path: Path) -> None:
    async with running(tmp_path, serving(replace(HOURLY, overlap=True))) as server:
        await server.go("2026-03-02T12:00")
        await server.go("2026-03-02T13:00")

        assert server.ticks() == ["12:00", "13:00"]


async def test_missed_ticks_are_skipped(tmp_path: Path, shared: Any) -> None:
    async with running(tmp_path, serving(HOURLY), store=shared) as server:
        await server.go("2026-03-02T12:00")
        await server.finish()

    async with running(tmp_path, serving(HOURLY), store=shared, now="2026-03-02T15:30") as server:
        assert server.ticks() == ["15:00*"]
        assert server.why() == ["3 ticks, missed: no server ran then"]
        await server.go("2026-03-02T16:00")
        assert server.ticks() == ["15:00*", "16:00"]


async def test_a_tick_that_is_hardly_late_is_not_missed(tmp_path: Path, shared: Any) -> None:
    async with running(tmp_path, serving(HOURLY), store=shared):
        pass
    async with running(tmp_path, serving(HOURLY), store=shared, now="2026-03-02T12:00:59") as server:
        assert server.ticks() == ["12:00"]


async def test_missed_ticks_are_made_up_for_in_order(tmp_path: Path, shared: Any) -> None:
    patient = serving(replace(HOURLY, catch_up=True, overlap=True))
    async with running(tmp_path, patient, store=shared):
        pass
    async with running(tmp_path, patient, store=shared, now="2026-03-02T14:30") as server:
        assert server.ticks() == ["12:00", "13:00", "14:00"]


async def test_missed_ticks_are_made_up_for_one_after_the_other(tmp_path: Path, shared: Any) -> None:
    patient = serving(replace(HOURLY, catch_up=True))
    async with running(tmp_path, patient, store=shared):
        pass
    async with running(tmp_path, patient, store=shared, now="2026-03-02T13:30") as server:
        assert server.ticks() == ["12:00"]
        await server.second()
        assert server.ticks() == ["12:00"]

        await server.finish()
        await server.second()

        assert server.ticks() == ["12:00", "13:00"]


async def test_the_last_hundred_are_made_up_for(tmp_path: Path, shared: Any) -> None:
    patient = serving(Schedule(cron="* * * * *", catch_up=True, overlap=True))
    async with running(tmp_path, patient, store=shared):
        pass
    async with running(tmp_path, patient, store=shared, now="2026-03-03T11:30") as server:
        server.max_queue = 1000
        await server.settle(600)

        assert len(await server.store.list(limit=200)) == 100
        assert server.ticks()[-1] == "11:30"


async def test_a_clock_that_is_set_forward_skips(tmp_path: Path) -> None:
    async with running(tmp_path, serving(HOURLY)) as server:
        await server.go("2026-03-03T11:30")

        assert server.ticks() == ["11:00*"]
        assert server.why() == ["24 ticks, missed: no server ran then"]


async def test_a_clock_that_is_set_back_repeats_nothing(tmp_path: Path, shared: Any) -> None:
    async with running(tmp_path, serving(replace(HOURLY, overlap=True)), store=shared) as server:
        await server.go("2026-03-02T12:00")
        server.clock.time = at("2026-03-02T10:30")
        await server.go("2026-03-02T12:00")
        assert server.ticks() == ["12:00"]

    async with running(tmp_path, server.manifest, store=shared, now="2026-03-02T10:59") as server:
        await server.go("2026-03-02T12:00")
        assert server.ticks() == []
        await server.go("2026-03-02T13:00")
        assert server.ticks() == ["13:00"]


async def test_two_servers_on_one_store_make_one_job(tmp_path: Path, shared: Any) -> None:
    async with running(tmp_path, serving(HOURLY), store=shared) as one:
        other = Schedules(one.site, one.store, served=lambda: one.manifest, submit=one.submit)
        task = asyncio.ensure_future(other.run())
        await one.settle()
        for hour in ("12", "13"):
            await one.go(f"2026-03-02T{hour}:00")
            await one.finish()
        task.cancel()

        assert one.ticks() == ["12:00", "13:00"]
        assert len(await one.jobs()) == 2


async def test_a_server_that_dies_after_the_job_was_kept_does_not_repeat_it(tmp_path: Path, shared: Any) -> None:
    async with running(tmp_path, serving(HOURLY), store=shared) as server:
        (line,) = lines(server.manifest)
        before = await server.store.last_tick(line.key)
        await server.go("2026-03-02T12:00")
        assert before is not None
        await server.store.set_tick(line.key, before)

    async with running(tmp_path, serving(HOURLY), store=shared, now="2026-03-02T12:00:01") as server:
        assert server.ticks() == []
        assert len(await server.jobs()) == 1
        found = await server.store.last_tick(line.key)
        assert found is not None
        assert found.at == at("2026-03-02T12:00")


async def test_a_change_of_the_manifest_counts_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, serving(HOURLY)) as server:
        server.manifest = serving(Schedule(cron="45 * * * *"))
        await server.second()
        await server.go("2026-03-02T11:45")
        assert server.ticks() == ["11:45"]

        server.manifest = serving()
        await server.go("2026-03-02T14:00")
        assert server.ticks() == ["11:45"]


async def test_two_lines_of_one_time_differ_by_their_input(tmp_path: Path) -> None:
    two = serving(replace(HOURLY, input={"n": 1}), replace(HOURLY, input={"n": 2}))
    async with running(tmp_path, two) as server:
        await server.go("2026-03-02T12:00")

        assert [json.loads(job.input)["n"] for job in await server.jobs()] == [1, 2]


@pytest.mark.parametrize("catch_up", [False, True])
async def test_a_full_queue(tmp_path: Path, catch_up: bool) -> None:
    async with running(tmp_path, serving(replace(HOURLY, catch_up=catch_up))) as server:
        server.failure = QueueFull("the queue of gpu is full")
        await server.go("2026-03-02T12:00")
        server.failure = None
        await server.second()

        assert server.ticks() == (["12:00"] if catch_up else ["12:00*"])


async def test_a_store_that_fails_is_asked_again(tmp_path: Path) -> None:
    async with running(tmp_path, serving(HOURLY)) as server:
        server.failure = StoreError("the disk is full")
        await server.go("2026-03-02T12:00")
        server.failure = None
        await server.second()

        assert server.ticks() == ["12:00"]
        assert [event.fields["error"] for event in server.events if event.name == "store_failed"] == [
            "the disk is full"
        ]


async def test_a_defect_ends_no_other_line(tmp_path: Path) -> None:
    async with running(tmp_path, serving(HOURLY, Schedule(cron="1 12 * * *"))) as server:
        server.failure = ZeroDivisionError()
        await server.go("2026-03-02T12:00")
        server.failure = None
        await server.go("2026-03-02T12:01")

        assert [event.name for event in server.events if event.name == "internal"] == ["internal"]
        assert sorted(server.ticks()) == ["12:00", "12:01"]


def test_the_soonest_of_all_lines() -> None:
    two = serving(HOURLY, Schedule(cron="45 11 * * *"))

    found = soonest(two, at("2026-03-02T11:30"))

    assert found is not None
    assert (found[0], found[1].schedule.cron) == (at("2026-03-02T11:45"), "45 11 * * *")
    assert soonest(serving(), 0.0) is None
