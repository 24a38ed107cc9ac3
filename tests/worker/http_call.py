"""Calls an HTTP function as the worker does: real threads for sync code, ASGI messages in and out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.types import Message

from flashfw import manifest
from flashfw.worker.failure import Failures, Redaction
from flashfw.worker.http import HttpFunction
from flashfw.worker.http_errors import Refusals
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


@asynccontextmanager
async def no_fixtures(connection: Any) -> AsyncIterator[dict[str, Any]]:
    yield {}


def application(
    handler: Callable[..., Any],
    method: str = "GET",
    *,
    path: tuple[str, ...] = (),
    fixtures: Mapping[str, Any] | None = None,
    per_call: Any = no_fixtures,
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
        async with httpx.AsyncClient(transport=httpx.ASGITransport(at_path), base_url="http://shop") as client:
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
