"""Calls an HTTP function as the worker does: real threads for sync code, ASGI messages in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from flashfw import manifest
from flashfw.worker.asgi import HttpCall
from flashfw.worker.failure import Failures, Redaction
from flashfw.worker.frames import Frame, Frames, Kind, pack
from flashfw.worker.http import HttpFunction
from flashfw.worker.http_errors import Refusals
from flashfw.worker.http_frames import RequestHead, block_of, pairs_of, read_response, request_head
from flashfw.worker.signature import read
from flashfw.worker.threads import Threads

SECRET = "hunter22"
_THREADS = Threads(1)


def function(method: str, **fields: Any) -> manifest.Function:
    return manifest.Function(
        id="shop::get",
        kind="http",
        module="m",
        attribute="get",
        file="f.py",
        line=1,
        route="/",
        method=method,
        **fields,
    )


def application(
    handler: Callable[..., Any],
    method: str = "GET",
    *,
    path: tuple[str, ...] = (),
    fixtures: Mapping[str, Any] | None = None,
    per_call: Any = None,
    names: tuple[str, ...] = (),
) -> HttpFunction:
    fixtures = fixtures or {}
    signature = read(handler, fixtures=[*fixtures, *names], path_parameters=path, owner="shop::get")
    return HttpFunction(
        function(method),
        signature,
        fixtures=fixtures,
        per_call=per_call,
        run_sync=_THREADS.run,
        refusals=Refusals("shop::get", (), Failures(Path(__file__).parent, Redaction([SECRET])).of, _THREADS.run),
    )


class AsWhole(httpx.AsyncBaseTransport):
    """Answers requests as a worker does that come in one frame, without ASGI where it can; the host of its calls."""

    used = False

    def __init__(self, app: HttpFunction, path: dict[str, str]) -> None:
        self._app = app
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._frames: list[Frame] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()
        self.failures = Failures(Path(__file__).parent, Redaction([SECRET]))
        self.link = self

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        head = request_head(
            function="shop::get",
            method=request.method,
            scheme="http",
            http_version="1.1",
            path=request.url.path,
            raw_path=request.url.raw_path,
            root_path="",
            query=request.url.query,
            headers=block_of([(name.lower(), value) for name, value in request.headers.raw]),
            params=self._path,
            client=None,
            server=None,
            end=True,
        )
        call = HttpCall(Frame(Kind.REQUEST, 1, {}, await request.aread(), head), RequestHead(head), self)  # type: ignore[arg-type]
        if self._app.is_sync:
            _THREADS.submit(lambda: call.run_in_thread(self._app))
        else:
            self.start_task("", call.run_whole(self._app))
        await self._ended.wait()
        await asyncio.gather(*self._tasks)
        first, *rest = self._frames
        if first.kind is Kind.FAILURE:
            raise RuntimeError(first.meta["message"])
        start = read_response(first.head)
        body = b"".join(frame.body for frame in self._frames)
        if rest and not rest[-1].meta.get("end"):
            raise RuntimeError(rest[-1].meta["message"])
        return httpx.Response(start.status, headers=pairs_of(start.headers), content=body)

    def send(self, kind: Kind, call: int = 0, meta: Any = None, body: Any = b"", head: bytes = b"") -> None:
        self._frames += Frames().feed(pack(kind, call, meta, body, head))

    def ended(self, number: int) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)

    def broken(self, failure: Any) -> None: ...

    def start_task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._loop.call_soon_threadsafe(lambda: self._tasks.append(asyncio.ensure_future(work)))


@pytest.fixture(params=["as ASGI", "as a whole"], autouse=True)
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For modules that import it: each request is sent in both ways that a worker takes it."""
    monkeypatch.setattr(AsWhole, "used", request.param == "as a whole")


def ask(
    handler: Callable[..., Any],
    method: str = "GET",
    query: str = "",
    *,
    path: dict[str, str] | None = None,
    **options: Any,
) -> httpx.Response:
    """One request to a handler; `path` are its path parameters, the rest is httpx's or `application`'s."""
    own = {key: options.pop(key) for key in ("fixtures", "per_call", "names") if key in options}
    app = application(handler, method, path=tuple(path or ()), **own)

    async def at_path(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "path_params": path or {}}, receive, send)

    async def call() -> httpx.Response:
        transport = AsWhole(app, path or {}) if AsWhole.used and app.answers_whole else httpx.ASGITransport(at_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.request(method, f"/{query}", **options)

    return asyncio.run(call())


def outcome(handler: Callable[..., Any], method: str = "GET", query: str = "", **options: Any) -> Any:
    """The JSON of a 200; else the status, and for 422 where it was wrong."""
    response = ask(handler, method, query, **options)
    if response.status_code == 200:
        return response.json()
    detail = response.json()["detail"]
    if response.status_code == 422:
        return 422, [(".".join(map(str, error["loc"])), error["type"]) for error in detail]
    return response.status_code, detail


class Socket:
    """One ASGI connection by hand: what the client sends is given, what the application sends is kept."""

    def __init__(self, *messages: Message, type: str = "http", **scope: Any) -> None:
        self.scope = {"type": type, "method": "GET", "headers": [], "query_string": b"", "path": "/", **scope}
        self.sent: list[Message] = []
        self._messages = list(messages)

    async def receive(self) -> Message:
        return self._messages.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def kinds(self) -> list[str]:
        return [message["type"].partition(".")[2] for message in self.sent]
