from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import flashfw
from flashfw.cluster.clock import ManualClock
from flashfw.cluster.events import Event
from flashfw.cluster.explaining import journal as journals
from flashfw.cluster.explaining.journal import LONGEST_TEXT, REPEAT_S, SERVER, Journal, short
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import Entry, StoreError

pytestmark = pytest.mark.anyio

PACKAGE = Path(flashfw.__file__).parent


class Failing(SqliteStore):
    """A store that cannot write its journal while `error` is set."""

    error: Exception | None = None

    async def record(self, entries: Sequence[Entry]) -> None:
        if self.error is not None:
            raise self.error
        await super().record(entries)


class Bench:
    """A journal over a store in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Failing(None, clock=self.clock)
        self.events: list[Event] = []
        self.journal = Journal(self.store, self.clock, self.events.append)

    def tell(self, name: str, **fields: Any) -> None:
        self.journal.take(Event(name, "gpu", fields))

    async def story(self, job: str = "j") -> list[tuple[str, str | None]]:
        await self.journal.flush()
        return [(entry.name, entry.worker) for entry in await self.store.story(job)]

    async def beside(self, endpoint: str = "gpu") -> list[Entry]:
        await self.journal.flush()
        return list(await self.store.happened(endpoint, since=0.0, until=2e9))


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.store.open("boot")
    try:
        yield made
    finally:
        await made.store.close()


async def test_a_job_that_just_runs_leaves_nothing() -> None:
    async with bench() as made:
        made.tell("job_queued", id="j", function="gpu", priority=0)
        made.tell("job_started", id="j", function="gpu", worker="w-1", attempt=1, delay_s=0.0)
        made.tell("output", worker="w-1", job="j", text="hello")
        made.tell("job", id="j", state="COMPLETED")

        assert await made.story() == []
        assert await made.beside() == []


async def test_an_attempt_that_was_not_the_last_is_kept_with_its_worker() -> None:
    async with bench() as made:
        for attempt, worker in enumerate(("w-1", "w-2"), 1):
            made.tell("job_started", id="j", function="gpu", worker=worker, attempt=attempt, delay_s=0.0)
            made.tell("job_retry", id="j", function="gpu", attempt=attempt, in_s=1.0, error='{"message": "no"}')
        made.tell("job_requeued", id="j", function="gpu", why="drained", deaths=0, alone=False)

        assert await made.story() == [
            ("job_started", "w-1"),
            ("job_retry", "w-1"),
            ("job_started", "w-2"),
            ("job_retry", "w-2"),
            ("job_requeued", None),
        ]
        retry = (await made.store.story("j"))[1]
        assert retry.fields["error"] == {"message": "no"}


async def test_what_is_of_no_endpoint_is_of_the_server() -> None:
    async with bench() as made:
        made.journal.take(Event("recovered", None, {"jobs": 2}))
        made.journal.note("server", state="STOPPED")

        assert [entry.name for entry in await made.beside(SERVER)] == ["recovered", "server"]
        assert await made.beside() == []


async def test_the_last_change_of_the_scaler_is_at_hand() -> None:
    async with bench() as made:
        made.tell("scale", wanted=1, have=0, reason="first")
        made.tell("scale", wanted=2, have=1, reason="second")

        last = made.journal.scaled("gpu")
        assert last is not None
        assert last.fields["reason"] == "second"
        assert made.journal.scaled("other") is None


async def test_entries_are_written_in_their_order_once_the_store_can() -> None:
    async with bench() as made, anyio.create_task_group() as tasks:
        tasks.start_soon(made.journal.run)
        made.store.error = StoreError("disk full")
        made.tell("rolled", release=1)
        assert not await made.journal.flush()
        made.tell("rolled", release=2)
        made.store.error = None
        while not (found := await made.store.happened("gpu", since=0.0, until=2e9)):
            made.clock.advance(1.0)
            await asyncio.sleep(0)

        assert [entry.fields["release"] for entry in found] == [1, 2]
        assert made.events == []
        tasks.cancel_scope.cancel()


async def test_entries_behind_those_that_could_not_be_written_stay_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "BATCH", 2)
    async with bench() as made:
        made.store.error = StoreError("disk full")
        for release in range(3):
            made.tell("rolled", release=release)
        assert not await made.journal.flush()
        made.store.error = None

        assert [entry.fields["release"] for entry in await made.beside()] == [0, 1, 2]


async def test_of_very_many_attempts_at_once_the_oldest_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_RUNNING", 2)
    async with bench() as made:
        for job in ("a", "b", "c"):
            made.tell("job_started", id=job, worker="w", attempt=1)
        for job in ("a", "b", "c"):
            made.tell("job_requeued", id=job, why="gone")
        await made.journal.flush()

        assert [len(await made.store.story(job)) for job in ("a", "b", "c")] == [1, 2, 2]


async def test_a_store_that_fails_for_long_costs_the_oldest_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST", 3)
    async with bench() as made:
        made.store.error = StoreError("disk full")
        for release in range(5):
            made.tell("rolled", release=release)
            await made.journal.flush()
        made.store.error = None

        assert [entry.fields["release"] for entry in await made.beside()] == [2, 3, 4]
        (lost,) = await made.beside(SERVER)
        assert (lost.name, lost.fields) == ("journal_lost", {"entries": 2})


async def test_a_defect_of_the_journal_is_told_and_keeps_nothing_from_working() -> None:
    async with bench() as made:
        made.store.error = ZeroDivisionError("no such thing")
        made.tell("rolled", release=1)

        assert await made.journal.flush()
        assert [event.name for event in made.events] == ["internal"]


async def test_a_failure_of_the_store_that_repeats_is_kept_now_and_then() -> None:
    async with bench() as made:
        for _ in range(5):
            made.tell("store_failed", error="disk full")
            made.clock.advance(REPEAT_S / 3)

        assert len(await made.beside()) == 2


def test_long_texts_are_cut() -> None:
    assert short({"traceback": "x" * 20_000, "lines": ["a", 1, None]}) == {
        "traceback": "x" * (LONGEST_TEXT - 1) + "…",
        "lines": ["a", 1, None],
    }


def test_every_event_that_is_told_is_in_the_table() -> None:
    rows = re.findall(r"^    \| (`.+?`) \|", Event.__doc__ or "", re.MULTILINE)
    table = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    told = {name for file in PACKAGE.rglob("*.py") for name in _events(file)}

    assert told - table == set()
    assert table - told == set()


def _events(file: Path) -> set[str]:
    """The names that a module gives to events: the first argument of `Event(...)` and of a method `_emit`."""
    calls = (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call))
    return {
        str(call.args[0].value)
        for call in calls
        if (isinstance(call.func, ast.Name) and call.func.id == "Event")
        or (isinstance(call.func, ast.Attribute) and call.func.attr in ("_emit", "_told"))
        if call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    }
