"""The short way of an HTTP call and the application's: which one a request takes; nobody can tell them apart."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.cluster.gateway.guard import Guard, KeyGuard, LoopbackGuard
from flashfw.cluster.gateway.http_calls import HttpTarget
from flashfw.cluster.gateway.intake import Intake
from flashfw.cluster.gateway.routes import Found
from flashfw.cluster.gateway.short_jobs import ShortJobs
from flashfw.cluster.gateway.short_way import Answer, ShortCall, ShortWay, answer_of, way_of
from flashfw.cluster.listening import server
from flashfw.cluster.listening.asked import Asked
from flashfw.cluster.listening.binding import bind
from flashfw.worker.frames import Kind
from flashfw.worker.http_frames import response_head
from tests.cluster.bench import ClusterBench, a_function, an_endpoint, clustering

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0
GET = b"GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
JSON = [("content-type", "application/json"), ("content-length", "2")]
WAYS = [pytest.param(True, id="short"), pytest.param(False, id="application")]


class Front:
    """A cluster with one endpoint behind a real socket; `taken` are the requests that went the short way."""

    def __init__(self, bench: ClusterBench, address: tuple[str, int]) -> None:
        self.bench = bench
        self.address = address
        self.taken: list[Asked] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self._writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def called(self) -> None:
        await self.bench.until(lambda: bool(self.bench.worker.calls))

    def say(self, kind: Kind, meta: Any, body: bytes = b"", number: int | None = None) -> None:
        """What the worker says of the call that is under way."""
        worker = self.bench.worker
        number = worker.number if number is None else number
        if kind in (Kind.FAILURE, Kind.GONE) or meta.get("end"):
            del worker.calls[number]
        worker.send(kind, number, meta, body)

    def answer(self, body: bytes = b"{}", number: int | None = None) -> None:
        self.say(Kind.HEAD, {"status": 200, "headers": JSON, "end": True}, body, number)

    @property
    def slots(self) -> list[int]:
        return [worker.slots_used for worker in self.bench.cluster.dispatchers["api"].pool.workers]


@asynccontextmanager
async def fronted(
    folder: Path, *, kind: str = "http", is_short: bool = True, guard: Guard | None = None, **changes: Any
) -> AsyncIterator[Front]:
    posted = [a_function("api", kind, id="api::post", method="POST")] if kind == "http" else []
    functions = (a_function("api", kind), *posted)
    changes = {"functions": functions, "concurrency": 4, "workers_min": 1, "max_body_bytes": 100, **changes}
    async with clustering(folder, an_endpoint("api", kind, **changes)) as bench:
        await bench.advance(0.5)
        bench.gateway._guard = guard = guard or LoopbackGuard()
        front = Front(bench, ("", 0))

        class Counted(ShortWay):
            def begin(self, asked: Asked) -> bool:
                is_taken = super().begin(asked)
                front.taken += [asked] * is_taken
                return is_taken

        emit, gateway = bench.events.append, bench.gateway
        intake = Intake(bench.cluster.watch, bench.clock, bench.store)
        jobs = ShortJobs(intake, emit=emit, wait_on=gateway.wait_on)
        short = Counted(bench.cluster, jobs=jobs, guard=guard, clock=bench.clock, emit=emit, go_on=gateway.go_on)
        sock = bind("127.0.0.1", 0)
        front.address = sock.getsockname()
        try:
            async with server.serving(bench.gateway, sock, grace_s=1.0, answerer=short if is_short else None):
                yield front
        finally:
            await front.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    with anyio.fail_after(DEADLINE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b"reset"


async def until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    with anyio.fail_after(DEADLINE_S):
        return await reader.readuntil(end)


@pytest.mark.parametrize(
    ("changes", "is_short"),
    [
        ({}, True),
        ({"middleware": ("middleware.py",)}, True),
        ({"public": True}, True),
        ({"timeout_s": 0.4}, False),
        ({"kind": "app"}, False),
        ({"method": "WEBSOCKET", "kind": "websocket"}, False),
    ],
)
def test_which_functions_may_be_called_the_short_way(changes: dict[str, Any], is_short: bool) -> None:
    kind = changes.pop("kind", "http")
    target = HttpTarget(a_function("api", kind, **changes), None)  # type: ignore[arg-type]

    assert (way_of(Found(target)) is not None) is is_short


def test_what_is_not_there_has_no_short_way() -> None:
    assert way_of(None) is None
    assert way_of(Found(None)) is None


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (
            response_head(200, [(b"Content-Length", b"2"), (b"x", b"")], end=True),
            Answer(200, b"content-length: 2\r\nx: \r\n", 2),
        ),
        (response_head(204, [], end=True), Answer(204, b"", 0)),
        (response_head(404, [(b"content-length", b"0")], end=True), Answer(404, b"content-length: 0\r\n", 0)),
        (response_head(200, [(b"content-length", b"2")], end=False), None),
        (response_head(200, [], end=True), None),
        (response_head(103, [(b"content-length", b"0")], end=True), None),
        (response_head(200, [(b"content-length", b"2"), (b"content-length", b"2")], end=True), None),
        (response_head(200, [(b"content-length", b"+2")], end=True), None),
        (response_head(200, [(b"content-length", b"2"), (b"Connection", b"close")], end=True), None),
        (response_head(200, [(b"transfer-encoding", b"chunked")], end=True), None),
        (response_head(200, [(b"content-length", b"2"), (b"x", b"a\r\nb: c")], end=True), None),
    ],
)
def test_which_answers_are_written_at_once(head: bytes, answer: Answer | None) -> None:
    assert answer_of(head) == answer


async def test_a_call_takes_the_short_way_and_its_connection_goes_on(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front:
        reader, writer = await front.connect()
        for n in range(2):
            writer.write(b"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n%d" % n)
            await front.called()
            frame = front.bench.worker.calls[front.bench.worker.number]
            assert (frame.meta["function"], frame.body, front.slots) == ("api::post", b"%d" % n, [1])
            front.answer()
            assert (await until(reader, b"{}")).startswith(b"HTTP/1.1 200 OK\r\ndate: ")
        writer.close()

        assert (len(front.taken), front.slots) == (2, [0])
        assert [event["status"] for event in front.bench.named("request")] == [200, 200]


@pytest.mark.parametrize("is_short", WAYS)
async def test_a_response_in_pieces(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, is_short=is_short) as front:
        reader, writer = await front.connect()
        writer.write(GET)
        await front.called()
        front.say(Kind.HEAD, {"status": 200, "headers": [], "end": False}, b"one")
        front.say(Kind.DATA, {"end": False}, b"two")
        await until(reader, b"3\r\none\r\n3\r\ntwo\r\n")
        front.say(Kind.DATA, {"end": True})
        await until(reader, b"0\r\n\r\n")
        writer.write(LAST)

        assert b"404" in await rest(reader)
        assert front.slots == [0]


@pytest.mark.parametrize("is_short", WAYS)
@pytest.mark.parametrize("waits_s", [0.0, 10.0])
async def test_a_client_that_leaves(tmp_path: Path, is_short: bool, waits_s: float) -> None:
    async with fronted(tmp_path, is_short=is_short) as front:
        _, writer = await front.connect()
        writer.write(GET)
        await front.called()
        await front.bench.advance(waits_s or 1.0)
        writer.close()
        await front.bench.until(lambda: bool(front.bench.named("request")))
        await front.bench.until(lambda: bool(front.bench.worker.said(Kind.CANCEL)))
        (cancel,) = front.bench.worker.said(Kind.CANCEL)
        await front.bench.until(lambda: front.slots == [0])

        assert cancel.meta["reason"] == "disconnect"
        assert [event["status"] for event in front.bench.named("request")] == [499]


async def test_a_client_that_leaves_the_short_way_is_noticed_at_once(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front:
        front.bench.worker.is_obedient = False
        _, writer = await front.connect()
        writer.write(GET)
        await front.called()
        writer.close()
        await front.bench.until(lambda: bool(front.bench.worker.said(Kind.CANCEL)))
        front.say(Kind.GONE, {})
        await front.bench.until(lambda: front.slots == [0])

        assert [event["status"] for event in front.bench.named("request")] == [499]


@pytest.mark.parametrize("is_short", WAYS)
async def test_a_call_that_takes_too_long(tmp_path: Path, is_short: bool) -> None:
    function = a_function("api", "http", timeout_s=10.0)
    async with fronted(tmp_path, is_short=is_short, functions=(function,)) as front:
        reader, writer = await front.connect()
        writer.write(GET)
        await front.called()
        await front.bench.advance(9.0)
        assert not front.bench.named("request")
        await front.bench.advance(2.0)
        writer.write(LAST)
        said = await rest(reader)

        assert said.startswith(b"HTTP/1.1 504 ")
        assert b"sent nothing for 10 s" in said
        assert [frame.meta["reason"] for frame in front.bench.worker.said(Kind.CANCEL)] == ["timeout"]
        assert front.slots == [0]


@pytest.mark.parametrize("is_short", WAYS)
async def test_a_worker_that_is_lost(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, is_short=is_short) as front:
        reader, writer = await front.connect()
        writer.write(GET)
        await front.called()
        front.bench.worker.die(9)
        said = await until(reader, b"}}")

        assert said.startswith(b"HTTP/1.1 502 ")
        assert b"worker_lost" in said
        writer.close()


@pytest.mark.parametrize("is_short", WAYS)
async def test_requests_on_one_connection_are_answered_in_order(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, is_short=is_short) as front:
        reader, writer = await front.connect()
        writer.write(GET + GET + LAST)
        for body in (b"11", b"22"):
            await front.called()
            front.answer(body)
            await until(reader, body)
        assert b"404" in await rest(reader)


async def test_a_call_that_is_under_way_when_the_server_ends_is_answered(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        stop, stopping = anyio.Event(), anyio.Event()
        fronts: list[Front] = []

        async def serve() -> None:
            async with fronted(tmp_path) as front:
                fronts.append(front)
                stopping.set()
                await stop.wait()

        tasks.start_soon(serve)
        await stopping.wait()
        (front,) = fronts
        reader, writer = await front.connect()
        writer.write(GET)
        await front.called()
        stop.set()
        (asked,) = front.taken
        await front.bench.until(lambda: not asked.keep_alive)
        front.answer()
        said = await rest(reader)
        writer.close()

    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in said


@pytest.mark.parametrize("is_short", WAYS)
async def test_the_key_of_the_server_is_asked_for(tmp_path: Path, is_short: bool) -> None:
    async with fronted(tmp_path, is_short=is_short, guard=KeyGuard("secret")) as front:
        reader, writer = await front.connect()
        writer.write(GET)
        assert (await until(reader, b"}}")).startswith(b"HTTP/1.1 401 ")
        writer.write(GET[:-2] + b"Authorization: Bearer secret\r\n\r\n")
        await front.called()
        front.answer()
        await until(reader, b"{}")
        writer.close()

        assert len(front.taken) == is_short


@pytest.mark.parametrize("is_short", WAYS)
async def test_a_defect_is_told_and_answered(tmp_path: Path, is_short: bool) -> None:
    class Broken(LoopbackGuard):
        def check(self, scope: Any, **asked: Any) -> Any:
            raise RuntimeError("no idea")

    async with fronted(tmp_path, is_short=is_short, guard=Broken()) as front:
        reader, writer = await front.connect()
        writer.write(GET)

        assert (await until(reader, b"}}")).startswith(b"HTTP/1.1 500 ")
        assert {event["error"] for event in front.bench.named("internal")} == {"RuntimeError: no idea"}
        assert front.slots == [0]


def requests(methods: list[bytes], urls: list[bytes], versions: list[bytes], more: list[bytes]) -> Any:
    benign = [b"Host: localhost\r\n", b"User-Agent: it\r\n", b"Connection: keep-alive\r\n"]
    return st.builds(
        lambda method, url, version, headers, body: (
            b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, url, version, b"".join(headers) + body[0], body[1])
        ),
        st.sampled_from(methods),
        st.sampled_from(urls),
        st.sampled_from(versions),
        st.lists(st.sampled_from(benign + more), max_size=3),
        st.sampled_from([(b"", b""), (b"Content-Length: 5\r\n", b"hello"), *(BODIES if more else ())]),
    )


BODIES = [
    (b"Content-Length: 101\r\n", b"x" * 101),
    (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
]
PLAIN = requests([b"GET", b"POST"], [b"/api", b"/api?q=%20", b"/%61pi"], [b"1.1"], [])
ALL = requests(
    [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS"],
    [b"/api", b"/api/", b"/_flashfw/live", b"http://localhost/api"],
    [b"1.1", b"1.0"],
    [
        b"Host: evil.example\r\n",
        b"Connection: close\r\n",
        b"Origin: http://localhost:3000\r\n",
        b"Expect: 100-continue\r\n",
        b"Cookie: a=\xe9; b=c\r\n",
    ],
)
SENT = st.tuples(PLAIN, st.just(0)) | st.tuples(ALL, st.integers(0, 100))
"""A request, and where it is cut in two."""
HEADERS = st.lists(
    st.sampled_from(
        [
            ("content-length", "2"),
            ("Content-Length", "2"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
            ("Set-Cookie", "a=b"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("x-bad", "a\rb"),
        ]
    ),
    max_size=3,
)
Response = tuple[int, list[tuple[str, str]], bytes, int]
"""Status, headers, the body of the head, and how many further pieces come."""
RESPONSES = st.tuples(
    st.sampled_from([200, 200, 201, 204, 304, 404, 500]), HEADERS, st.sampled_from([b"", b"{}"]), st.integers(0, 2)
)


def test_nobody_can_tell_the_ways_apart(tmp_path: Path) -> None:
    """The same bytes to the client, the same frames to the worker, the same events."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(fronted(tmp_path)) as short,
        portal.wrap_async_context_manager(fronted(tmp_path, is_short=False)) as application,
    ):

        @settings(max_examples=150, deadline=None)
        @given(SENT, RESPONSES)
        def compare(sent: tuple[bytes, int], response: Response) -> None:
            seen = [portal.call(exchanged, front, *sent, response) for front in (short, application)]
            assert seen[0] == seen[1]

        compare()

        assert 0 < len(short.taken) < 150
        assert application.taken == []


async def test_nothing_of_a_call_is_left_to_the_garbage_collector(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front:
        reader, writer = await front.connect()
        gc.collect()
        gc.disable()
        try:
            before = requests_in_memory()
            for _ in range(8):
                writer.write(GET)
                await front.called()
                front.answer()
                await until(reader, b"{}")
            front.taken.clear()
            left = requests_in_memory() - before
        finally:
            gc.enable()

        assert left <= 1  # that of the last request, which its connection keeps until the next one


def requests_in_memory() -> int:
    return sum(isinstance(found, Asked | ShortCall) for found in gc.get_objects())


async def exchanged(front: Front, request: bytes, cut: int, response: Response) -> tuple[bytes, list[Any], list[Any]]:
    """What a client, a worker and a listener get of a request that comes in two pieces, and of its response."""
    status, headers, body, pieces = response
    bench, worker = front.bench, front.bench.worker
    bench.events.clear()
    worker.heard.clear()
    reader, writer = await front.connect()
    writer.write(request[:cut])
    await bench.settle(2)
    writer.write(request[cut:] + LAST)
    answered = asyncio.ensure_future(rest(reader))
    await bench.until(lambda: bool(worker.calls) or answered.done())
    if worker.calls:
        front.say(Kind.HEAD, {"status": status, "headers": headers, "end": not pieces}, body)
        for left in reversed(range(pieces)):
            front.say(Kind.DATA, {"end": not left}, b"more")
    said = await answered
    await bench.until(lambda: front.slots == [0])
    heard = [(frame.kind, {**frame.meta, "client": None, "server": None}, frame.body) for frame in worker.heard]
    events = [{**event, "duration_s": 0} for event in bench.named("request")]
    return re.sub(rb"date: [^\r]*", b"", said), heard, events
