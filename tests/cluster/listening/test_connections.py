"""Clients that are slow, never stop, or are refused before they have said all: real sockets to a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from flashfw.cluster.listening import server
from flashfw.cluster.listening.binding import bind
from flashfw.cluster.listening.connections import Limits

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0
HOST = b"Host: 127.0.0.1\r\n"
REFUSAL = b'{"error": "too large"}'


class App:
    """An application that refuses `/refuse` by its head, and reads all else; it notes what it heard."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.left = anyio.Event()
        self.reads = anyio.Event()
        self.reads.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/refuse":
            await answer(send, 413, REFUSAL)
            return
        size = 0
        await self.reads.wait()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            size += len(message["body"])
            if not message["more_body"]:
                break
        self.sizes.append(size)
        await answer(send, 200, str(size).encode())


async def answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def rest(self) -> bytes:
        """All that comes until the server closes; a reset is an error."""
        with anyio.fail_after(DEADLINE_S):
            return await self._reader.read()

    async def until(self, end: bytes) -> bytes:
        with anyio.fail_after(DEADLINE_S):
            return await self._reader.readuntil(end)

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass


Connect = Callable[[], Awaitable[Client]]


@asynccontextmanager
async def serving(app: App, **limits: float) -> AsyncIterator[Connect]:
    sock = bind("127.0.0.1", 0)
    host, port = sock.getsockname()
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection(host, port)))
        return clients[-1]

    try:
        async with server.serving(app, sock, grace_s=1.0, limits=Limits(**limits)):  # type: ignore[arg-type]
            yield connect
    finally:  # a server does not wait for them
        for client in clients:
            await client.close()


def post(path: bytes, *headers: bytes) -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


async def test_what_comes_after_a_body_is_no_header() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app) as connect:
        client = await connect()
        for _ in range(2):  # also where the connection is kept
            await client.send(post(b"/", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\nX-User: forged\r\n\r\n")
            await client.until(b"\r\n\r\n")

    assert [name for name, _ in seen] == [b"host", b"transfer-encoding"] * 2


@pytest.mark.parametrize("size", [100_000, 50_000_000])
@pytest.mark.parametrize("close", [[b"Connection: close"], []])
async def test_a_refusal_is_heard_by_who_sends_all_first(size: int, close: list[bytes]) -> None:
    async with serving(App(), unread_bytes=1_000_000) as connect:
        client = await connect()
        await client.send(post(b"/refuse", b"Content-Length: %d" % size, *close))
        for _ in range(size // 100_000):
            await client.send(b"x" * 100_000)
        heard = await client.until(REFUSAL)

        assert heard.startswith(b"HTTP/1.1 413 ")
        if close or size > 1_000_000:
            assert await client.rest() == b""
        else:
            await client.send(post(b"/", b"Content-Length: 1") + b"x")
            assert (await client.until(b"\r\n\r\n1")).startswith(b"HTTP/1.1 200 ")


async def test_who_never_stops_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(App(), linger_most_s=0.3) as connect:
        client = await connect()
        await client.send(post(b"/refuse", b"Transfer-Encoding: chunked", b"Connection: close"))

        async def never_stop() -> None:
            while True:
                await client.send(b"5\r\nabcde\r\n" * 1000)

        with anyio.fail_after(DEADLINE_S), pytest.raises(ConnectionError):
            await never_stop()

    assert caplog.records == []


async def test_who_is_silent_after_a_refusal_is_left() -> None:
    async with serving(App(), linger_s=0.1) as connect:
        client = await connect()
        await client.send(post(b"/refuse", b"Content-Length: 10", b"Connection: close") + b"x")

        assert (await client.rest()).endswith(REFUSAL)


async def test_a_head_that_is_too_large_is_431_for_who_sends_all_of_it_first() -> None:
    async with serving(App(), head_bytes=100_000, linger_s=0.1) as connect:
        client = await connect()
        await client.send(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(100):
            await client.send(b"y" * 100_000)

        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("rest", [b"POST / HT", b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: y"])
async def test_a_head_that_is_not_whole_in_time_is_408(rest: bytes) -> None:
    async with serving(App(), head_s=0.2) as connect:
        client = await connect()
        await client.send(rest)
        heard = await client.rest()

        assert heard.startswith(b"HTTP/1.1 408 ")
        assert json.loads(heard.partition(b"\r\n\r\n")[2])["error"]["message"] == "the head took longer than 0.2 s"


async def test_a_head_that_comes_byte_by_byte_is_408() -> None:
    async with serving(App(), head_s=0.3) as connect:
        client = await connect()
        head = post(b"/", b"X: " + b"y" * 10_000)

        async def dribble() -> None:
            for byte in head:
                await client.send(bytes([byte]))
                await asyncio.sleep(0.01)

        dribbling = asyncio.ensure_future(dribble())
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        dribbling.cancel()
        await asyncio.wait([dribbling])


async def test_the_second_head_has_as_long_as_the_first() -> None:
    async with serving(App(), head_s=1.0) as connect:
        client = await connect()
        await client.send(post(b"/", b"Content-Length: 1") + b"x")
        await client.until(b"\r\n\r\n1")
        await asyncio.sleep(1.1)
        await client.send(post(b"/", b"Content-Length: 2") + b"xy")
        await client.until(b"\r\n\r\n2")
        await client.send(b"POST")

        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


async def test_who_says_nothing_is_left_without_a_word() -> None:
    async with serving(App(), head_s=0.1) as connect:
        assert await (await connect()).rest() == b""


async def test_who_had_an_answer_may_ask_again_for_longer_than_proxies_keep_connections() -> None:
    assert Limits().idle_s > 60.0
    async with serving(App(), idle_s=0.2) as connect:
        client = await connect()
        await client.send(post(b"/", b"Content-Length: 1") + b"x")
        assert (await client.rest()).endswith(b"\r\n\r\n1")  # and then the end, though nobody asked for it


async def test_a_body_that_stops_is_408_and_its_reader_hears_of_it() -> None:
    app = App()
    async with serving(app, body_s=0.2) as connect:
        client = await connect()
        await client.send(post(b"/", b"Content-Length: 10") + b"12345")
        heard = await client.rest()

        assert (heard[:13], b"nothing of the body came for 0.2 s" in heard) == (b"HTTP/1.1 408 ", True)
        with anyio.fail_after(DEADLINE_S):
            await app.left.wait()


async def test_a_body_that_comes_slowly_is_taken() -> None:
    app = App()
    async with serving(app, body_s=1.0, head_s=1.0) as connect:
        client = await connect()
        await client.send(post(b"/", b"Content-Length: 10"))
        for _ in range(10):
            await asyncio.sleep(0.15)
            await client.send(b"x")
        await client.until(b"\r\n\r\n10")

    assert app.sizes == [10]


@pytest.mark.parametrize("expect", [[b"Expect: 100-continue"], []])
async def test_nobody_is_slow_while_nobody_reads(expect: list[bytes]) -> None:
    """A call that is held for a worker: its body is more than is read ahead, or waits to be asked for."""
    app, size = App(), 1_000_000
    app.reads = anyio.Event()
    async with serving(app, body_s=0.2) as connect:
        client = await connect()
        await client.send(post(b"/", b"Content-Length: %d" % size, *expect))
        sending = asyncio.ensure_future(client.send(b"x" * (0 if expect else size)))
        await asyncio.sleep(0.5)
        app.reads.set()
        if expect:
            await client.until(b"100 Continue\r\n\r\n")
            await client.send(b"x" * size)
        await client.until(b"\r\n\r\n%d" % size)
        await sending

    assert app.sizes == [size]


@pytest.mark.parametrize("begun", [b"", b"POST", post(b"/", b"Content-Length: 10") + b"1", post(b"/refuse") + b"1"])
async def test_a_server_ends_though_clients_do_not(begun: bytes) -> None:
    with anyio.fail_after(DEADLINE_S):
        async with serving(App()) as connect:
            client = await connect()
            await client.send(begun)
            await asyncio.sleep(0.05)
