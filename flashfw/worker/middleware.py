"""What `middleware.py` files put around the HTTP functions at and below them: the outermost directory first.

Around a function there is, from the outside: for each file its `middleware`, and just inside of the next file's an
answer to what that raised. Innermost is the function, whose errors are answered by the `errors` of all its files.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from flashfw import manifest
from flashfw.worker.call_next import Dispatch
from flashfw.worker.http_errors import RAISED, Answer, FailureOf, Handlers, Refusals
from flashfw.worker.http_stream import RunSync
from flashfw.worker.load import LoadError

_REST = "flashfw.rest"
"""Where a scope holds what is still to be called, so that one instance of a middleware serves all functions."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One middleware.py as imported: its stack of middleware, None without any, and its `errors`."""

    file: str
    app: ASGIApp | None
    errors: Handlers


class Around:
    """The middleware of one worker's functions; each file is loaded once."""

    def __init__(self, failure_of: FailureOf, run_sync: RunSync) -> None:
        self._failure_of = failure_of
        self._run_sync = run_sync
        self._layers: dict[str, Layer] = {}

    def load(self, function: manifest.Function) -> None:
        """Import the middleware of a function.

        Raises:
            LoadError: a file defines neither `middleware` nor `errors`, or not as it must be.
            Exception: whatever importing it, or making its middleware, raises.
        """
        for file in function.middleware:
            if file not in self._layers:
                self._layers[file] = _layer(file)

    def refusals(self, function: manifest.Function, files: Sequence[str] | None = None) -> Refusals:
        """What answers the errors of a function, or of the middleware in the innermost of `files`."""
        found = function.middleware if files is None else files
        handlers = [self._layers[file].errors for file in reversed(found)]
        return Refusals(function.id, handlers, self._failure_of, self._run_sync)

    def wrap(self, function: manifest.Function, app: ASGIApp) -> ASGIApp:
        """The application with its middleware around it. WebSockets pass by all of it."""
        if not function.middleware:
            return app
        chain: list[ASGIApp] = []
        for depth, file in enumerate(function.middleware, 1):
            if (layer := self._layers[file].app) is not None:
                chain += [_Answering(self.refusals(function, function.middleware[:depth])), layer]
        if function.kind == "app":  # a function answers its own errors
            chain.append(_Answering(self.refusals(function)))
        return _Entry(app, (*chain, app))

    def preflight(self, function: manifest.Function, methods: Iterable[str]) -> ASGIApp:
        """The middleware of a function around the answer to OPTIONS; nothing of the function is called."""
        return self.wrap(function, _Allow(", ".join(methods).encode()))


class _Entry:
    def __init__(self, app: ASGIApp, chain: tuple[ASGIApp, ...]) -> None:
        self._app = app
        self._chain = chain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _next({**scope, _REST: self._chain}, receive, send)
        else:
            await self._app(scope, receive, send)


class _Answering:
    """Answers what the middleware below it raises."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Answer(send)
        try:
            await _next(scope, receive, answer.send)
        except RAISED as error:
            if answer.begun:
                raise
            await self._refusals.answer(error, Request(scope, receive), answer)


class _Allow:
    def __init__(self, methods: bytes) -> None:
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", self._methods)]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _next(scope: Scope, receive: Receive, send: Send) -> None:
    following, *rest = scope[_REST]
    await following({**scope, _REST: tuple(rest)}, receive, send)


def _layer(file: str) -> Layer:
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    middleware = getattr(module, "middleware", None)
    errors = getattr(module, "errors", {})
    if middleware is None and not hasattr(module, "errors"):
        raise LoadError(f"{file} defines neither 'middleware' nor 'errors'")
    return Layer(file, _stack(file, middleware), _checked(file, errors))


def _stack(file: str, middleware: Any) -> ASGIApp | None:
    if middleware is None:
        return None
    if isinstance(middleware, (list, tuple)):
        app: ASGIApp = _next
        for item in reversed(middleware):
            if not isinstance(item, Middleware):
                what = f"{file}: 'middleware' holds {item!r}, which is no starlette.middleware.Middleware"
                raise LoadError(what, hint="write middleware = [Middleware(CLASS, option=...)]")
            cls, args, kwargs = item
            app = cls(app, *args, **kwargs)
        return app
    if not (inspect.iscoroutinefunction(middleware) or inspect.iscoroutinefunction(getattr(middleware, "__call__", 0))):  # noqa: B004 - an object is called, too
        what = f"{file}: 'middleware' is of type {type(middleware).__name__}"
        hint = "write async def middleware(request, call_next), or a list of starlette.middleware.Middleware"
        raise LoadError(what, hint=hint)
    return Dispatch(_next, middleware)


def _checked(file: str, errors: Any) -> Handlers:
    if not isinstance(errors, dict):
        raise LoadError(f"{file}: 'errors' is of type {type(errors).__name__}", hint="write errors = {Class: function}")
    for key, value in errors.items():
        if not (isinstance(key, type) and issubclass(key, BaseException)):
            raise LoadError(f"{file}: 'errors' has the key {key!r}, which is no class of exceptions")
        if not callable(value):
            raise LoadError(f"{file}: 'errors' maps {key.__name__} to {value!r}, which is no function")
    return errors
