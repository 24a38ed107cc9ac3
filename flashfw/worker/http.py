"""One HTTP function of the user as an ASGI application: bind, run, answer.

| what happens | the answer |
| --- | --- |
| a path parameter does not parse | 404 `{"detail": "Not Found"}` |
| anything else does not fit | 422 `{"detail": [{"loc", "msg", "type"}, ...]}` |
| the body is of another content type | 415 `{"detail": ...}` |
| the handler raises `HTTPError` or Starlette's `HTTPException` | its status, `{"detail": ...}`, its headers |
| it raises anything else, its result cannot be encoded | 500 `{"error": {"type", "message", "traceback", "place"}}` |
| it returns None | 204 |
| it returns bytes; anything else | the bytes as `application/octet-stream`; JSON |
| it returns a Starlette response | that |
| it yields | a stream, see `http_stream` |
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from flashfw import manifest
from flashfw.worker.bind import ValidationFailed
from flashfw.worker.encode import EncodeError, dumps
from flashfw.worker.fixtures import FixtureFailed
from flashfw.worker.flow import WindowClosed
from flashfw.worker.frames import Failure
from flashfw.worker.http_bind import HttpBinder, PathMismatch, UnsupportedMedia
from flashfw.worker.http_response import in_user_threads
from flashfw.worker.http_stream import AsyncItems, RunSync, SyncItems, send_items
from flashfw.worker.signature import Signature

PerCall = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]
FailureOf = Callable[[BaseException, str], Failure]

_logger = logging.getLogger("flashfw.http")
_NO_BODY = frozenset({204, 205, 304})
_RAISED = (Exception, SystemExit, KeyboardInterrupt)
"""What a handler may end its call with; sys.exit() does not end the worker. A cancel is no answer."""


class HttpFunction:
    """Answers the requests of one function; made once per worker, when its fixtures are built.

    `fixtures` are the values that live as long as the worker; `per_call(connection)` is entered for each call
    and gives the others; `run_sync(function, *args)` runs synchronous user code; `failure_of(error, reason)`
    makes the record of what user code raised.

    Raises:
        SignatureError: the parameters cannot be filled from a request.
    """

    def __init__(
        self,
        function: manifest.Function,
        signature: Signature,
        *,
        fixtures: Mapping[str, Any],
        per_call: PerCall,
        run_sync: RunSync,
        failure_of: FailureOf,
    ) -> None:
        self._id = function.id
        self._signature = signature
        self._binder = HttpBinder(signature, function.method)
        self._per_call = per_call
        self._run_sync = run_sync
        self._failure_of = failure_of
        named = {injection.name: injection.source for injection in signature.injections}
        self._fixtures = {name: value for name, value in fixtures.items() if named.get(name) == "fixture"}
        self._connections = [name for name, source in named.items() if source in ("request", "websocket")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call, as ASGI 3 has it.

        Raises:
            Exception: what the function raised after its response had begun; the stream is then to be cut off.
        """
        if scope["type"] == "websocket":
            await self._serve_socket(WebSocket(scope, receive, send))
            return
        answer = _Answer(send)
        request = Request(scope, receive, answer.send)
        try:
            await self._serve(request, answer)
        except (ClientDisconnect, WindowClosed):
            return  # nobody is left to be answered
        except _RAISED as error:
            if answer.begun:
                self._log(self._failure_of(error, "handler_error"))
                raise
            await self._refuse(_cause(error), answer)
        finally:
            await request.close()

    async def _serve(self, request: Request, answer: _Answer) -> None:
        arguments = await self._binder.bind(request)
        async with self._per_call(request) as built:
            result = await self._run(request, arguments, built)
            if isinstance(result, Response):
                response = in_user_threads(result, self._run_sync)
                await response(request.scope, request.receive, answer.send)
            elif inspect.isgenerator(result) or inspect.isasyncgen(result):
                items = AsyncItems(result) if inspect.isasyncgen(result) else SyncItems(result, self._run_sync)
                await send_items(items, accept=request.headers.get("accept", ""), send=answer.send)
            else:
                await _send_whole(result, answer)

    async def _run(self, connection: HTTPConnection, arguments: Mapping[str, Any], built: Mapping[str, Any]) -> Any:
        connections = dict.fromkeys(self._connections, connection)
        # Injection comes last: it wins over anything that a caller sent.
        call = partial(self._signature.function, **{**arguments, **self._fixtures, **built, **connections})
        if self._signature.is_generator:
            return call()  # runs nothing yet
        if self._signature.is_async:
            return await call()
        result = await self._run_sync(call)
        return await result if inspect.isawaitable(result) else result

    async def _refuse(self, error: BaseException, answer: _Answer) -> None:
        if isinstance(error, PathMismatch):
            await answer.json(404, {"detail": "Not Found"})
        elif isinstance(error, ValidationFailed):
            await answer.json(422, {"detail": error.errors})
        elif isinstance(error, UnsupportedMedia):
            await answer.json(415, {"detail": error.what})
        else:
            await self._fail(error, answer)

    async def _fail(self, error: BaseException, answer: _Answer) -> None:
        failure = self._failure_of(error, "encode" if isinstance(error, EncodeError) else "handler_error")
        status = failure.get("status", 0)
        if 200 <= status <= 599:
            detail = failure.get("detail")
            detail = _phrase(status) if detail is None else detail
            await answer.json(status, {"detail": detail}, failure.get("headers", {}))
            return
        self._log(failure)
        shown = {key: failure.get(key, "") for key in ("type", "message", "traceback", "place")}
        await answer.json(500, {"error": shown})

    async def _serve_socket(self, socket: WebSocket) -> None:
        try:
            arguments = await self._binder.bind(socket)
        except ValidationFailed as error:
            await socket.close(1008, str(error)[:100])
            return
        try:
            async with self._per_call(socket) as built:
                await self._run(socket, arguments, built)
            code = 1000
        except WebSocketDisconnect:
            return
        except _RAISED as error:
            self._log(self._failure_of(_cause(error), "handler_error"))
            code = 1011
        if WebSocketState.DISCONNECTED not in (socket.application_state, socket.client_state):
            await socket.close(code)

    def _log(self, failure: Failure) -> None:
        text = failure.get("traceback") or f"{failure.get('type')}: {failure.get('message')}"
        _logger.error("%s failed: %s", self._id, text.rstrip(), extra={"function": self._id})


class _Answer:
    """The response to one request; knows whether it has begun, after which no other can be sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self, message: Message) -> None:
        self.begun = True
        await self._send(message)

    async def json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        await self.whole(status, dumps(value), b"application/json", headers)

    async def whole(self, status: int, body: bytes, media: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A response in one piece; statuses that have no body get none."""
        if status in _NO_BODY:
            body, head = b"", []
        else:
            head = [(b"content-type", media), (b"content-length", str(len(body)).encode())]
        if headers:
            own = {
                _latin(key.lower()): _latin(text) for key, text in headers.items() if key.lower() != "content-length"
            }
            head = [*own.items(), *(pair for pair in head if pair[0] not in own)]
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_whole(result: Any, answer: _Answer) -> None:
    if result is None:
        await answer.whole(204, b"", b"")
    elif isinstance(result, (bytes, bytearray, memoryview)):
        await answer.whole(200, bytes(result), b"application/octet-stream")
    else:
        await answer.json(200, result)


def _cause(error: BaseException) -> BaseException:
    """What a fixture of this call raised counts as raised by the handler: it may refuse with a status."""
    return error.__cause__ or error if isinstance(error, FixtureFailed) else error


def _latin(text: str) -> bytes:
    """A header's text on the wire; a line break in it would begin another header."""
    return text.replace("\r", " ").replace("\n", " ").encode("latin-1", "replace")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)
