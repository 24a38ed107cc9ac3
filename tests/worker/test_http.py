from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

import pydantic
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.websockets import WebSocket

from flashfw import Header, HTTPError, injected
from flashfw.worker.fixtures import FixtureFailed
from tests.worker.http_call import SECRET, Socket, application, ask, each_way

__all__ = ["each_way"]


class Item(pydantic.BaseModel):
    name: str


@pytest.mark.parametrize(
    ("result", "status", "media", "body"),
    [
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        (Item(name="x"), 200, "application/json", b'{"name":"x"}'),
        ("text", 200, "application/json", b'"text"'),
        ([float("nan")], 200, "application/json", b"[null]"),
        (b"\xff", 200, "application/octet-stream", b"\xff"),
        (memoryview(b"m"), 200, "application/octet-stream", b"m"),
        (None, 204, None, b""),
        (PlainTextResponse("hi", 418, {"x-a": "b"}), 418, "text/plain; charset=utf-8", b"hi"),
    ],
)
def test_results(result: Any, status: int, media: str | None, body: bytes) -> None:
    def sync() -> Any:
        return result

    async def coroutine() -> Any:
        return result

    for handler in (sync, coroutine):
        response = ask(handler)
        assert (response.status_code, response.headers.get("content-type"), response.content) == (status, media, body)


def raising(error: BaseException) -> Any:
    def get() -> None:
        raise error

    return get


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (HTTPError(404, "no such item"), 404, {"detail": "no such item"}),
        (HTTPError(409, {"id": 3}), 409, {"detail": {"id": 3}}),
        (HTTPError(403), 403, {"detail": "Forbidden"}),
        (HTTPException(401), 401, {"detail": "Unauthorized"}),
        (HTTPException(400, f"the key {SECRET}"), 400, {"detail": "the key [redacted]"}),
    ],
)
def test_an_error_that_asks_for_a_status_gets_it(error: Exception, status: int, body: Any) -> None:
    response = ask(raising(error))

    assert (response.status_code, response.json()) == (status, body)


def test_headers_of_an_error_are_sent_and_cannot_split_the_response() -> None:
    error = HTTPError(401, "no", {"WWW-Authenticate": "Bearer", "X-A": "a\r\nX-B: b", "Content-Length": "9999"})

    response = ask(raising(error))

    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-a"] == "a  X-B: b"
    assert response.headers["content-length"] == str(len(response.content))
    assert ask(raising(HTTPError(304))).content == b""


def test_any_other_exception_is_500_with_type_place_and_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def get() -> None:
        raise KeyError(f"{SECRET} is gone")

    response = ask(get)
    error = response.json()["error"]

    assert response.status_code == 500
    assert (error["type"], error["message"]) == ("KeyError", "'[redacted] is gone'")
    assert error["place"] == f"test_http.py:{get.__code__.co_firstlineno + 1}"
    assert "in get" in error["traceback"]
    assert "flashfw/worker" not in error["traceback"]
    assert "shop::get failed: Traceback" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(3), HTTPError(7, "no status")])
def test_what_is_no_answer_is_500(error: BaseException) -> None:
    assert ask(raising(error)).json()["error"]["type"] == type(error).__name__


def test_a_result_that_cannot_be_encoded_names_its_place() -> None:
    response = ask(lambda: {"items": [object()]})

    assert response.status_code == 500
    assert response.json()["error"]["message"].startswith("output.items[0]: object of type object")


def test_a_sync_function_that_returns_a_coroutine_is_awaited() -> None:
    async def inner() -> int:
        return 3

    assert ask(lambda: inner()).json() == 3


def test_sync_code_runs_in_its_thread_and_async_code_on_the_loop() -> None:
    def sync() -> str:
        return threading.current_thread().name

    async def coroutine() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert ask(sync).json().startswith("flashfw-user-")
    assert ask(coroutine).json() is True


def test_request_and_fixtures_are_injected_and_win_over_the_caller() -> None:
    def get(request: Request, db: Any, other: Any = injected, **kw: Any) -> Any:
        return [request.query_params["q"], db, other, sorted(kw)]

    fixtures = {"db": "DB", "other": "OTHER", "unused": 1}

    assert ask(get, query="?q=1&x=2", fixtures=fixtures).json() == ["1", "DB", "OTHER", ["q", "x"]]
    assert ask(get, query="?q=1&db=2", fixtures=fixtures).status_code == 422


def test_fixtures_of_the_call_live_until_the_response_is_sent() -> None:
    story: list[str] = []

    @asynccontextmanager
    async def per_call(request: Request) -> AsyncIterator[dict[str, Any]]:
        story.append(f"open {request.method}")
        yield {"user": "me"}
        story.append("close")

    def get(user: Any = injected) -> Iterator[str]:
        yield user
        story.append("sent")

    assert ask(get, per_call=per_call, names=("user",)).text == "me"
    assert story == ["open GET", "sent", "close"]


def test_a_fixture_of_the_call_may_refuse_and_is_not_built_for_a_request_that_does_not_fit() -> None:
    @asynccontextmanager
    async def per_call(request: Request) -> AsyncIterator[dict[str, Any]]:
        raise FixtureFailed("user") from HTTPError(401, "who are you")
        yield {}

    def get(n: int, user: Any = injected) -> None: ...

    assert ask(get, query="?n=1", per_call=per_call, names=("user",)).json() == {"detail": "who are you"}
    assert ask(get, query="?n=x", per_call=per_call, names=("user",)).status_code == 422


# Streams.


def words() -> Iterator[str]:
    yield "é"
    yield b"!"  # type: ignore[misc]


def binary() -> Iterator[bytes]:
    yield b"\xff"
    yield b"\x00"


async def objects() -> AsyncIterator[Any]:
    yield Item(name="a")
    yield None
    yield "s\n"


def none() -> Iterator[int]:
    yield from ()


def expression() -> Any:
    return ({"n": n} for n in range(2))


@pytest.mark.parametrize(
    ("handler", "accept", "media", "body"),
    [
        (words, "*/*", "text/plain; charset=utf-8", "é!".encode()),
        (words, "text/event-stream", "text/plain; charset=utf-8", "é!".encode()),
        (binary, "*/*", "application/octet-stream", b"\xff\x00"),
        (objects, "*/*", "application/x-ndjson", b'{"name":"a"}\nnull\n"s\\n"\n'),
        (objects, "text/event-stream", "text/event-stream", b'data: {"name":"a"}\n\ndata: null\n\ndata: "s\\n"\n\n'),
        (none, "*/*", "application/x-ndjson", b""),
        (expression, "*/*", "application/x-ndjson", b'{"n":0}\n{"n":1}\n'),
    ],
)
def test_streams(handler: Any, accept: str, media: str, body: bytes) -> None:
    response = ask(handler, headers={"accept": accept})

    assert (response.status_code, response.headers["content-type"], response.content) == (200, media, body)


def test_context_variables_end_with_the_call() -> None:
    seen: ContextVar[int] = ContextVar("seen", default=0)

    def sync() -> int:
        seen.set(seen.get() + 1)
        return seen.get()

    async def coroutine() -> int:
        return sync()

    assert [ask(handler).json() for handler in (sync, sync, coroutine, coroutine)] == [1] * 4


def test_an_exception_before_the_first_item_is_an_answer() -> None:
    def sync() -> Iterator[int]:
        raise HTTPError(402, "pay")
        yield 1

    async def coroutine() -> AsyncIterator[Any]:
        yield object()

    assert ask(sync).status_code == 402
    assert ask(coroutine).json()["error"]["message"].startswith("chunk: object of type object")


@pytest.mark.parametrize("last", [ValueError("late"), object()])
def test_an_exception_after_it_cuts_the_stream_off(last: Any) -> None:
    ended: list[bool] = []

    def get() -> Iterator[Any]:
        try:
            yield "a"
            if isinstance(last, Exception):
                raise last
            yield last
        finally:
            ended.append(True)

    socket = Socket({"type": "http.request"})
    with pytest.raises(Exception, match="late|object of type object"):
        asyncio.run(application(get)(socket.scope, socket.receive, socket.send))

    assert socket.kinds == ["response.start", "response.body"]
    assert socket.sent[-1]["more_body"]
    assert ended == [True]


def test_no_item_is_made_before_the_last_one_is_sent() -> None:
    made: list[int] = []
    seen: list[int] = []

    def get() -> Iterator[bytes]:
        for n in range(3):
            made.append(n)
            yield b"x"

    socket = Socket({"type": "http.request"})

    async def send(message: Any) -> None:
        seen.append(len(made))

    asyncio.run(application(get)(socket.scope, socket.receive, send))

    assert seen == [1, 1, 2, 3, 3]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_cancelled_call_ends_its_generator(is_async: bool) -> None:
    ended: list[bool] = []

    async def steps() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            ended.append(True)

    def sync_steps() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            ended.append(True)

    async def call() -> None:
        begun = asyncio.Event()
        never = asyncio.Event()

        async def send(message: Any) -> None:
            begun.set()
            await never.wait()

        socket = Socket({"type": "http.request"})
        task = asyncio.create_task(application(steps if is_async else sync_steps)(socket.scope, socket.receive, send))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(call())

    assert ended == [True]


def test_starlettes_own_stream_passes_through() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    assert ask(lambda: StreamingResponse(chunks(), media_type="text/x-mine")).text == "ab"


def test_a_client_that_leaves_while_it_sends_is_answered_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def post(data: bytes) -> None: ...

    socket = Socket(
        {"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}, method="POST"
    )
    asyncio.run(application(post, "POST")(socket.scope, socket.receive, socket.send))

    assert socket.sent == []
    assert caplog.get_records("call") == []


# WebSockets.


async def echo(socket: WebSocket, n: int, token: Annotated[str, Header()] = "none") -> None:
    await socket.accept()
    text = await socket.receive_text()
    if text == "fail":
        raise ValueError(text)
    await socket.send_text(f"{text * n} {token}")


def talk(text: str, query: bytes) -> list[Any]:
    messages = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": text}]
    socket = Socket(*messages, type="websocket", query_string=query, headers=[(b"token", b"t")])
    asyncio.run(application(echo, "WEBSOCKET")(socket.scope, socket.receive, socket.send))
    return [message.get("text") or message.get("code") or message["type"] for message in socket.sent]


def test_a_websocket_is_bound_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    assert talk("ab", b"n=2") == ["websocket.accept", "abab t", 1000]
    assert talk("ab", b"n=x") == ["websocket.http.response.start", "websocket.http.response.body"]
    with caplog.at_level(logging.ERROR):
        assert talk("fail", b"n=2") == ["websocket.accept", 1011]
    assert "ValueError: fail" in caplog.text


def test_a_websocket_that_the_client_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    socket = Socket(
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1001},
        type="websocket",
        query_string=b"n=1",
    )
    asyncio.run(application(echo, "WEBSOCKET")(socket.scope, socket.receive, socket.send))

    assert socket.kinds == ["accept"]
    assert caplog.get_records("call") == []


def test_sys_exit_in_a_socket_ends_the_socket_alone() -> None:
    async def leave(socket: WebSocket) -> None:
        await socket.accept()
        sys.exit(1)

    socket = Socket({"type": "websocket.connect"}, type="websocket")
    asyncio.run(application(leave, "WEBSOCKET")(socket.scope, socket.receive, socket.send))

    assert socket.sent[-1]["code"] == 1011
