"""One HTTP function of the user as an ASGI application: bind, run, answer.

| what happens | the answer |
| --- | --- |
| a path parameter does not parse | 404 `{"detail": "Not Found"}` |
| anything else does not fit | 422 `{"detail": [{"loc", "msg", "type"}, ...]}` |
| the body is of another content type | 415 `{"detail": ...}` |
| the handler raises | by `errors` of a middleware.py, by its status, else 500: see `http_errors` |
| its result cannot be encoded | 500 `{"error": {"type", "message", "traceback", "place"}}` |
| it returns None | 204 |
| it returns bytes; anything else | the bytes as `application/octet-stream`; JSON |
| it returns a Starlette response | that |
| it yields | a stream, see `http_stream` |

A WebSocket is refused in the same ways until it is accepted; then a return closes it with 1000, an exception
with 1011.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from starlette.exceptions import WebSocketException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from flashfw import manifest
from flashfw.worker.files import File
from flashfw.worker.flow import WindowClosed
from flashfw.worker.http_bind import HttpBinder
from flashfw.worker.http_errors import RAISED, Answer, Refusals
from flashfw.worker.http_files import as_response, release
from flashfw.worker.http_response import in_user_threads
from flashfw.worker.http_stream import AsyncItems, RunSync, SyncItems, send_items
from flashfw.worker.signature import Signature

PerCall = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]


class HttpFunction:
    """Answers the requests of one function; made once per worker, when its fixtures are built.

    `fixtures` are the values that live as long as the worker; `per_call(connection)` is entered for each call
    and gives the others; `run_sync(function, *args)` runs synchronous user code; `refusals` answers what it raises.

    Raises:
        SignatureError: the parameters cannot be filled from a request, or a WebSocket's function is not async.
    """

    def __init__(
        self,
        function: manifest.Function,
        signature: Signature,
        *,
        fixtures: Mapping[str, Any],
        per_call: PerCall,
        run_sync: RunSync,
        refusals: Refusals,
    ) -> None:
        if function.method == "WEBSOCKET" and (signature.is_generator or not signature.is_async):
            raise signature.error("a WebSocket is talked to with await", "write 'async def websocket(...)', no yield")
        self._signature = signature
        self._binder = HttpBinder(signature, function.method)
        self._per_call = per_call
        self._run_sync = run_sync
        self._refusals = refusals
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
        answer = Answer(send)
        request = Request(scope, receive, answer.send)
        try:
            await self._serve(request, answer)
        except (ClientDisconnect, WindowClosed):
            return  # nobody is left to be answered
        except RAISED as error:
            if answer.begun:
                raise
            await self._refusals.answer(error, request, answer)
        finally:
            await request.close()
            release(scope)

    async def _serve(self, request: Request, answer: Answer) -> None:
        arguments = await self._binder.bind(request)
        async with self._per_call(request) as built:
            result = await self._run(request, arguments, built)
            if isinstance(result, File):
                result = as_response(result, ranges="range" in request.headers)
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

    async def _serve_socket(self, socket: WebSocket) -> None:
        try:
            arguments = await self._binder.bind(socket)
            async with self._per_call(socket) as built:
                await self._run(socket, arguments, built)
        except WebSocketDisconnect:
            return
        except WebSocketException as error:
            await _close(socket, error.code, error.reason or "")
        except RAISED as error:
            if socket.application_state is not WebSocketState.CONNECTING:
                failure = self._refusals.failure(error)
                await _close(socket, 1011, f"{failure.get('type')}: {failure.get('message')}")
            elif socket.client_state is not WebSocketState.DISCONNECTED:
                request = Request({**socket.scope, "type": "http", "method": "GET"}, socket.receive)
                await self._refusals.answer(error, request, Answer(socket.send, "websocket."))
        else:
            await _close(socket, 1000, "")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Close what is open; before it was accepted that refuses it."""
    if WebSocketState.DISCONNECTED not in (socket.application_state, socket.client_state):
        await socket.close(code, reason)


async def _send_whole(result: Any, answer: Answer) -> None:
    if result is None:
        await answer.whole(204, b"", b"")
    elif isinstance(result, (bytes, bytearray, memoryview)):
        await answer.whole(200, bytes(result), b"application/octet-stream")
    else:
        await answer.json(200, result)
