"""One WebSocket: frames to an ASGI application's connect, receive and disconnect, and its messages back to frames.

Once it is accepted a message is one or more DATA, all but the last with `more`; both sides give credit as they use
it up, so that a slow reader slows the writer. DATA with `end` closes: from the worker the server's close, from the
gateway the client's leaving.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from flashfw.worker.asgi import DISCONNECT_S, NoAnswer
from flashfw.worker.failure import is_broken
from flashfw.worker.flow import Window, WindowClosed
from flashfw.worker.frames import PIECE_BYTES, Frame, Kind
from flashfw.worker.http_frames import RequestHead, response_head

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

    from flashfw.worker.jobs import Host

MAX_MESSAGE_BYTES = 16 << 20
"""The largest message, either way."""
LEAVE_S = 10.0
"""How long an application may go on after the client of an open WebSocket left."""
PIECE_COST = 64
"""What a piece counts for beside its bytes, so that messages without any cannot pile up."""
_logger = logging.getLogger("flashfw.http")


_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))
"""Those of RFC 6455, 7.4, and its registry that travel; 1005, 1006 and 1015 stand for what did not."""
REASON_BYTES = 123
"""What a close frame has room for."""


class Closed(OSError):
    """The WebSocket is closed: nothing can be sent any more."""


def cost(body: bytes | memoryview) -> int:
    """What a piece takes of the window."""
    return len(body) + PIECE_COST


def clipped(reason: str) -> str:
    """As much of a reason as a close frame has room for.

    >>> clipped("bye"), len(clipped("\u00fc" * 100))
    ('bye', 61)
    """
    return reason.encode()[:REASON_BYTES].decode("utf-8", "ignore")


class SocketCall:
    """One WebSocket. Ends with a HEAD or DATA that says so, FAILURE, or GONE after a CANCEL."""

    def __init__(self, frame: Frame, head: RequestHead, host: Host) -> None:
        self._number = frame.call
        self._request = head
        self._host = host
        self._incoming: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self._pieces: list[bytes] = []
        self._owed = 0
        self._arrived = asyncio.Event()
        self._window = Window()
        self._sending = asyncio.Lock()
        self._refusal: bytes | None = None
        self._refusal_body = b""
        self._accepted = False
        self._left = False
        self._cancelled = False
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp) -> None:
        """Calls the application. Never raises."""
        self._task = asyncio.current_task()
        error: BaseException | None = None
        try:
            if not self._cancelled:
                await app(_scope(self._request), self.receive, self.send)
        except BaseException as raised:  # user code, whatever it raises
            error = raised
        self._task = None
        self._finish(error)

    async def receive(self) -> Message:
        """`websocket.connect`, then the client's messages, then `websocket.disconnect` whenever asked."""
        while not self._incoming:
            self._arrived.clear()
            await self._arrived.wait()
        message, used = self._incoming[0]
        if message["type"] != "websocket.disconnect":
            self._incoming.popleft()
            self._settle(used)
        return message

    async def send(self, message: Message) -> None:
        """Takes the application's messages.

        Raises:
            Closed: the client is gone, or the socket was closed.
            ValueError: the message is too large.
        """
        kind = message["type"]
        if self._ended or self._left:
            if kind == "websocket.send":
                raise Closed("the WebSocket is closed")
        elif kind == "websocket.send" and self._accepted:
            await self._message(message)
        elif kind == "websocket.close":
            self._close(message)
        elif self._accepted:
            raise RuntimeError(f"{kind} after the WebSocket was accepted")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.http.response.start":
            self._refusal = response_head(message["status"], message.get("headers", ()), end=True)
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            self._refusal_body += message.get("body", b"")
            if not message.get("more_body", False):
                self._end(Kind.HEAD, None, self._refusal_body, self._refusal)
        else:
            raise RuntimeError(f"{kind} before the WebSocket was accepted")

    def cancel(self, reason: str) -> None:
        """The client left, or the call ran out of time. From any thread."""
        self._cancelled = True
        self._window.close()
        self._host.on_loop(lambda: self._stop(reason))

    def credit(self, count: int) -> None:
        """The gateway has passed on that much. From any thread."""
        self._window.credit(count)

    def message(self, frame: Frame) -> None:
        """A piece of a message, or the client's leaving. From any thread."""
        self._host.on_loop(lambda: self._take(frame))

    def data(self, body: bytes, end: bool) -> None:
        """Never called: messages come as `message`."""

    def _stop(self, reason: str) -> None:
        self._leave(1006, "")
        if reason == "disconnect":
            grace_s = LEAVE_S if self._accepted else DISCONNECT_S
            asyncio.get_running_loop().call_later(grace_s, self._cancel_task)
        else:
            self._cancel_task()

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _leave(self, code: int, reason: str) -> None:
        """From now on nobody is there; what came before is still received."""
        if not self._left:
            self._left = True
            self._incoming.append(({"type": "websocket.disconnect", "code": code, "reason": reason}, 0))
            self._arrived.set()

    def _take(self, frame: Frame) -> None:
        meta = frame.meta
        if meta.get("end"):
            self._leave(meta.get("code", 1005), meta.get("reason", ""))
            return
        self._owed += cost(frame.body)
        self._pieces.append(frame.body)
        if not meta.get("more"):
            whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            used = len(whole) + PIECE_COST * len(self._pieces)
            content: dict[str, Any] = {"text": whole.decode()} if meta.get("text") else {"bytes": whole}
            self._pieces.clear()
            self._incoming.append(({"type": "websocket.receive", **content}, used))
            self._arrived.set()
        elif not self._incoming:
            self._settle(self._owed)  # the application waits for the rest of it

    def _settle(self, used: int) -> None:
        """Give back what the application has used up; all that is owed if nothing waits for it."""
        count = self._owed if not self._incoming else min(used, self._owed)
        if count:
            self._owed -= count
            self._host.link.send(Kind.CREDIT, self._number, {"bytes": count})

    def _accept(self, message: Message) -> None:
        self._accepted = True
        head = response_head(101, message.get("headers") or (), end=False, subprotocol=message.get("subprotocol"))
        self._host.link.send(Kind.HEAD, self._number, head=head)

    async def _message(self, message: Message) -> None:
        text: str | None = message.get("text")
        body = memoryview(message.get("bytes") or b"" if text is None else text.encode())
        if len(body) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(body)} bytes; a WebSocket carries at most {MAX_MESSAGE_BYTES}")
        async with self._sending:  # so that the pieces of two messages never mix
            for begin in range(0, len(body) or 1, PIECE_BYTES):
                piece = body[begin : begin + PIECE_BYTES]
                try:
                    await self._window.take_async(cost(piece))
                except WindowClosed:
                    raise Closed("the WebSocket is closed") from None
                if self._ended:
                    raise Closed("the WebSocket is closed")
                meta = {"text": text is not None, "more": begin + PIECE_BYTES < len(body)}
                self._host.link.send(Kind.DATA, self._number, meta, piece)

    def _close(self, message: Message) -> None:
        if not self._accepted:
            self._end(Kind.HEAD, head=response_head(403, end=True))
            return
        code, reason = message.get("code", 1000), clipped(message.get("reason") or "")
        wrong = None
        if not (code in _CODES or 3000 <= code <= 4999):
            wrong = f"{code} is no code that a WebSocket may be closed with; an application's own are 3000 to 4999"
            code, reason = 1011, clipped(f"ValueError: {wrong}")
        self._end(Kind.DATA, {"end": True, "code": code, "reason": reason})
        self._leave(code, reason)
        if wrong:  # Starlette takes the WebSocket for closed whether this raises or not, so it has to be
            raise ValueError(wrong)

    def _finish(self, error: BaseException | None) -> None:
        """After the application: sends what ends the call, unless it did."""
        if error is not None and is_broken(error):
            self._host.broken(self._host.failures.of(error, "handler_error"))
        if error is not None and self._left and _is_leaving(error):
            error = None
        if self._ended:
            if isinstance(error, Exception):
                _logger.error("%s raised after its WebSocket was closed", self._request.function, exc_info=error)
        elif self._cancelled:
            self._end(Kind.GONE)
        elif self._accepted and error is None:
            self._end(Kind.DATA, {"end": True, "code": 1000, "reason": ""})
        else:
            error = error or NoAnswer("the handler ended without accepting the WebSocket")
            if isinstance(error, Exception):
                _logger.error("%s failed", self._request.function, exc_info=error)
            self._end(Kind.FAILURE, self._host.failures.of(error, "handler_error"))

    def _end(self, kind: Kind, meta: Any = None, body: bytes = b"", head: bytes = b"") -> None:
        self._ended = True
        self._host.link.send(kind, self._number, meta, body, head)
        self._host.ended(self._number)


def _is_leaving(error: BaseException) -> bool:
    """Whether an application raised no more than that its client left."""
    from starlette.websockets import WebSocketDisconnect  # not in workers of jobs

    return isinstance(error, (Closed, WebSocketDisconnect))


def _scope(head: RequestHead) -> dict[str, Any]:
    """An ASGI scope. Version 2.4 of WebSockets: sending on one that is closed raises an OSError."""
    scope = head.scope()
    del scope["method"]
    return {
        **scope,
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "subprotocols": head.subprotocols,
        "extensions": {"websocket.http.response": {}},
    }
