"""What only a store has that several servers share: news, idempotency, servers that die, their database's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import anyio
import psycopg
import pytest

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.jobs import postgres_database, postgres_listener
from flashfw.cluster.jobs.model import Claimer, Job, State
from flashfw.cluster.jobs.postgres import ANYTHING, PostgresStore
from flashfw.cluster.jobs.postgres_ledger import SQL, News, read_note
from flashfw.cluster.jobs.store import Change, Pending, StoreError
from flashfw.errors import UsageError
from tests.cluster.jobs.conformance import BROKEN, DONE, ROOM, a_job
from tests.postgres_server import PASSWORD, PostgresServer, new_schema

pytestmark = pytest.mark.anyio

T = TypeVar("T")

CLOCK = SystemClock()
DEADLINE_S = 60.0


class Server:
    """A store as one of several servers has it, with what it heard of the others."""

    def __init__(self, postgres: PostgresServer, schema: str, boot: str, **options: Any) -> None:
        self.store = PostgresStore(postgres.url, clock=CLOCK, schema=schema, **options)
        self.by = Claimer(boot=boot, worker="w")
        self.changes: list[Change] = []
        self._news = asyncio.Event()

    def hear(self, change: Change) -> None:
        self.changes.append(change)
        self._news.set()

    async def heard(self, matches: Callable[[Change], bool]) -> Change:
        """The first change that matches, once it is heard."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                for change in self.changes:
                    if matches(change):
                        return change
                self._news.clear()
                await self._news.wait()

    async def submit(self, claim: bool = False, **changes: object) -> Job:
        return await self.store.submit(a_job(CLOCK, **changes), max_queue=ROOM, claim=self.by if claim else None)


@asynccontextmanager
async def servers(postgres: PostgresServer, count: int = 2, **options: Any) -> AsyncIterator[list[Server]]:
    """Servers on a schema of their own, from `boot-0`."""
    schema = new_schema()
    made = [Server(postgres, schema, f"boot-{number}", **options) for number in range(count)]
    async with AsyncExitStack() as running:
        for server in made:
            await server.store.open(server.by.boot, on_change=server.hear)
            running.push_async_callback(server.store.close)
        if count > 1:
            await acquaint(postgres, made)
        yield made


async def acquaint(postgres: PostgresServer, made: list[Server]) -> None:
    """Wait until each has heard of another: it tells nobody of what it does before, as they look by themselves."""
    with psycopg.connect(postgres.url, autocommit=True) as other:
        note = '["another", ["hello", "none", "IN_QUEUE"]]'
        other.execute("SELECT pg_notify(%s, %s)", (made[0].store._space, note))
    for server in made:
        await server.heard(lambda change: change.job == "hello")
        server.changes.clear()


async def test_servers_hear_what_others_do_and_not_what_they_do_themselves(postgres: PostgresServer) -> None:
    async with servers(postgres) as (one, two):
        job = await one.submit()
        await two.heard(lambda change: change == Change(job.id, "gpu", State.IN_QUEUE))
        assert two.store.pending(["gpu"]) == Pending(claimable=1)

        (claimed,) = await two.store.claim(["gpu"], two.by)
        await one.heard(lambda change: change == Change(job.id, "gpu", State.IN_PROGRESS))
        assert one.store.pending(["gpu"]) == Pending()
        await two.store.add_chunks(job.id, claimed.fence, [b"1"])
        await two.store.finish(job.id, claimed.fence, DONE)
        await one.heard(lambda change: change == Change(job.id, "gpu", State.COMPLETED))
        assert one.store.health("gpu").completed == 1

        assert [change.state for change in one.changes if change.job][:1] == [State.IN_PROGRESS]
        assert {change.state for change in two.changes if change.job} == {State.IN_QUEUE}


async def test_nobody_is_notified_where_nobody_else_is(postgres: PostgresServer) -> None:
    async with servers(postgres, 1) as (one,):
        with psycopg.connect(postgres.url, autocommit=True) as listening:
            listening.execute(f"LISTEN {one.store._space}")
            await one.submit()
            assert list(listening.notifies(timeout=0)) == []

            two = Server(postgres, one.store._address.schema, "boot-1")
            await two.store.open("boot-1", on_change=two.hear)
            heard = asyncio.ensure_future(two.heard(lambda change: bool(change.job)))
            while not heard.done():  # one hears of the other by the database, a moment later
                await one.submit(claim=True)
            await heard
            await two.store.close()


async def test_no_job_is_claimed_by_two_servers(postgres: PostgresServer) -> None:
    async with servers(postgres, 3) as made:
        first = made[0]
        await asyncio.gather(*(first.submit() for _ in range(200)))
        for server in made[1:]:
            while server.store.pending(["gpu"]).claimable < 200:
                await server.heard(lambda change: change.function == "gpu")
                server.changes.clear()

        async def claim_all(server: Server) -> list[str]:
            ids: list[str] = []
            while jobs := await server.store.claim(["gpu"], server.by, limit=3):
                ids += [job.id for job in jobs]
            return ids

        claims = await asyncio.gather(*(claim_all(server) for server in made for _ in range(3)))
        ids = [job_id for claim in claims for job_id in claim]
        assert len(ids) == len(set(ids)) == 200
        counts = await first.store.counts()
        assert sum(count.jobs for count in counts) == 200


async def test_one_key_at_two_servers_at_once_is_one_job(postgres: PostgresServer) -> None:
    async with servers(postgres) as made:
        for number in range(20):
            keyed = {"idempotency_key": f"k{number}", "input_digest": "d"}
            answers = await asyncio.gather(*(server.submit(**keyed) for server in made for _ in range(2)))
            assert len({job.id for job in answers}) == 1
        assert len(await made[0].store.list()) == 20


async def test_jobs_of_a_server_that_was_taken_for_dead_are_no_longer_its_own(postgres: PostgresServer) -> None:
    async with servers(postgres, grace_s=0.0) as (one, two):
        ghost = Claimer(boot="ghost", worker="w")  # a server whose lock nobody holds
        job = await one.store.submit(a_job(CLOCK), max_queue=ROOM, claim=ghost)

        assert await two.store.recover() == 1
        (again,) = await two.store.claim(["gpu"], two.by)
        assert (again.id, again.fence, again.attempt) == (job.id, job.fence + 1, 1)

        await one.store.set_progress(job.id, job.fence, b"1")
        assert await one.store.add_chunks(job.id, job.fence, [b"1"]) is False
        assert await one.store.finish(job.id, job.fence, BROKEN) is None
        assert await one.store.get(job.id) == again
        assert await two.store.finish(job.id, again.fence, DONE) is not None


async def test_a_job_is_claimed_only_where_the_files_are_that_came_with_it(postgres: PostgresServer) -> None:
    async with servers(postgres, 1, home="here") as (here,):
        there = PostgresStore(postgres.url, clock=CLOCK, schema=here.store._address.schema, home="there")
        await there.open("boot-1")
        away, plain = await here.submit(home="here"), await here.submit()
        by = Claimer(boot="boot-1", worker="w")
        while there.pending(["gpu"]).claimable < 2:
            await there._renew()

        assert [job.id for job in await there.claim(["gpu"], by, limit=2)] == [plain.id]
        assert await there.claim(["gpu"], by, alone=False) == []
        assert [job.id for job in await here.store.claim(["gpu"], here.by, alone=False)] == [away.id]
        await there.close()


@pytest.mark.parametrize("statement", ["next_claimable", "next_beside"])
async def test_claims_go_by_their_index_however_short_the_queue(postgres: PostgresServer, statement: str) -> None:
    async with servers(postgres, 1) as (one,):
        await one.submit()
        with postgres_database.connect(one.store._address, name="test") as connection:
            rows = connection.execute(f"EXPLAIN {SQL[statement]}".encode(), ("gpu", 0, 0, "", 1)).fetchall()
            jit = connection.execute("SHOW jit").fetchone()
    plan = "\n".join(row[0] for row in rows)
    assert "using jobs_claimable" in plan
    assert "Sort" not in plan
    assert jit == ("off",), "what has no index would be compiled for longer than it runs"


async def test_each_server_knows_what_the_others_serve_until_they_are_gone(postgres: PostgresServer) -> None:
    async with servers(postgres, grace_s=0.0) as (one, two):
        await two.submit()  # it has written something, and not said what it serves
        assert await one.store.serve({"gpu"}) is None
        assert await two.store.serve({"gpu", "new"}) == {"gpu"}
        assert await one.store.serve({"gpu"}) == {"gpu", "new"}
        assert await two.store.serve(None) == {"gpu"}
        assert await one.store.serve({"gpu"}) is None, "the files of the other do not parse now"
        await two.store.serve({"new"})

        await two.store.close()
        assert await one.store.serve({"gpu"}) == {"new"}, "its jobs are not taken over yet"
        await one.store.recover()
        assert await one.store.serve({"gpu"}) == frozenset()


async def test_a_server_that_was_taken_for_dead_says_anew_what_it_serves(postgres: PostgresServer) -> None:
    async with servers(postgres) as (one, two):
        await two.store.serve({"new"})
        with psycopg.connect(postgres.url, autocommit=True) as other:
            other.execute(f"DELETE FROM {one.store._address.schema}.servers")  # as whoever takes over does
        await two.submit()
        assert await one.store.serve(()) is None
        await two.store.serve({"new"})

        assert await one.store.serve(()) == {"new"}


async def test_what_another_server_ended_is_not_ended_again(postgres: PostgresServer) -> None:
    async with servers(postgres) as (one, two):
        for write in (
            lambda job: one.store.finish(job.id, job.fence, DONE),
            lambda job: one.store.release(job.id, job.fence),
            lambda job: one.store.lose(job.id, job.fence, b"1"),
            lambda job: one.store.reschedule(job.id, job.fence, b"1", CLOCK.now()),
            lambda job: one.store.cancel(job.id),
        ):
            job = await one.submit(claim=True)  # which it remembers as running
            cancelled = await two.store.cancel(job.id)
            assert cancelled is not None

            assert await write(job) is None
            assert await two.store.get(job.id) == cancelled
        assert two.store.pending(["gpu"]) == Pending()
        assert sum(count.jobs for count in await one.store.counts()) == 5


async def test_servers_that_want_the_same_rows_in_another_order_both_go_on(postgres: PostgresServer) -> None:
    async with servers(postgres) as (one, two):
        jobs = [await one.submit() for _ in range(40)]
        orders = (one, jobs), (two, jobs[::-1])  # each in one transaction: they meet in the middle
        calls = [server.store.cancel(job.id) for server, order in orders for job in order]
        ended = [job.id for job in await asyncio.gather(*calls) if job is not None]

        assert sorted(ended) == sorted(job.id for job in jobs)
        for server in (one, two):  # either may have done them all, and hears nothing of itself
            if server.store.pending(["gpu"]) != Pending():
                await server.heard(lambda _, store=server.store: store.pending(["gpu"]) == Pending())  # type: ignore[misc]


async def test_a_stranger_on_the_channel_does_no_harm(postgres: PostgresServer) -> None:
    async with servers(postgres) as (one, two):
        with psycopg.connect(postgres.url, autocommit=True) as stranger:
            for payload in ("", "{", "5", "[1, 2]", '["x", ["job", "gpu", "DONE"]]', '["x", 7]'):
                stranger.execute("SELECT pg_notify(%s, %s)", (one.store._space, payload))
        job = await one.submit()
        await two.heard(lambda change: change.job == job.id)


async def test_a_server_whose_connections_break_is_not_taken_for_dead(postgres: PostgresServer) -> None:
    async with servers(postgres) as (one, two):
        job = await one.submit(claim=True)
        with psycopg.connect(postgres.url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'flashfw%boot-0'"
            )
        assert await two.store.recover() == 0
        await one.heard(lambda change: change == ANYTHING)
        assert await two.store.recover() == 0
        assert await one.store.get(job.id) == job
        assert await one.store.finish(job.id, job.fence, DONE) is not None


async def test_a_look_that_fails_costs_the_listener_its_connection_and_no_news(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()
    look = postgres_listener.Listener._look

    def fails(listener: postgres_listener.Listener, connection: Any) -> None:
        if listener._boot == "boot-0":
            loop.call_soon_threadsafe(tried.set)
            connection.execute("SELECT 1 / 0")
        look(listener, connection)

    async with servers(postgres) as (one, two):
        monkeypatch.setattr(postgres_listener.Listener, "_look", fails)
        with anyio.fail_after(DEADLINE_S):
            await tried.wait()
        monkeypatch.setattr(postgres_listener.Listener, "_look", look)
        await one.heard(lambda change: change == ANYTHING)  # news may have been missed
        await acquaint(postgres, [one, two])  # the other may have looked while nobody held this one's lock

        job = await two.submit()
        await one.heard(lambda change: change.job == job.id)


async def test_a_listener_that_may_not_have_its_lock_leaves_no_connection(postgres: PostgresServer) -> None:
    store = PostgresStore(postgres.url, clock=CLOCK, schema=new_schema())
    with psycopg.connect(postgres.url, autocommit=True) as other:
        mine = (store._space, "boot-9")
        left = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'flashfw%boot-9'"
        other.execute("SELECT pg_advisory_lock(hashtext(%s), hashtext(%s))", mine)
        opening = asyncio.ensure_future(store.open("boot-9"))
        waits = "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with anyio.fail_after(DEADLINE_S):
            while not other.execute(waits).fetchall():  # noqa: ASYNC110 - nobody tells of a lock that is waited for
                await anyio.sleep(0.01)
            with pytest.raises((StoreError, psycopg.Error)):
                await opening
            while other.execute(left).fetchone() != (0,):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        other.execute("SELECT pg_advisory_unlock_all()")

        assert await store.open("boot-9") == 0  # nothing of the first try is in the way
        await store.close()


async def test_what_was_accepted_outlives_the_database(own_postgres: PostgresServer) -> None:
    async with servers(own_postgres) as (one, two):
        kept = [await one.submit(), await one.submit(claim=True)]
        own_postgres.crash()
        for call in (one.submit(), one.store.claim(["gpu"], one.by), one.store.get(kept[0].id), two.store.recover()):
            with pytest.raises(StoreError) as told:
                await call
            assert PASSWORD not in f"{told.value!r} {told.value} {told.value.__cause__}"

        one.changes.clear()
        two.changes.clear()
        own_postgres.start()
        for server in (one, two):
            await server.heard(lambda change: change == ANYTHING)
        last = await _insist(one.submit)
        assert {job.id for job in await two.store.list()} == {last.id, *(job.id for job in kept)}
        assert await one.store.finish(kept[1].id, kept[1].fence, DONE) is not None
        await two.heard(lambda change: change == Change(kept[1].id, "gpu", State.COMPLETED))


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    with anyio.fail_after(DEADLINE_S):
        while True:
            try:
                return await call()
            except StoreError:
                await anyio.sleep(0.05)


async def test_servers_that_start_at_once_make_one_schema(postgres: PostgresServer) -> None:
    schema = new_schema()
    made = [Server(postgres, schema, f"boot-{number}") for number in range(4)]
    try:
        await asyncio.gather(*(server.store.open(server.by.boot) for server in made))
        job = await made[0].submit()
        assert await made[3].store.get(job.id) == job
    finally:
        for server in made:
            await server.store.close()


async def test_a_newer_schema_is_refused(postgres: PostgresServer) -> None:
    async with servers(postgres, 1) as (one,):
        schema = one.store._address.schema
    with psycopg.connect(postgres.url, autocommit=True) as other:
        other.execute(f"UPDATE {schema}.meta SET version = 99")

    with pytest.raises(StoreError, match="has version 99.*a newer flashfw"):
        await Server(postgres, schema, "boot").store.open("boot")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace(PASSWORD, "wrong-one"), "password authentication failed.*PGPASSWORD"),
        (lambda url: url + "_not", "does not exist.*createdb"),
        (lambda url: f"postgresql://u:{PASSWORD}@127.0.0.1:1/x", "refused.*is the server running"),
    ],
)
async def test_a_database_that_cannot_be_had_says_why(
    postgres: PostgresServer, change: Callable[[str], str], words: str
) -> None:
    with pytest.raises(StoreError, match=f"(?s){words}") as told:
        await PostgresStore(change(postgres.url), clock=CLOCK).open("boot")
    for secret in (PASSWORD, "wrong-one"):
        assert secret not in str(told.value)


@pytest.mark.parametrize("url", ["postgresql://u:hidden@[::1/x", "postgresql://u:hidden@h/x?y=1", "u:hidden@h"])
def test_what_is_no_address_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as told:
        postgres_database.address(url, "s")
    assert "hidden" not in str(told.value)


def test_a_note_is_never_too_long() -> None:
    news = News("boot")
    states = {f"job-{number:0>40}": ("gpu/" + "ü" * (number % 60), State.IN_QUEUE) for number in range(900)}
    news.states.update(states)
    notes = list(news.notes())

    assert max(len(note.encode()) for note in notes) < 8_000
    assert [change for note in notes for change in read_note(note)[1]] == [
        Change(job, function, state) for job, (function, state) in states.items()
    ]


def test_without_the_package_its_name_is_told() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from pathlib import Path
from flashfw.cluster.clock import SystemClock
from flashfw.cluster.jobs.opening import job_store
from flashfw.errors import TargetError
try:
    job_store("postgresql://h/x", folder=Path(), project="p", environment="dev", clock=SystemClock())
except TargetError as error:
    print(int(error.exit), error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7 pip install 'flashfw[postgres]'\n"


async def test_a_database_that_stands_still_is_told_of_and_not_waited_for(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "SILENCE_S", 0.3)
    monkeypatch.setattr(postgres_database, "CONNECT_S", 2)  # the least that there is
    async with servers(own_postgres, 1, unsure_s=0.1) as (one,):
        kept = await one.submit()
        with own_postgres.standing_still(), anyio.fail_after(DEADLINE_S):
            with pytest.raises(StoreError):
                await one.submit()
            with pytest.raises(StoreError):
                await one.store.get(kept.id)

        await one.heard(lambda change: change == ANYTHING)
        last = await _insist(one.submit)
        assert {kept.id, last.id} <= {job.id for job in await _insist(one.store.list)}


async def test_a_server_that_stands_still_loses_the_lock_that_says_that_it_lives(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_listener, "STANDSTILL_S", 0.2)  # shorter than it is silent between two looks
    async with servers(postgres, 1) as (one,):
        with psycopg.connect(postgres.url) as database:
            if database.info.server_version < 140_000:
                pytest.skip("PostgreSQL 13 ends no idle session")
        await one.heard(lambda change: change == ANYTHING)
