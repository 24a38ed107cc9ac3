"""The lifespan of a mounted application: started before the worker is ready, ended at teardown."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger = logging.getLogger("flashfw.lifespan")


class LifespanFailed(Exception):
    """The application said that its start-up failed."""


def is_application(value: Any) -> bool:
    """Whether this is an ASGI application, not a function that returns one.

    A function is one if it takes exactly `scope, receive, send`, by these names; objects always are.
    """
    if not inspect.isroutine(value):
        return not isinstance(value, type)
    return list(inspect.signature(value).parameters) == ["scope", "receive", "send"]


class Lifespan:
    """Runs one application's lifespan in a task of its own; an application that knows none is left alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = app
        self._state: dict[str, Any] = {}
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application with the state that its start-up left, a copy for each request."""
        await self._inner({**scope, "state": dict(self._state)}, receive, send)

    async def startup(self) -> None:
        """Waits until the application has started.

        Raises:
            LifespanFailed: it said that it failed, with the reason it gave.
        """
        self._task = asyncio.create_task(self._run(), name="lifespan")
        answer = await self._ask("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise LifespanFailed(answer.get("message") or "the application's start-up failed")

    async def shutdown(self) -> None:
        """Waits until the application has ended; a failure is logged."""
        if self._task is None or self._task.done():
            return
        answer = await self._ask("lifespan.shutdown")
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            _logger.error("the application's shutdown failed: %s", answer.get("message", ""))
        if not self._task.done():
            await asyncio.wait([self._task], timeout=1.0)

    async def _ask(self, kind: str) -> Message | None:
        """The application's answer, or None if it ended without one."""
        assert self._task is not None
        self._incoming.put_nowait({"type": kind})
        answer = asyncio.create_task(self._answers.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None if self._answers.empty() else self._answers.get_nowait()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._inner(scope, self._incoming.get, self._answers.put)
        except (Exception, SystemExit) as error:  # raised at once by an application that knows no lifespan
            _logger.debug("the application has no lifespan: %r", error)
