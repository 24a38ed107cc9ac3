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
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any

from starlette.exceptions import WebSocketException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from flashfw import manifest
from flashfw.worker.asgi import HttpCall
from flashfw.worker.encode import dumps
from flashfw.worker.files import File
from flashfw.worker.flow import WindowClosed
from flashfw.worker.frames import PIECE_BYTES
from flashfw.worker.http_bind import HttpBinder
from flashfw.worker.http_errors import RAISED, Answer, Refusals
from flashfw.worker.http_files import as_response, release
from flashfw.worker.http_response import in_user_threads
from flashfw.worker.http_stream import AsyncItems, RunSync, SyncItems, push_items, send_items
from flashfw.worker.signature import Signature
from flashfw.worker.threads import carried

PerCall = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]
Serve = Callable[[Request, Answer], Awaitable[None]]

_JSON = frozenset({dict, list, str, int, float, bool})


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
        per_call: PerCall | None,
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
        self.is_sync = not signature.is_async
        self.answers_whole = not (
            per_call
            or self._connections
            or (signature.is_generator and signature.is_async)
            or function.method == "WEBSOCKET"
        )
        """Whether nothing that it takes needs a request of Starlette's."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call, as ASGI 3 has it.

        Raises:
            Exception: what the function raised after its response had begun; the stream is then to be cut off.
        """
        if scope["type"] == "websocket":
            await self._serve_socket(WebSocket(scope, receive, send))
        else:
            await self._answered(scope, receive, send, self._serve)

    async def answer(self, call: HttpCall) -> None:
        """One call of a request that is there as a whole, and of a function that `answers_whole`. The same answers.

        Raises:
            Exception: as above.
        """
        rest: Serve | None = None
        try:
            arguments = self._binder.bind_whole(call.request, call.body)
            if arguments is None:
                rest = self._serve
            else:
                arguments.update(self._fixtures)
                rest = self._settle(await self._signature.function(**arguments), call)
        except (ClientDisconnect, WindowClosed):
            return
        except RAISED as error:
            rest = _raising(error)
        if rest is not None:
            await self._answered(call.request.scope(), call.receive, call.send, rest)

    def answer_in_thread(self, call: HttpCall) -> Callable[[], Awaitable[None]] | None:
        """The same for a function that `is_sync`, in a user thread; what is left for the loop."""
        rest: Serve | None = None
        try:
            arguments = self._binder.bind_whole(call.request, call.body)
            if arguments is None:
                rest = self._serve
            else:
                arguments.update(self._fixtures)
                result = self._signature.function(**arguments)
                if inspect.isgenerator(result):
                    push_items(result, accept=call.request.header(b"accept"), call=call)
                    return None
                rest = self._settle(result, call)
        except (ClientDisconnect, WindowClosed):
            return None
        except RAISED as error:
            if call.has_begun:
                raise
            rest = _raising(carried(error))
        if rest is None:
            return None
        return partial(self._answered, call.request.scope(), call.receive, call.send, rest)

    def _settle(self, result: Any, call: HttpCall) -> Serve | None:
        """Answer with a result that is plain; how to answer with another one."""
        if self.is_sync and type(result) not in _JSON and inspect.isawaitable(result):
            return partial(self._respond, result)
        plain = _plain(result)
        if plain is None:
            return partial(self._respond, result)
        if len(plain[2]) > PIECE_BYTES:
            return partial(_send_large, *plain)
        call.answer(*plain)
        return None

    async def _answered(self, scope: Scope, receive: Receive, send: Send, serve: Serve) -> None:
        answer = Answer(send)
        request = Request(scope, receive, answer.send)
        try:
            await serve(request, answer)
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
        if self._per_call is None:
            await self._respond(await self._run(request, arguments, {}), request, answer)
            return
        async with self._per_call(request) as built:
            await self._respond(await self._run(request, arguments, built), request, answer)

    async def _respond(self, result: Any, request: Request, answer: Answer) -> None:
        if inspect.isawaitable(result) and self.is_sync:  # a decorator hides that it is async
            result = await result
        if (plain := _plain(result)) is not None:
            status, media, body = plain
            await answer.whole(status, body, media)
            return
        if isinstance(result, File):
            result = as_response(result, ranges="range" in request.headers)
        if isinstance(result, Response):
            response = in_user_threads(result, self._run_sync)
            await response(request.scope, request.receive, answer.send)
        else:
            items = AsyncItems(result) if inspect.isasyncgen(result) else SyncItems(result, self._run_sync)
            await send_items(items, accept=request.headers.get("accept", ""), send=answer.send)

    async def _run(self, connection: HTTPConnection, arguments: Mapping[str, Any], built: Mapping[str, Any]) -> Any:
        connections = dict.fromkeys(self._connections, connection)
        # Injection comes last: it wins over anything that a caller sent.
        call = partial(self._signature.function, **{**arguments, **self._fixtures, **built, **connections})
        if self._signature.is_generator:
            return call()  # runs nothing yet
        if self._signature.is_async:
            return await call()
        return await self._run_sync(call)

    async def _serve_socket(self, socket: WebSocket) -> None:
        try:
            arguments = await self._binder.bind(socket)
            async with self._per_call(socket) if self._per_call else nullcontext({}) as built:
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


def _plain(result: Any) -> tuple[int, bytes, bytes] | None:
    """Status, content type and body of a result that is none of Starlette's, and no file or generator.

    Raises:
        EncodeError: it is no JSON.
    """
    if result is None:
        return 204, b"", b""
    if type(result) in _JSON:
        return 200, b"application/json", dumps(result)
    if isinstance(result, (bytes, bytearray, memoryview)):
        return 200, b"application/octet-stream", bytes(result)
    if isinstance(result, (File, Response)) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        return None
    return 200, b"application/json", dumps(result)


async def _send_large(status: int, media: bytes, body: bytes, _: Request, answer: Answer) -> None:
    await answer.whole(status, body, media)


def _raising(error: BaseException) -> Serve:
    async def serve(request: Request, answer: Answer) -> None:
        raise error

    return serve
