"""One connection of a client: uvicorn's protocol, and how much and how long a client may take."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from flashfw.cluster.listening.asked import Answerer, Asked, is_plain
from flashfw.cluster.outlet import FULL_BYTES, Outlet

HELD_BYTES = 1 << 16
HELD_S = 0.05
"""How large a body may be, and how long its rest is waited for, before the application has what came of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take. Times are seconds."""

    head_bytes: int = 131_072
    """Of a request's line and headers together, about; uvicorn itself would keep any amount."""
    head_s: float = 30.0
    """From the first byte of a head to its last, or without any byte."""
    body_s: float = 60.0
    """Between two pieces of a body that somebody reads."""
    idle_s: float = 75.0
    """From an answer to the next request. Longer than proxies keep connections to a server (60 s is common): one that
    sends a request as the server closes would have to tell its client of a failure."""
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

    A plain request that came whole, with nothing before it, is offered to the `answerer`: what it takes on costs no
    task and no messages. All others, and those that it does not take, are the application's.
    """

    answerer: Answerer | None = None
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
    _asked: Asked | None = None
    """The request that the answerer has taken on, until it is answered or goes on with the application."""
    _named: dict[bytes, bytes] | None = None
    """The headers by name of a head that the answerer may get once its body is here."""
    _pieces: list[bytes]
    """What came of that body."""
    _holding: asyncio.TimerHandle | None = None
    """While the rest of it is waited for."""
    _is_idle = False
    _idle_since = 0.0
    _date_of: list[tuple[bytes, bytes]] | None = None
    _date_lines = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive = self.limits.idle_s  # type: ignore[assignment]  # it is a number of seconds there, too
        self._outlet = Outlet(transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self.limits.head_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self._unset_timer()
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()
        if (asked := self._asked) is not None:
            asked.disconnected = True
            if asked.on_left is not None:
                asked.on_left()

    def data_received(self, data: bytes) -> None:
        if self._ends_at is not None:
            self._since = self.loop.time()
            return
        if self._in_head:
            if not self._head_bytes:
                self._since = self.loop.time()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._named is not None and not self.transport.is_closing():
            if self._is_held(self._named):
                return
            self._begin_application()
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

    def on_message_begin(self) -> None:
        if self.answerer is None:
            super().on_message_begin()
            return
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.answerer is None:
            self._begin_cycle()
            return
        if not self.is_last and (self.cycle is None or self.cycle.response_complete):
            named = dict(self.headers)
            parser = self.parser
            if is_plain(parser.get_http_version(), parser.get_method(), self.url, named, len(self.headers)):
                self._named = named
                self._pieces = []
                return
        self._begin_application()

    def _is_held(self, named: dict[bytes, bytes]) -> bool:
        """Whether the rest of a body is waited for: many clients send a head and a small body one after the other."""
        if self._holding is None and int(named[b"content-length"]) <= HELD_BYTES:
            self._holding = self.loop.call_later(HELD_S, self._let_go)
        return self._holding is not None

    def _let_go(self) -> None:
        """Let the application have a request whose body does not come, with the time that a body may take."""
        if self._holding is not None:
            self._release()
            self._begin_application()
            self._await_body(sum(map(len, self._pieces)))

    def _release(self) -> None:
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None

    def on_body(self, body: bytes) -> None:
        if self._named is not None:
            self._pieces.append(body)
        else:
            super().on_body(body)

    def _begin_application(self) -> None:
        """Let the application have the request whose head is here, with what came of its body."""
        is_held, self._named = self._named is not None, None
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        self._begin_cycle()
        if is_held:
            for piece in self._pieces:
                super().on_body(piece)

    def _begin_cycle(self) -> None:
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            self.cycle.transport = self._outlet  # type: ignore[assignment]
            # What comes after the body are no headers: they would pass by all that has looked at those.
            self.headers = _Trailers()
            if self.is_last:
                self.end_after_answer()

    def on_message_complete(self) -> None:
        self._in_head, self._is_in_body, self._head_bytes, self._unread_bytes = True, False, 0, 0
        if self._named is not None:
            self._release()
            if self._is_taken(self._named):
                return
            self._begin_application()
        super().on_message_complete()

    def _is_taken(self, named: dict[bytes, bytes]) -> bool:
        """Whether the answerer takes on the request that is here whole."""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        method, default = self.parser.get_method().decode("ascii"), self.server_state.default_headers
        asked = Asked(self, method, self.url, self.headers, named, body, default)
        before, self.cycle = self.cycle, asked  # type: ignore[assignment]
        self._asked = asked
        assert self.answerer is not None
        if self.answerer.begin(asked):
            self._named = None
            return True
        self.cycle, self._asked = before, None
        return False

    def write_answer(self, asked: Asked, status: int, lines: bytes, body: bytes) -> bool:
        if not asked.keep_alive or asked.disconnected or self.flow.write_paused or self.transport.is_closing():
            return False
        asked.response_started = asked.response_complete = True
        self._asked = asked.on_left = None  # it holds who took it on, who holds it: no request is left to the collector
        self._outlet.flush()
        if self._date_of is not asked.default_headers:
            self._date_of = asked.default_headers
            self._date_lines = b"".join(b"%b: %b\r\n" % pair for pair in asked.default_headers)
        head = (STATUS_LINE[status], self._date_lines, lines, b"\r\n")
        if len(body) < FULL_BYTES:
            self.transport.write(b"".join((*head, body)))
        else:
            self.transport.writelines((b"".join(head), body))
        self.on_response_complete()
        return True

    def go_on(self, asked: Asked, app: ASGIApp) -> None:
        if asked.response_complete:  # whoever took it on failed after the answer: there is never a second one
            return
        self._asked = asked.on_left = None
        cycle = RequestResponseCycle(
            scope=asked.as_scope(),  # type: ignore[arg-type]
            transport=self._outlet,  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=asked.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=asked.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        cycle.disconnected = asked.disconnected
        if asked.disconnected:
            cycle.message_event.set()
        if self.cycle is asked:  # type: ignore[comparison-overlap]
            self.cycle = cycle
        self._start(cycle, app)

    def _start(self, cycle: RequestResponseCycle, app: Any) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer of an idle connection: one that is set is left, and set again for what is
        left when it comes too early. It would be set and cancelled with each request.
        """
        self._outlet.flush()  # whoever ends the connection from now on goes past it
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start(*self.pipeline.pop())
            return
        self._is_idle, self._idle_since = True, self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._set_idle_timer(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._is_idle = False

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if not self._is_idle:
            return  # the end of what runs sets it again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._set_idle_timer(left)
        else:
            super().timeout_keep_alive_handler()

    def _set_idle_timer(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def end_after_answer(self) -> None:
        """Take no request after the one that is here now, and say so with its answer if that has not begun."""
        self._let_go()
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
