"""Plain requests that came whole: which these are, and who answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httptools
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from flashfw.cluster.listening.asked import Asked, is_plain
from flashfw.cluster.listening.connections import Connection, Limits

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0
LINES = b"content-length: 2\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("version", "method", "url", "headers", "plain"),
    [
        ("1.1", b"GET", b"/", [], True),
        ("1.1", b"DELETE", b"/a?b=%20#", [], False),
        ("1.1", b"PATCH", b"/a?b=%20", [(b"connection", b"Keep-Alive"), (b"content-length", b"9")], True),
        ("1.0", b"GET", b"/", [], False),
        ("1.1", b"HEAD", b"/", [], False),
        ("1.1", b"OPTIONS", b"*", [], False),
        ("1.1", b"CONNECT", b"x:443", [], False),
        ("1.1", b"GET", b"http://x/", [], False),
        ("1.1", b"GET", b"/\xc3\xa9", [], False),
        ("1.1", b"GET", b"/", [(b"connection", b"close")], False),
        ("1.1", b"GET", b"/", [(b"connection", b"keep-alive, upgrade")], False),
        ("1.1", b"GET", b"/", [(b"proxy-connection", b"close")], False),
        ("1.1", b"GET", b"/", [(b"upgrade", b"websocket")], False),
        ("1.1", b"POST", b"/", [(b"expect", b"100-continue")], False),
        ("1.1", b"POST", b"/", [(b"transfer-encoding", b"chunked")], False),
        ("1.1", b"GET", b"/", [(b"cookie", b"a"), (b"cookie", b"b")], False),
    ],
)
def test_which_requests_are_plain(
    version: str, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]], plain: bool
) -> None:
    assert is_plain(version, method, url, dict(headers), len(headers)) is plain


@given(st.text("/a?%2f;:@&=+$,.-_~!*'()[]\\\"", max_size=12))
def test_a_url_is_taken_apart_as_the_parser_does_it(text: str) -> None:
    url = b"/" + text.encode()
    parsed = httptools.parse_url(url)
    asked = Asked(None, "GET", url, [], {}, b"", [])  # type: ignore[arg-type]

    assert (asked.raw_path, asked.query) == (parsed.path, parsed.query or b"")


class Answerer:
    """Takes all there is; `asked` are the requests that wait for `answer`, unless it `answers` at once."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers = True

    def begin(self, asked: Asked) -> bool:
        self.asked.append(asked)
        if self.answers:
            assert asked.answer(200, LINES, b"ok")
        return True


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


@asynccontextmanager
async def listening(answerer: Answerer, keep_alive_s: float, app: ASGIApp = refuse) -> AsyncIterator[tuple[str, int]]:
    offering = type("Offering", (Connection,), {"answerer": answerer, "limits": Limits(idle_s=keep_alive_s)})
    config = uvicorn.Config(app, ws="none", http=offering, log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: config.http_protocol_class(config, state, {}), "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()
    finally:
        listener.close()


async def test_an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not() -> None:
    answerer = Answerer()
    async with listening(answerer, keep_alive_s=0.5) as address:
        reader, writer = await asyncio.open_connection(*address)
        with anyio.fail_after(DEADLINE_S):
            writer.write(GET)
            await reader.readuntil(b"ok")
            answerer.answers = False
            writer.write(GET)
            await anyio.sleep(0.7)  # longer than an idle one lives
            assert not reader.at_eof()
            assert answerer.asked[1].answer(200, LINES, b"ok")
            assert (await reader.read()).endswith(b"ok")
        writer.close()


async def test_what_is_not_plain_is_the_applications_on_the_same_connection() -> None:
    answerer = Answerer()
    async with listening(answerer, keep_alive_s=5.0) as address:
        reader, writer = await asyncio.open_connection(*address)
        with anyio.fail_after(DEADLINE_S):
            for request, said in ((GET, b"ok"), (b"HEAD" + GET[3:], b"\r\n\r\n"), (GET, b"ok")):
                writer.write(request)
                await reader.readuntil(said)
        writer.close()

    assert [asked.method for asked in answerer.asked] == ["GET"] * 2


async def test_a_small_body_is_waited_for_a_moment() -> None:
    answerer = Answerer()
    async with listening(answerer, keep_alive_s=5.0) as address:
        reader, writer = await asyncio.open_connection(*address)
        with anyio.fail_after(DEADLINE_S):
            writer.write(post(4) + b"ha")
            await anyio.sleep(0.005)
            writer.write(b"lf" + GET)
            for _ in range(2):
                await reader.readuntil(b"ok")
            writer.write(post(4) + b"ha")
            await reader.readuntil(b"no")
            writer.write(b"lf" + post(1 << 20) + b"x")
            await reader.readuntil(b"no")
        writer.close()

    assert [asked.body for asked in answerer.asked] == [b"half", b""]


async def test_who_leaves_while_its_body_is_waited_for_is_known_to_the_application() -> None:
    heard: list[str] = []
    left = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not heard or heard[-1] != "http.disconnect":
            heard.append((await receive())["type"])
        left.set()

    answerer = Answerer()
    async with listening(answerer, keep_alive_s=5.0, app=app) as address:
        _, writer = await asyncio.open_connection(*address)
        with anyio.fail_after(DEADLINE_S):
            writer.write(post(4) + b"ha")
            await writer.drain()
            writer.close()
            await left.wait()

    assert answerer.asked == []


async def test_what_has_its_answer_gets_no_second_one() -> None:
    answerer = Answerer()
    async with listening(answerer, keep_alive_s=0.1) as address:
        reader, writer = await asyncio.open_connection(*address)
        with anyio.fail_after(DEADLINE_S):
            writer.write(GET)
            await reader.readuntil(b"ok")
            answerer.asked[0].go_on(refuse)
            writer.write(GET)
            assert (await reader.read()).count(b"HTTP/1.1") == 1
        writer.close()


def post(length: int) -> bytes:
    return b"POST" + GET[3:-2] + b"Content-Length: %d\r\n\r\n" % length
