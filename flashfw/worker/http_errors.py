"""What ended an HTTP call to an answer: by the `errors` of a middleware.py, by its status, else 500.

| what was raised | the answer |
| --- | --- |
| a class that an `errors` has, or one derived from it | what its function returns |
| `HTTPError`, Starlette's `HTTPException` | its status, `{"detail": ...}`, its headers |
| input that does not fit | 422 `{"detail": [{"loc", "msg", "type"}, ...]}` |
| anything else | 500 `{"error": {"type", "message", "traceback", "place"}}`, and a line in the log |
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Send

from flashfw.worker.bind import ValidationFailed
from flashfw.worker.context import HTTPError
from flashfw.worker.encode import EncodeError, dumps
from flashfw.worker.failure import is_broken
from flashfw.worker.fixtures import FixtureFailed
from flashfw.worker.frames import Failure
from flashfw.worker.http_bind import PathMismatch, UnsupportedMedia
from flashfw.worker.http_stream import RunSync

FailureOf = Callable[[BaseException, str], Failure]
Handlers = Mapping[type[BaseException], Callable[..., Any]]

RAISED = (Exception, SystemExit, KeyboardInterrupt)
"""What a handler may end its call with; sys.exit() does not end the worker. A cancel is no answer."""
_NO_BODY = frozenset({204, 205, 304})
_logger = logging.getLogger("flashfw.http")


class Answer:
    """The response to one request; knows whether it has begun, after which no other can be sent."""

    def __init__(self, send: Send, prefix: str = "") -> None:
        self._send = send
        self._prefix = prefix
        self.begun = False

    async def send(self, message: Message) -> None:
        self.begun = True
        await self._send({**message, "type": self._prefix + message["type"]} if self._prefix else message)

    async def json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """A value as JSON."""
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


class Refusals:
    """Answers what was raised in one function or in a middleware around it.

    `handlers` are the `errors` that hold there, the nearest directory first; `function` is the id, for the log.
    """

    def __init__(self, function: str, handlers: Sequence[Handlers], failure_of: FailureOf, run_sync: RunSync) -> None:
        self._function = function
        self._handlers = tuple(handlers)
        self._failure_of = failure_of
        self._run_sync = run_sync

    async def answer(self, error: BaseException, request: Request, answer: Answer) -> None:
        """Send the answer to an error that was raised before the response began.

        Raises:
            Exception: what was raised after an answer of the user's own had begun.
        """
        error = _meant(error)
        handler = self._find(error)
        if handler is None:
            await self._plain(error, answer)
            return
        if is_broken(error):
            self._failure_of(error, "handler_error")  # the worker goes, however this is answered
        try:
            response = await self._handled(handler, request, error)
            await response(request.scope, request.receive, answer.send)
        except RAISED as second:
            if answer.begun:
                raise
            await self._plain(second, answer)

    def failure(self, error: BaseException) -> Failure:
        """The record of what was raised, which the log tells as well."""
        failure = self._failure_of(_meant(error), "handler_error")
        self._log(failure)
        return failure

    def _find(self, error: BaseException) -> Callable[..., Any] | None:
        """The nearest directory that knows the error, and in it the class nearest to the error's own."""
        for handlers in self._handlers:
            for cls in type(error).__mro__:
                if cls in handlers:
                    return handlers[cls]
        return None

    async def _handled(self, handler: Callable[..., Any], request: Request, error: BaseException) -> Response:
        if inspect.iscoroutinefunction(handler):
            response = await handler(request, error)
        else:
            response = await self._run_sync(handler, request, error)
            if inspect.isawaitable(response):
                response = await response
        if not isinstance(response, Response):
            name = getattr(handler, "__name__", repr(handler))
            raise TypeError(f"{name} of 'errors' returned {type(response).__name__}, which is no Response") from error
        return response

    async def _plain(self, error: BaseException, answer: Answer) -> None:
        if isinstance(error, ValidationFailed):
            await answer.json(422, {"detail": error.errors})
            return
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

    def _log(self, failure: Failure) -> None:
        text = failure.get("traceback") or f"{failure.get('type')}: {failure.get('message')}"
        _logger.error("%s failed: %s", self._function, text.rstrip(), extra={"function": self._function})


def _meant(error: BaseException) -> BaseException:
    """What users know an error as. What a fixture of this call raised counts as raised by the handler."""
    if isinstance(error, FixtureFailed):
        error = error.__cause__ or error
    if isinstance(error, PathMismatch):
        return HTTPError(404, "Not Found")
    if isinstance(error, UnsupportedMedia):
        return HTTPError(415, error.what)
    return error


def _latin(text: str) -> bytes:
    """A header's text on the wire; a line break in it would begin another header."""
    return text.replace("\r", " ").replace("\n", " ").encode("latin-1", "replace")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)
