"""One connection of a client: uvicorn's protocol, and how much and how long a client may take."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from flashfw.cluster.outlet import Outlet


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take. Times are seconds."""

    head_bytes: int = 131_072
    """Of a request's line and headers together, about; uvicorn itself would keep any amount."""
    head_s: float = 30.0
    """From the first byte of a head to its last, or without any byte."""
    body_s: float = 60.0
    """Between two pieces of a body that somebody reads."""
    unread_bytes: int = 10_000_000
    """Of a body that goes on after its answer, before the connection is closed."""
    linger_s: float = 2.0
    """Without a further piece of a body that nobody reads, after the end of its connection was said."""
    linger_most_s: float = 30.0
    last_s: float = 0.0
    """After the server takes no more connections: for a request on those that it has. A client that has just
    connected, or just had an answer, sends its next request before it can know."""


class Connection(HttpToolsProtocol):
    """uvicorn's, which ends what has no end: heads, pauses, bodies that were refused.

    A connection that is to be closed while its client still sends is closed for writing, and read for a
    while: to close it at once would be a reset, which takes the answer from the client's hands.
    """

    limits = Limits()
    is_last = False
    """Whether every connection gets one more answer at most; of all those of a server together."""

    _in_head = True
    _is_in_body = False
    _head_bytes = 0
    _unread_bytes = 0
    _since = 0.0
    """When the head began, or the last piece of a body came."""
    _ends_at: float | None = None
    """When lingering ends whatever comes; None while it is served."""
    _timer: asyncio.TimerHandle | None = None
    _outlet: Outlet
    """What responses are written to: uvicorn writes a head and a body by themselves."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._outlet = Outlet(transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self.limits.head_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ends_at is not None:
            self._since = self.loop.time()
            return
        if self._in_head:
            if not self._head_bytes:
                self._since = self.loop.time()
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._unset_timer()
        elif not self._in_head:
            self._await_body(len(data))
        elif self._head_bytes > self.limits.head_bytes:
            self._refuse(431, "Request Header Fields Too Large", "headers", "the headers of this request are too large")
        elif self._head_bytes:
            self._set_timer(self.limits.head_s)
        else:
            self._unset_timer()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            self.cycle.transport = self._outlet  # type: ignore[assignment]
            # What comes after the body are no headers: they would pass by all that has looked at those.
            self.headers = _Trailers()
            if self.is_last:
                self.end_after_answer()

    def on_message_complete(self) -> None:
        self._in_head, self._is_in_body, self._head_bytes, self._unread_bytes = True, False, 0, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._outlet.flush()  # whoever ends the connection from now on goes past it
        super().on_response_complete()

    def end_after_answer(self) -> None:
        """Take no request after the one that is here now, and say so with its answer if that has not begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            if not self.cycle.response_started:
                self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def linger(self) -> None:
        """Close for writing, and for reading once the client has stopped or a while is over."""
        self._outlet.flush()
        if self._in_head or self.transport.is_closing():
            self.transport.close()
        elif self._ends_at is None:
            self._end_slowly()

    def _end_slowly(self) -> None:
        """Write no more, and read what still comes to throw it away."""
        self._since = self.loop.time()
        self._ends_at = self._since + self.limits.linger_most_s
        self.flow.resume_reading()
        if self.transport.can_write_eof():  # TLS has no such thing: the answer says how long it is
            self.transport.write_eof()
        self._unset_timer()
        self._set_timer(self.limits.linger_s)

    def _await_body(self, size: int) -> None:
        """More of the body is to come: for who reads it, or for nobody."""
        if not self._is_in_body:
            self._is_in_body = True
            self._unset_timer()
        self._since = self.loop.time()
        self._set_timer(self.limits.body_s)
        if self.cycle.response_complete:
            self._unread_bytes += size
            if self._unread_bytes > self.limits.unread_bytes:
                self.linger()
        elif not isinstance(self.cycle.transport, _Lingering):
            self.cycle.transport = _Lingering(self._outlet, self)  # type: ignore[assignment]

    def _look(self) -> None:
        """The client has been silent for long, or was at work meanwhile."""
        self._timer = None
        now = self.loop.time()
        if self._ends_at is not None:
            left = min(self._since + self.limits.linger_s, self._ends_at) - now
        else:
            if self._is_held_up():
                self._since = now
            left = self._since + (self.limits.head_s if self._in_head else self.limits.body_s) - now
        if self.transport.is_closing():
            return
        if left > 0:
            self._set_timer(left)
        elif self._ends_at is not None or self._has_answer():
            self.transport.close()
        elif self._in_head:
            self._refuse(408, "Request Timeout", "slow", f"the head took longer than {self.limits.head_s:g} s")
        else:
            self._refuse(408, "Request Timeout", "slow", f"nothing of the body came for {self.limits.body_s:g} s")

    def _is_held_up(self) -> bool:
        """Whether it is not the client who lets us wait: nobody reads now, or it was not told to go on."""
        if self.cycle is None:
            return False
        if self._in_head:
            return not self.cycle.response_complete
        return self.flow.read_paused or self.cycle.waiting_for_100_continue

    def _has_answer(self) -> bool:
        """Whether there is nothing to answer: no request has begun, or it has its answer."""
        if self._in_head:
            return not self._head_bytes
        return self.cycle.response_started

    def _refuse(self, status: int, phrase: str, reason: str, message: str) -> None:
        body = json.dumps({"error": {"reason": reason, "message": message}}).encode()
        head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self._unset_timer()
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self._end_slowly()
        else:  # what runs would write more
            self.transport.close()

    def _set_timer(self, seconds: float) -> None:
        # One that is set is left: where it comes too early, it is set again for what is left.
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._look)

    def _unset_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Trailers(list[tuple[bytes, bytes]]):
    """Where the parser puts the fields after a chunked body: nowhere."""

    def append(self, item: tuple[bytes, bytes]) -> None:
        """Forget it."""


class _Lingering:
    """The transport as one request writes to it: its end waits for a client that still sends."""

    def __init__(self, transport: Outlet, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def write(self, data: Any) -> None:
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._connection.linger()
