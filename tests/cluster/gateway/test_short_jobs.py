"""The short way of a job's call and the application's: which one a request takes; nobody can tell them apart."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.cluster.events import Event
from flashfw.cluster.gateway.http_calls import NOTICE_GONE_AFTER_S
from flashfw.cluster.gateway.plain import WAIT_S
from flashfw.cluster.jobs.model import State
from flashfw.cluster.jobs.store import StoreError
from flashfw.worker.frames import Kind
from tests.cluster.gateway.test_short_way import WAYS, Front, fronted, until

pytestmark = pytest.mark.anyio

POST = b"POST /api HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b"
FAILURE = {"reason": "handler_error", "type": "KeyError", "message": "mine"}


def post(body: bytes = b"{}", headers: bytes = b"") -> bytes:
    return POST % (headers, len(body), body)


async def head_and_body(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await until(reader, b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    return head, await reader.readexactly(int(length[1]))


def record(front: Front) -> Any:
    """The job that was accepted last, as the store has it."""
    return asyncio.ensure_future(_record(front))


async def _record(front: Front) -> Any:
    (job,) = await front.bench.store.list(limit=1)
    return job


@pytest.mark.parametrize(
    ("request_", "is_short"),
    [
        (post(), True),
        (post(b""), True),
        (post(headers=b"Content-Type: application/json; charset=utf-8\r\n"), True),
        (post(headers=b"Accept: application/json\r\n"), True),
        (post(headers=b"Accept: text/event-stream\r\n"), False),
        (post(headers=b"Prefer: respond-async\r\n"), True),
        (post(headers=b"Prefer: wait=1\r\n"), False),
        (post(headers=b"Idempotency-Key: one\r\n"), False),
        (post(headers=b"Flashfw-Priority: low\r\n"), False),
        (post(headers=b"Content-Type: text/plain\r\n"), False),
        (post(headers=b"Content-Encoding: gzip\r\n"), False),
        (post(b"{"), False),
        (post(b"1" * 101), False),
    ],
)
async def test_which_way_a_call_takes(tmp_path: Path, request_: bytes, is_short: bool) -> None:
    async with fronted(tmp_path, kind="job") as front:
        _, writer = await front.connect()
        writer.write(request_)
        await front.bench.until(lambda: bool(front.bench.worker.calls or front.bench.named("request")))
        writer.close()

        assert bool(front.taken) is is_short


@pytest.mark.parametrize("is_short", WAYS)
async def test_a_call_is_answered_with_the_output_once_that_is_kept(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, kind="job", is_short=is_short) as front:
        reader, writer = await front.connect()
        for number in range(3):  # on one connection
            writer.write(post(b'{"a": 1}'))
            await front.called()
            job = await record(front)
            assert job.state is State.IN_PROGRESS
            assert front.bench.worker.calls[front.bench.worker.number].body == b'{"a": 1}'
            front.say(Kind.RESULT, {"end": True}, b"%d" % number)
            head, body = await head_and_body(reader)
            ended = await record(front)

            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"flashfw-job: %b\r\n" % job.id.encode() in head
            assert body == b"%d" % number
            assert (ended.state, ended.id) == (State.COMPLETED, job.id)
        writer.close()

        await front.bench.settle()
        assert front.slots == [0]
        assert [fields["status"] for fields in front.bench.named("request")] == [200] * 3
        assert len(front.taken) == 3 * is_short


@pytest.mark.parametrize("is_short", WAYS)
async def test_whoever_waits_for_long_gets_the_id(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, kind="job", is_short=is_short) as front:
        reader, writer = await front.connect()
        writer.write(post())
        await front.called()
        await front.bench.advance(3 * NOTICE_GONE_AFTER_S)
        assert not front.bench.named("request")
        await front.bench.advance(WAIT_S)
        head, body = await head_and_body(reader)
        front.say(Kind.RESULT, {"end": True}, b"1")
        await front.bench.until(lambda: bool(front.bench.named("job")))
        writer.close()

        assert head.startswith(b"HTTP/1.1 202 Accepted\r\n")
        assert json.loads(body)["id"] == (await record(front)).id
        assert not front.bench.cluster.watch.watched()


@pytest.mark.parametrize("is_short", WAYS)
async def test_an_end_that_is_no_output_is_told_by_its_status(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, kind="job", is_short=is_short) as front:
        reader, writer = await front.connect()
        writer.write(post())
        await front.called()
        front.say(Kind.FAILURE, FAILURE)
        head, body = await head_and_body(reader)
        writer.close()

        assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert json.loads(body)["error"]["message"] == "mine"


@pytest.mark.parametrize("is_short", WAYS)
async def test_a_caller_who_leaves_takes_no_job_along(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, kind="job", is_short=is_short) as front:
        _, writer = await front.connect()
        writer.write(post())
        await front.called()
        writer.close()
        await front.bench.settle()
        front.say(Kind.RESULT, {"end": True}, b"1")
        await front.bench.until(lambda: bool(front.bench.named("request")))

        assert (await record(front)).state is State.COMPLETED
        assert not front.bench.cluster.watch.watched()
        assert front.slots == [0]


@pytest.mark.parametrize("is_short", WAYS)
@pytest.mark.parametrize("prefer", [b"", b"Prefer: respond-async\r\n"])
async def test_a_job_that_cannot_be_kept_is_refused_and_not_run(
    tmp_path: Path, is_short: bool, prefer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fronted(tmp_path, kind="job", is_short=is_short) as front:
        refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        refused.set_exception(StoreError("the disk is full"))
        monkeypatch.setattr(front.bench.store, "submit", lambda *job, **how: refused)
        reader, writer = await front.connect()
        writer.write(post(headers=prefer))
        head, body = await head_and_body(reader)
        writer.close()

        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert json.loads(body)["error"]["message"] == "the disk is full"
        assert front.slots == [0]
        assert not front.bench.worker.calls


@pytest.mark.parametrize("is_short", WAYS)
async def test_when_the_server_ends_the_caller_gets_the_id(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, kind="job", is_short=is_short) as front:
        reader, writer = await front.connect()
        writer.write(post())
        await front.called()
        front.bench.cluster.watch.dismiss()
        head, _ = await head_and_body(reader)
        writer.close()

        assert head.startswith(b"HTTP/1.1 202 Accepted\r\n")


BODIES = st.sampled_from([b"", b"{}", b'{"a": 1}', b"[1, 2]", b"{", b"NaN", b"1" * 101])
HEADERS = st.lists(
    st.sampled_from(
        [
            b"Accept: */*\r\n",
            b"Accept: application/json\r\n",
            b"Content-Type: application/json\r\n",
            b"Content-Type: text/plain\r\n",
            b"Prefer: respond-async\r\n",
            b"Prefer: respond-async, wait=1\r\n",
            b"Flashfw-Timeout: 10\r\n",
            b"Flashfw-Priority: none\r\n",
        ]
    ),
    max_size=2,
)
ENDS = st.sampled_from(
    [(Kind.RESULT, {"end": True}, b"1"), (Kind.RESULT, {"end": True}, b'{"$file": 1}'), (Kind.FAILURE, FAILURE, b"")]
)
_VARIES = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|date: [^\r]+")


async def exchanged(front: Front, request: bytes, end: tuple[Kind, Any, bytes]) -> Any:
    """What is answered, and what is told of it."""
    bench = front.bench
    bench.events.clear()
    reader, writer = await front.connect()
    writer.write(request)
    await bench.until(lambda: bool(bench.worker.calls or bench.named("request")))
    if bench.worker.calls:
        kind, meta, body = end
        front.say(kind, dict(meta), body)
    answer = await head_and_body(reader)
    await bench.until(lambda: bool(bench.named("request")) and not any(front.slots))
    writer.close()
    (told,) = bench.named("request")
    return [_VARIES.sub(b"", part) for part in answer], {**told, "duration_s": 0}, names(bench.events)


def names(events: list[Event]) -> list[str]:
    return sorted(event.name for event in events if event.name.startswith("job"))


def test_nobody_can_tell_the_ways_apart(tmp_path: Path) -> None:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(fronted(tmp_path, kind="job")) as short,
        portal.wrap_async_context_manager(fronted(tmp_path, kind="job", is_short=False)) as application,
    ):

        @settings(max_examples=80, deadline=None)
        @given(BODIES, HEADERS, ENDS)
        def compare(body: bytes, headers: list[bytes], end: tuple[Kind, Any, bytes]) -> None:
            request = post(body, b"".join(headers))
            seen = [portal.call(exchanged, front, request, end) for front in (short, application)]
            assert seen[0] == seen[1]

        compare()

        assert short.taken
        assert application.taken == []
