"""What stands around a function: order, streams, errors, context variables, and what cannot."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message

from flashfw import HTTPError
from flashfw.worker.bind import ValidationFailed
from flashfw.worker.failure import Failures, Redaction
from flashfw.worker.load import LoadError
from flashfw.worker.middleware import Around
from tests.worker.http_call import _THREADS, application, function

CallNext = Callable[[Request], Awaitable[Response]]
word = contextvars.ContextVar("word", default="none")


@contextmanager
def files(**modules: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """middleware.py files as modules: each name is a directory, the outermost first."""
    names = []
    for name, values in modules.items():
        module = ModuleType(f"shop_{name}.middleware")
        vars(module).update(values)
        sys.modules[module.__name__] = module
        sys.modules[f"shop_{name}"] = ModuleType(f"shop_{name}")
        names.append(f"shop_{name}/middleware.py")
    try:
        yield tuple(names)
    finally:
        for name in modules:
            del sys.modules[f"shop_{name}.middleware"], sys.modules[f"shop_{name}"]


def around(names: tuple[str, ...], method: str = "GET") -> tuple[Around, Any]:
    failure_of = Failures(Path(__file__).parent, Redaction([])).of
    found, described = Around(failure_of, _THREADS.run), function(method, middleware=names)
    found.load(described)
    return found, described


class Client:
    """One request to a handler with middleware around it; what came back, message by message."""

    def __init__(self, *messages: Message, headers: Mapping[str, str] | None = None, method: str = "GET") -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self._messages = list(messages) or [{"type": "http.request", "body": b"", "more_body": False}]
        pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.scope = {"type": "http", "method": method, "headers": pairs, "query_string": b"", "path": "/", "state": {}}

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def ask(handler: Callable[..., Any], client: Client | None = None, **modules: Mapping[str, Any]) -> Client:
    """The answer of a handler with these middleware.py files around it, the outermost first."""
    client = client or Client()

    async def call() -> None:
        with files(**modules) as names:
            found, described = around(names, client.scope["method"])
            app = application(handler, client.scope["method"])
            app._refusals = found.refusals(described)
            await found.wrap(described, app)(client.scope, client.receive, client.send)

    asyncio.run(call())
    return client


def tagging(name: str) -> Callable[..., Any]:
    async def middleware(request: Request, call_next: CallNext) -> Response:
        request.state.way = [*getattr(request.state, "way", []), name]
        response = await call_next(request)
        response.headers["x-way"] = f"{response.headers.get('x-way', '')}{name}"
        return response

    return middleware


def hello(request: Request) -> str:
    return "-".join(getattr(request.state, "way", []))


# Order and kinds


def test_the_outer_directory_comes_first() -> None:
    answer = ask(hello, top={"middleware": tagging("a")}, api={"middleware": tagging("b")})

    assert (answer.body, answer.headers["x-way"]) == (b'"a-b"', "ba")


def test_a_list_of_starlette_s() -> None:
    stack = [
        Middleware(CORSMiddleware, allow_origins=["https://a.example"]),
        Middleware(GZipMiddleware, minimum_size=1),
    ]
    client = Client(headers={"origin": "https://a.example", "accept-encoding": "gzip"})

    answer = ask(lambda: "x" * 1000, client, top={"middleware": stack}, api={"middleware": tagging("b")})

    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert (answer.headers["content-encoding"], answer.headers["x-way"]) == ("gzip", "b")


def test_an_answer_without_the_function_and_a_response_in_place_of_its_own() -> None:
    called = []

    async def closed(request: Request, call_next: CallNext) -> Response:
        return PlainTextResponse("closed", 503)

    async def other(request: Request, call_next: CallNext) -> Response:
        inner = await call_next(request)
        return PlainTextResponse(f"was {inner.status_code}", 202)

    def handler() -> str:
        called.append(1)
        return "x"

    assert (ask(handler, top={"middleware": closed}).status, called) == (503, [])
    answer = ask(handler, top={"middleware": other})
    assert (answer.status, answer.body, called) == (202, b"was 200", [1])


def test_one_instance_serves_all_functions_of_a_worker() -> None:
    made = []

    class Counting:
        def __init__(self, app: Any) -> None:
            made.append(self)
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    async def call() -> None:
        with files(top={"middleware": [Middleware(Counting)]}) as names:
            found, described = around(names)
            for value in ("a", "b"):
                client = Client()
                app = found.wrap(described, application(lambda value=value: PlainTextResponse(value)))
                await app(client.scope, client.receive, client.send)
                assert client.body == value.encode()

    asyncio.run(call())
    assert len(made) == 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "neither 'middleware' nor 'errors'"),
        ({"middleware": 3}, "'middleware' is of type int"),
        ({"middleware": lambda request, call_next: None}, "'middleware' is of type function"),
        ({"middleware": [CORSMiddleware]}, "no starlette.middleware.Middleware"),
        ({"errors": [ValueError]}, "'errors' is of type list"),
        ({"errors": {404: hello}}, "the key 404"),
        ({"errors": {ValueError: 3}}, "maps ValueError to 3"),
    ],
)
def test_what_a_file_may_not_define(values: dict[str, Any], named: str) -> None:
    with files(api=values) as names, pytest.raises(LoadError, match=named) as caught:
        around(names)
    assert "shop_api/middleware.py" in str(caught.value)


# Bodies and streams


async def passing(request: Request, call_next: CallNext) -> Response:
    return await call_next(request)


def test_a_stream_is_not_held_back() -> None:
    client = Client()
    seen: list[int] = []

    async def stream() -> AsyncIterator[str]:
        for number in range(4):
            seen.append(len(client.sent))  # each item is sent before the next is made
            yield str(number)

    answer = ask(stream, client, top={"middleware": passing}, api={"middleware": passing})

    assert answer.body == b"0123"
    assert seen == [0, 2, 3, 4]


def test_a_body_that_the_middleware_reads_is_made_piece_by_piece() -> None:
    seen: list[str] = []

    async def shouting(request: Request, call_next: CallNext) -> Response:
        response: Any = await call_next(request)
        inner = response.body_iterator

        async def louder() -> AsyncIterator[bytes]:
            async for piece in inner:
                seen.append(f"read {piece.decode()}")
                yield piece.upper()

        response.body_iterator = louder()
        return response

    async def stream() -> AsyncIterator[str]:
        for letter in "abc":
            seen.append(f"made {letter}")
            yield letter

    assert ask(stream, top={"middleware": shouting}).body == b"ABC"
    assert seen[:4] == ["made a", "read a", "made b", "read b"]


def test_the_function_still_gets_a_body_that_the_middleware_has_read() -> None:
    async def reading(request: Request, call_next: CallNext) -> Response:
        assert await request.json() == {"n": 2}
        return await call_next(request)

    def post(n: int) -> int:
        return n

    pieces = [
        {"type": "http.request", "body": b'{"n":', "more_body": True},
        {"type": "http.request", "body": b"2}", "more_body": False},
    ]
    client = Client(*pieces, headers={"content-type": "application/json"}, method="POST")

    assert ask(post, client, top={"middleware": reading}).body == b"2"


def test_a_call_is_tried_again_by_a_middleware() -> None:
    calls: list[int] = []

    async def again(request: Request, call_next: CallNext) -> Response:
        await request.body()
        first = await call_next(request)
        return first if first.status_code < 500 else await call_next(request)

    def post(n: int) -> int:
        calls.append(n)
        if len(calls) == 1:
            raise HTTPError(503)
        return n

    client = Client(
        {"type": "http.request", "body": b'{"n": 5}'}, headers={"content-type": "application/json"}, method="POST"
    )
    assert (ask(post, client, top={"middleware": again}).body, calls) == (b"5", [5, 5])


def test_context_variables_go_both_ways() -> None:
    async def around_it(request: Request, call_next: CallNext) -> Response:
        word.set("outer")
        response = await call_next(request)
        response.headers["x-word"] = word.get()
        return response

    async def handler() -> str:
        before = word.get()
        word.set("inner")
        return before

    answer = ask(handler, top={"middleware": around_it})

    assert (answer.body, answer.headers["x-word"]) == (b'"outer"', "inner")


def test_a_client_that_leaves_ends_the_function() -> None:
    client = Client()
    ended = []

    async def stream(request: Request) -> AsyncIterator[str]:
        try:
            yield "a"
            client.left.set()
            assert await request.is_disconnected()
            await asyncio.sleep(30)
        finally:
            ended.append(True)

    async def call() -> None:
        with files(top={"middleware": passing}) as names:
            found, described = around(names)
            task = asyncio.ensure_future(
                found.wrap(described, application(stream))(client.scope, client.receive, client.send)
            )
            await client.left.wait()
            task.cancel()  # as the worker does
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(call())
    assert ended == [True]


def test_a_time_limit_of_a_middleware_ends_the_function() -> None:
    ended = []

    async def hurried(request: Request, call_next: CallNext) -> Response:
        try:
            return await asyncio.wait_for(call_next(request), 0.05)
        except asyncio.TimeoutError:
            return PlainTextResponse("too slow", 504)

    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)

    assert (ask(slow, top={"middleware": hurried}).status, ended) == (504, [True])


# Errors


class Wrong(Exception):
    pass


class VeryWrong(Wrong):
    pass


class Item(BaseModel):
    price: float


def fails(error: BaseException) -> Callable[[], None]:
    def get() -> None:
        raise error

    return get


def saying(text: str) -> Callable[[Request, BaseException], Response]:
    return lambda request, error: PlainTextResponse(f"{text} {error} {request.url.path}", 418)


async def gently(request: Request, error: BaseException) -> Response:
    return PlainTextResponse("gently", 419)


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (Wrong("x"), 418, b"near x /"),
        (VeryWrong("x"), 418, b"near x /"),  # the directory counts before the class
        (LookupError("x"), 419, b"gently"),
        (KeyError("x"), 419, b"gently"),
        (HTTPError(402, "pay"), 418, b"far 402: pay /"),
    ],
)
def test_errors_are_answered_by_the_nearest_directory_that_knows_them(error: Any, status: int, body: bytes) -> None:
    near = {"errors": {Wrong: saying("near"), LookupError: gently}}
    far = {"errors": {VeryWrong: saying("far"), HTTPError: saying("far"), Exception: saying("any")}}

    answer = ask(fails(error), top=far, api=near)

    assert (answer.status, answer.body) == (status, body)


def test_an_error_s_answer_passes_the_middleware_too() -> None:
    answer = ask(fails(Wrong("x")), top={"middleware": tagging("a")}, api={"errors": {Wrong: saying("near")}})

    assert (answer.status, answer.headers["x-way"]) == (418, "a")


def test_validation_is_an_error_like_any_other() -> None:
    def refused(request: Request, error: ValidationFailed) -> Response:
        return JSONResponse({"fields": [entry["loc"][-1] for entry in error.errors]}, 400)

    def post(item: Item) -> None: ...

    client = Client(
        {"type": "http.request", "body": b'{"price": "x"}'}, headers={"content-type": "application/json"}, method="POST"
    )
    answer = ask(post, client, top={"errors": {ValidationFailed: refused}})

    assert (answer.status, answer.body) == (400, b'{"fields":["price"]}')


def test_what_a_middleware_raises_is_answered_as_a_function_s_would_be() -> None:
    async def refuses(request: Request, call_next: CallNext) -> Response:
        raise HTTPError(401, "who?", headers={"www-authenticate": "Basic"})

    async def breaks(request: Request, call_next: CallNext) -> Response:
        await call_next(request)
        raise Wrong("after")

    answer = ask(hello, top={"middleware": tagging("a")}, api={"middleware": refuses})
    assert (answer.status, answer.headers["www-authenticate"], answer.headers["x-way"]) == (401, "Basic", "a")
    assert ask(hello, top={"errors": {Wrong: saying("known")}}, api={"middleware": breaks}).body == b"known after /"
    assert b'"type":"Wrong"' in ask(hello, top={"middleware": breaks}).body


def test_an_answer_that_is_none_or_fails(caplog: pytest.LogCaptureFixture) -> None:
    for handler in (lambda request, error: "text", fails):
        answer = ask(fails(Wrong("x")), top={"errors": {Wrong: handler}})
        assert (answer.status, b"TypeError" in answer.body) == (500, True)

    async def nothing(request: Request, call_next: CallNext) -> None:
        await call_next(request)

    answer = ask(hello, top={"middleware": nothing})
    assert (answer.status, b"returned NoneType, which is no Response" in answer.body) == (500, True)


def test_an_error_in_the_middle_of_a_stream_cuts_it() -> None:
    async def stream() -> AsyncIterator[str]:
        yield "a"
        raise Wrong("late")

    client = Client()
    with pytest.raises(Wrong, match="late"):
        ask(stream, client, top={"middleware": passing, "errors": {Wrong: saying("never")}})
    assert client.sent[-1]["more_body"]


def test_a_preflight_calls_nothing_but_the_middleware() -> None:
    cors = [Middleware(CORSMiddleware, allow_origins=["https://a.example"], allow_methods=["POST"])]
    asking = {"origin": "https://a.example", "access-control-request-method": "POST"}

    async def call(client: Client, middleware: Any) -> Client:
        with files(top={"middleware": middleware}) as names:
            found, described = around(names)
            await found.preflight(described, ["GET", "POST"])(client.scope, client.receive, client.send)
            return client

    answer = asyncio.run(call(Client(headers=asking, method="OPTIONS"), cors))
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")
    plain = asyncio.run(call(Client(method="OPTIONS"), passing))
    assert (plain.status, plain.headers["allow"]) == (204, "GET, POST")
