"""An `async def middleware(request, call_next)` as an ASGI application around another, which holds nothing back.

What is around a function runs in a task of its own until its response begins; then its messages go straight to the
client, unless the middleware reads the body itself. Context variables that were set before `call_next` are seen
below it, and those set below are seen after it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flashfw.worker.asgi import NoAnswer

CallNext = Callable[[Request], Awaitable[Response]]
Function = Callable[[Request, CallNext], Awaitable[Response]]

_UNSET: Any = object()


class Dispatch:
    """Runs the function around an application; HTTP only."""

    def __init__(self, app: ASGIApp, function: Function) -> None:
        self._app = app
        self._function = function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call.

        Raises:
            TypeError: the function returned no response.
            Exception: what it raised, or what the application did and it let pass.
        """
        inner: list[_Inner] = []

        async def call_next(request: Request) -> Response:
            inner.append(run := _Inner(self._app, request.scope, _Replay(request)))
            return await run.response()

        try:
            response = await self._function(Request(scope, receive), call_next)
            if not isinstance(response, Response):
                name = getattr(self._function, "__qualname__", "middleware")
                raise TypeError(f"{name} returned {type(response).__name__}, which is no Response")
            await response(scope, receive, send)
        finally:
            for run in inner:
                await run.stop()


class _Replay:
    """The body of a request for what is below: from memory if the middleware has read it as a whole."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._given = False

    async def __call__(self) -> Message:
        request = self._request
        body = getattr(request, "_body", None)
        if not self._given and (body is not None or getattr(request, "_stream_consumed", False)):
            self._given = True
            return {"type": "http.request", "body": body or b"", "more_body": False}
        return await request.receive()


class _Inner:
    """One run of the application below a middleware."""

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        self._started: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._context: contextvars.Context | None = None
        self._asked = asyncio.Event()
        self._sink: Send | None = None
        self._pieces: asyncio.Queue[Message] = asyncio.Queue(1)
        self._task = asyncio.create_task(self._run(app, scope, receive))
        if (outer := asyncio.current_task()) is not None:
            self._task.set_name(outer.get_name())  # by which a blocked loop is told of

    async def response(self) -> Response:
        """The response as soon as it begins.

        Raises:
            Exception: what the application raised before that.
        """
        first: list[asyncio.Future[Any]] = [self._started, self._task]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not self._started.done():
            await self._task  # raises what it did
            raise NoAnswer("the handler ended without a complete response")
        self._take_context()
        return Passed(self, self._started.result())

    @property
    def is_read(self) -> bool:
        """Whether somebody has begun to take the body."""
        return self._asked.is_set()

    async def pass_on(self, send: Send) -> None:
        """Let the body go straight to `send`, until the application has ended.

        Raises:
            Exception: what the application raises.
        """
        self._sink = send
        self._asked.set()
        await self._task

    async def body(self) -> AsyncIterator[bytes]:
        """The body piece by piece; the next is made when the last was used.

        Raises:
            Exception: what the application raises.
        """
        self._asked.set()
        more = True
        while more and (message := await self._next_piece()) is not None:
            more = message.get("more_body", False)
            yield message.get("body", b"")
            self._pieces.task_done()
        await self._task

    async def stop(self) -> None:
        """End what nobody waits for any more; what ended is left as it is."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # told by whoever waited for it

    async def _next_piece(self) -> Message | None:
        piece = asyncio.ensure_future(self._pieces.get())
        try:
            await asyncio.wait([piece, self._task], return_when=asyncio.FIRST_COMPLETED)
            return piece.result() if piece.done() else None
        finally:
            piece.cancel()

    async def _run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        await app(scope, receive, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._context = contextvars.copy_context()
            self._started.set_result(message)
            return
        await self._asked.wait()
        if self._sink is not None:
            await self._sink(message)
        else:
            await self._pieces.put(message)
            await self._pieces.join()

    def _take_context(self) -> None:
        for variable, value in (self._context or {}).items():
            if variable.get(_UNSET) is not value:
                variable.set(value)


class Passed(Response):
    """What `call_next` gives: `status_code`, `headers` and `body_iterator` may be changed before it is returned."""

    def __init__(self, inner: _Inner, start: Message) -> None:
        self.status_code = start["status"]
        self.raw_headers = [(bytes(name), bytes(value)) for name, value in start.get("headers", ())]
        self.background = None
        self._inner = inner
        self._own = inner.body()
        self.body_iterator: AsyncIterable[bytes | str] = self._own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if self.body_iterator is self._own and not self._inner.is_read:
            await self._inner.pass_on(send)
        else:
            async for piece in self.body_iterator:
                body = piece.encode() if isinstance(piece, str) else piece
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        if self.background is not None:
            await self.background()
