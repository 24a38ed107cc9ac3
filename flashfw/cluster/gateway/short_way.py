"""The short way of an HTTP call: a request that came whole, a worker that is free, an answer that comes whole.

Such a call is a few function calls between the connection and the worker's link, and nothing else: no task, no future,
no timer of its own. What cannot be had that way is left to the application before it begins, and goes on with the
application where that shows later: an answer that comes in pieces, an error, a worker that is lost, a client that
leaves or does not read, and every call that takes its time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

from flashfw.cluster.auth.keys import Principal
from flashfw.cluster.clock import Clock
from flashfw.cluster.events import Emit, internal, request
from flashfw.cluster.gateway.admin import Served
from flashfw.cluster.gateway.answers import Refused
from flashfw.cluster.gateway.bodies import ClientGone
from flashfw.cluster.gateway.exchange import Exchange
from flashfw.cluster.gateway.guard import Guard, without_key
from flashfw.cluster.gateway.http_calls import NOTICE_GONE_AFTER_S, Begun, HttpTarget
from flashfw.cluster.gateway.intake import JobTarget
from flashfw.cluster.gateway.routes import Found, Routes
from flashfw.cluster.gateway.short_jobs import ShortJobs, Slow
from flashfw.cluster.listening.asked import Asked, Headers
from flashfw.cluster.workers.worker import Worker
from flashfw.worker.frames import Frame, Kind
from flashfw.worker.http_frames import block_of, pairs_of, read_response, request_head

LEAST_TIMEOUT_S = 2 * NOTICE_GONE_AFTER_S
"""A function with less time than this has a timer for each call, which the short way has not."""


class GoOn(Protocol):
    """The application that answers for calls that were begun already."""

    async def __call__(self, begun: Begun, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer this one."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """A function that may be called the short way, with what each call of it needs to know."""

    target: HttpTarget | JobTarget
    params: dict[str, str]
    is_shared: bool


def way_of(found: Found | None) -> Way | None:
    """The short way to what was found, if there is one.

    Mounted applications may do anything with a connection, and the rest is the gateway's own.
    """
    if found is None or found.target is None:
        return None
    function = found.target.function
    if isinstance(found.target, HttpTarget) and (function.kind != "http" or function.timeout_s < LEAST_TIMEOUT_S):
        return None
    return Way(found.target, found.params, found.shared)


class ShortWay:
    """Begins HTTP calls the short way, and has `jobs` begin those of jobs. `go_on` answers those that go on with the
    application.

    Calls are looked after together: one that is under way for a while goes on by itself, with a timeout of its own.
    """

    def __init__(self, served: Served, *, jobs: ShortJobs, guard: Guard, clock: Clock, emit: Emit, go_on: GoOn) -> None:
        self._jobs = jobs
        self.emit = emit
        self.go_on = go_on
        self.clock = clock
        self._served = served
        self._guard = guard
        self._routes: Routes | None = None
        self._ways: dict[tuple[str, str], Way] = {}
        self._young: set[Slow] = set()
        self._old: set[Slow] = set()
        self._is_looking = False

    def begin(self, asked: Asked) -> bool:
        """As `Answerer.begin`."""
        try:
            return self._begin(asked)
        except Exception as error:  # it must not look as if the request were no HTTP
            self.emit(internal(f"{asked.method} {asked.path}", error))
            return False

    def _begin(self, asked: Asked) -> bool:
        began = time.perf_counter()
        way = self._find(asked.method, asked.path)
        if way is None:
            return False
        target, headers = way.target, asked.headers
        function = target.function
        try:
            principal = self._guard.check({"headers": headers}, public=function.public, shared=way.is_shared)
        except Refused:  # the application refuses it again, with all that belongs to that
            return False
        limit = target.dispatcher.endpoint.max_body_bytes
        if limit is not None and len(asked.body) > limit:
            return False
        if isinstance(target, JobTarget):
            return self._jobs.begin(asked, target, principal, began, self._watch)
        head = _head_of(asked, without_key(headers) if principal.id else headers, way)
        if (worker := target.dispatcher.take_now(function.id)) is None:
            return False
        call = ShortCall(self, asked, target, principal, worker, began)
        self._watch(call)
        call.number = worker.begin_request(call, head, asked.body)
        asked.on_left = call.leave
        return True

    def _find(self, method: str, path: str) -> Way | None:
        routes = self._served.routes
        if routes is not self._routes:
            self._routes, self._ways = routes, {}
        if (way := self._ways.get((method, path))) is None:
            way = way_of(routes.find(method, path))
            if way is not None and not way.params:
                self._ways[method, path] = way
        return way

    def _watch(self, call: Slow) -> None:
        call.among = self._young
        self._young.add(call)
        if not self._is_looking:
            self._is_looking = True
            self.clock.call_later(NOTICE_GONE_AFTER_S, self._look)

    def _look(self) -> None:
        """Have those go on that were there at the last look already."""
        slow, self._old, self._young = self._old, self._young, set()
        for call in list(slow):
            call.go_on()
        self._is_looking = bool(self._old)
        if self._is_looking:
            self.clock.call_later(NOTICE_GONE_AFTER_S, self._look)


class ShortCall:
    """One such call. Lives from its CALL to the end of the call, which may be after it went on with the application."""

    __slots__ = ("_asked", "_began", "_exchange", "_principal", "_target", "_way", "_worker", "among", "number")

    def __init__(
        self, way: ShortWay, asked: Asked, target: HttpTarget, principal: Principal, worker: Worker, began: float
    ) -> None:
        self.number = 0
        self.among: set[Slow] = set()
        self._way = way
        self._asked = asked
        self._target = target
        self._principal = principal
        self._worker = worker
        self._began = began
        self._exchange: Exchange | None = None

    def on_frame(self, frame: Frame) -> bool:
        if self._exchange is None and frame.kind is Kind.HEAD:
            head, body = frame.head, frame.body
            answer = (_known_answer if len(head) < _LONG_HEAD_BYTES else answer_of)(head)
            if answer is not None and answer.length == len(body) and self._answer(answer, body):
                return True
        return self.go_on().on_frame(frame)

    def on_lost(self, why: str) -> None:
        self.go_on().on_lost(why)

    def on_outdated(self, after_s: float) -> None:
        self.go_on().on_outdated(after_s)

    def leave(self) -> None:
        """The client left."""
        self.go_on().fail(ClientGone())

    def go_on(self) -> Exchange:
        """Go on with the application; all that comes from now on is for the exchange."""
        if self._exchange is None:
            self.among.discard(self)
            self._exchange = Exchange(self._worker, self._way.clock)
            self._exchange.number = self.number
            self._asked.go_on(partial(self._way.go_on, self._begun(self._exchange)))
        return self._exchange

    def _begun(self, exchange: Exchange) -> Begun:
        return Begun(self._target, self._principal, exchange, self._began)

    def _answer(self, answer: Answer, body: bytes) -> bool:
        status, asked = answer.status, self._asked
        if not asked.answer(status, answer.lines, body):
            return False
        self.among.discard(self)
        duration_s = time.perf_counter() - self._began
        self._way.emit(request(asked.method, asked.path, self._target.function.id, status, duration_s=duration_s))
        return True


def _head_of(asked: Asked, headers: Headers, way: Way) -> bytes:
    host = asked.host
    return request_head(
        function=way.target.function.id,
        method=asked.method,
        scheme=host.scheme or "http",
        http_version="1.1",
        path=asked.path,
        raw_path=asked.raw_path,
        root_path="",
        query=asked.query,
        headers=block_of(headers),
        params=way.params,
        client=host.client,
        server=host.server,  # type: ignore[arg-type]  # a port, where it listens on one
        end=True,
    )


class Answer(NamedTuple):
    """The head of a response as it is written, and the length of the body that belongs to it."""

    status: int
    lines: bytes
    length: int


def answer_of(head: bytes) -> Answer | None:
    """The answer that the head of a response makes, if it is all of the response and says how long the body is.

    Raises:
        FrameError: it is no head.
    """
    status, is_whole, block, is_sound, _ = read_response(head)
    if not is_whole or not is_sound or status < 200:
        return None
    pairs = [(name.lower(), value) for name, value in pairs_of(block)]
    named = dict(pairs)
    length = named.get(b"content-length")
    if not named.keys().isdisjoint(_OF_THE_CONNECTION) or [name for name, _ in pairs].count(b"content-length") > 1:
        return None
    if length is None and status in _WITHOUT_BODY:
        length = b"0"
    if length is None or not length.isdigit():
        return None
    return Answer(status, b"".join([b"%b: %b\r\n" % pair for pair in pairs]), int(length))


_OF_THE_CONNECTION = frozenset({b"connection", b"transfer-encoding"})
_WITHOUT_BODY = (204, 304)
_LONG_HEAD_BYTES = 1024
_known_answer = lru_cache(1024)(answer_of)
"""Of an endpoint's responses most have one of a few heads; one that is long is rarely had again."""
