"""One HTTP call: frames to an ASGI application's scope, receive and send, and its messages back to frames."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from flashfw.worker.failure import is_broken
from flashfw.worker.flow import Window, WindowClosed
from flashfw.worker.frames import END, MORE, PIECE_BYTES, Frame, Kind
from flashfw.worker.http_frames import RequestHead, response_head, whole_head

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

    from flashfw.worker.jobs import Host

DISCONNECT_S = 1.0
"""How long an application may go on after its client left, to notice `http.disconnect` by itself."""
_logger = logging.getLogger("flashfw.http")


class NoAnswer(Exception):
    """The application returned without a complete response."""


class Whole(Protocol):
    """A function that can answer a request that is there as a whole without ASGI's messages.

    One that `is_sync` answers in a user thread.
    """

    is_sync: bool

    async def answer(self, call: HttpCall) -> None:
        """Answer it on the loop; what is raised ends the call."""

    def answer_in_thread(self, call: HttpCall) -> Callable[[], Awaitable[None]] | None:
        """Answer it in a user thread; what is left to be done on the loop, if anything is."""


class HttpCall:
    """One request. Ends with a HEAD or DATA that says so, FAILURE, or GONE after a CANCEL."""

    def __init__(self, frame: Frame, head: RequestHead, host: Host) -> None:
        self.request = head
        self.body = frame.body
        self._number = frame.call
        self._host = host
        self._pieces: deque[tuple[bytes, bool]] = deque()
        self._arrived: asyncio.Event | None = None
        self._first = True
        self._window: Window | None = None
        self._cancelled = False
        self._task: asyncio.Task[None] | None = None
        self._start: Message | None = None
        self.has_begun = False
        self._ended = False

    def run(self, app: ASGIApp) -> Coroutine[Any, Any, None]:
        """Calls the application. Never raises."""
        return self._run(lambda: app(self.request.scope(), self.receive, self.send))

    def run_whole(self, function: Whole) -> Coroutine[Any, Any, None]:
        """The same for a function that answers by itself."""
        return self._run(lambda: function.answer(self))

    def run_in_thread(self, function: Whole) -> None:
        """The same in a user thread; context variables that are set there end with the call."""
        contextvars.Context().run(self._run_in_thread, function)

    async def _run(self, begin: Callable[[], Awaitable[None]]) -> None:
        self._task = asyncio.current_task()
        error: BaseException | None = None
        try:
            if not self._cancelled:
                await begin()
        except BaseException as raised:  # user code, whatever it raises
            error = raised
        self._task = None
        if error is not None or not self._ended:
            self._finish(error)

    def _run_in_thread(self, function: Whole) -> None:
        error: BaseException | None = None
        try:
            rest = None if self._cancelled else function.answer_in_thread(self)
            if rest is not None:
                self._host.start_task(self.request.function, self._run(rest))
                return
        except BaseException as raised:  # user code, whatever it raises
            error = raised
        if error is not None or not self._ended:
            self._finish(error)

    def answer(self, status: int, media: bytes, body: bytes) -> None:
        """All of the response, which fits in a frame. From any thread."""
        if not self._cancelled:
            self._ended = True
            self._host.link.send(Kind.HEAD, self._number, None, body, whole_head(status, media, len(body)))
            self._host.ended(self._number)

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The start of a response whose body this thread sends: `push` its pieces, then `finish`."""
        self.has_begun = True
        self._window = window = Window()  # set before the flag is read, as in `cancel`
        if self._cancelled:
            window.close()
        self._host.link.send(Kind.HEAD, self._number, None, b"", response_head(status, headers, end=False))

    def push(self, body: bytes) -> None:
        """A piece of such a body; waits in this thread until the gateway has room.

        Raises:
            WindowClosed: nobody waits for it any more.
        """
        assert self._window is not None, "before `begin`"
        if self._cancelled:  # a piece without bytes does not ask for room
            raise WindowClosed
        rest = memoryview(body)
        while rest:
            piece, rest = rest[:PIECE_BYTES], rest[PIECE_BYTES:]
            self._window.take(len(piece))
            self._host.link.send(Kind.DATA, self._number, None, piece, MORE)

    def finish(self) -> None:
        """The end of such a body."""
        if not self._cancelled:
            self._ended = True
            self._host.link.send(Kind.DATA, self._number, head=END)
            self._host.ended(self._number)

    async def receive(self) -> Message:
        """The next piece of the body, then `http.disconnect` once there is nobody to answer."""
        while True:
            if self._cancelled:
                return {"type": "http.disconnect"}
            if self._first:
                self._first = False
                return {"type": "http.request", "body": self.body, "more_body": not self.request.end}
            if self._pieces:
                return self._next_piece()
            self._arrived = asyncio.Event()
            await self._arrived.wait()

    async def send(self, message: Message) -> None:
        """Takes the application's messages; what comes after the client left, or after the end, goes nowhere."""
        kind = message["type"]
        if kind == "http.response.start":
            if self._start is not None:
                raise RuntimeError("the response was already started")
            self._start = message
        elif kind == "http.response.body":
            if self._start is None:
                raise RuntimeError("a response begins with http.response.start")
            if not self._cancelled and not self._ended:
                await self._body(self._start, message.get("body", b""), message.get("more_body", False))

    def cancel(self, reason: str) -> None:
        """The client left, or the call ran out of time. From any thread."""
        self._cancelled = True
        if self._window is not None:
            self._window.close()
        self._host.on_loop(lambda: self._stop(reason))

    def credit(self, count: int) -> None:
        """The gateway has passed on that many bytes of the response. From any thread."""
        if self._window is not None:
            self._window.credit(count)

    def data(self, body: bytes, end: bool) -> None:
        """A further piece of the request's body. From any thread."""
        self._host.on_loop(lambda: self._take(body, end))

    def _stop(self, reason: str) -> None:
        self._wake()
        if reason == "disconnect":
            asyncio.get_running_loop().call_later(DISCONNECT_S, self._cancel_task)
        else:
            self._cancel_task()

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _take(self, body: bytes, end: bool) -> None:
        self._pieces.append((body, end))
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None:
            self._arrived.set()

    def _next_piece(self) -> Message:
        body, end = self._pieces.popleft()
        if body:
            self._host.link.send(Kind.CREDIT, self._number, {"bytes": len(body)})
        return {"type": "http.request", "body": body, "more_body": not end}

    async def _body(self, start: Message, body: bytes, more: bool) -> None:
        if not self.has_begun:
            self.has_begun = True
            if not more and len(body) <= PIECE_BYTES:
                self._head(start, body, end=True)  # raises for what is no response: the call has not ended then
                self._ended = True
                self._host.ended(self._number)
                return
            self._head(start, b"", end=False)
        try:
            await self._pieces_of(memoryview(body))
        except WindowClosed:
            return
        if not more:
            self._ended = True
            self._host.link.send(Kind.DATA, self._number, head=END)
            self._host.ended(self._number)

    async def _pieces_of(self, body: memoryview) -> None:
        window = self._window
        if window is None:  # most answers are one frame and need none; set before the flag is read, as in `cancel`
            self._window = window = Window()
        if self._cancelled:
            window.close()
        for begin in range(0, len(body), PIECE_BYTES):
            piece = body[begin : begin + PIECE_BYTES]
            await window.take_async(len(piece))
            self._host.link.send(Kind.DATA, self._number, None, piece, MORE)

    def _head(self, start: Message, body: bytes, *, end: bool) -> None:
        if start["status"] < 200:
            raise ValueError(f"{start['status']} is no status of an answer: a client would wait for another one")
        head = response_head(start["status"], start.get("headers", ()), end=end)
        self._host.link.send(Kind.HEAD, self._number, None, body, head)

    def _finish(self, error: BaseException | None) -> None:
        """After the application: sends what ends the call, unless the response did."""
        if error is not None and is_broken(error):
            self._host.broken(self._host.failures.of(error, "handler_error"))
        if self._ended:
            if isinstance(error, Exception):
                _logger.error("%s raised after its response", self.request.function, exc_info=error)
            return
        self._ended = True
        if self._cancelled:
            self._host.link.send(Kind.GONE, self._number)
        else:
            error = error or NoAnswer("the handler ended without a complete response")
            failure = self._host.failures.of(error, "handler_error")
            _logger.error("%s failed: %s", self.request.function, failure["traceback"] or failure["message"])
            self._host.link.send(Kind.FAILURE, self._number, failure)
        self._host.ended(self._number)
