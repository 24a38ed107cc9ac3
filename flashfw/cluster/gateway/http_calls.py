"""An HTTP request carried to a worker and its response back, piece by piece, with backpressure both ways."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from flashfw.cluster.gateway.answers import Refused, refusal, unavailable
from flashfw.cluster.gateway.bodies import ClientGone, check_length, has_body, too_large
from flashfw.cluster.holding import HeldTooLong, HoldingFull, HttpDispatcher
from flashfw.cluster.pool import NoWorker
from flashfw.cluster.runs import CANCEL_GRACE_S
from flashfw.cluster.workers import Worker
from flashfw.manifest import Function
from flashfw.worker.frames import WINDOW_BYTES, Frame, HttpCall, Kind

NOTICE_GONE_AFTER_S = 0.25
"""A call that takes longer is watched for its client's leaving; shorter ones are not worth a task."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """An HTTP function or a mounted application and who brings calls to it."""

    function: Function
    dispatcher: HttpDispatcher


class Exchange:
    """One request on a worker: the frames that came back and were not read yet."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.number = 0
        self.lost: str | None = None
        self.ended = False
        self.failed: Exception | None = None
        self._frames: deque[Frame] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._credit = WINDOW_BYTES
        self._credited = anyio.Event()

    def on_frame(self, frame: Frame) -> bool:
        if frame.kind is Kind.CREDIT:
            self._credit += frame.meta["bytes"]
            self._credited.set()
            return False
        self.ended = frame.kind in (Kind.FAILURE, Kind.GONE) or bool(frame.meta.get("end"))
        self._frames.append(frame)
        self._wake()
        return self.ended

    def on_lost(self, why: str) -> None:
        self.lost = why
        self.ended = True
        self._credited.set()
        self._wake()

    async def next(self, timeout_s: float) -> Frame | None:
        """The next frame in order, None once the worker is lost.

        Raises:
            asyncio.TimeoutError: none came in time.
            Refused, ClientGone: the request itself went wrong meanwhile.
        """
        while not self._frames:
            if self.failed is not None:
                raise self.failed
            if self.lost is not None:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait_for(self._waiter, timeout_s)
        return self._frames.popleft()

    async def send_piece(self, body: bytes, *, end: bool) -> None:
        """A further piece of the request's body, once the worker has room for it."""
        while self._credit <= 0 and not self.ended:
            self._credited = anyio.Event()
            await self._credited.wait()
        self._credit -= len(body)
        if not self.ended:
            self.worker.send(Kind.DATA, self.number, {"end": end}, body)

    def fail(self, error: Exception) -> None:
        """The request's body cannot be sent on: whoever waits for the response gets this error."""
        self.failed = error
        self._wake()

    def cancel(self, reason: str) -> None:
        """Ask the worker to stop; its slot is free when it says that it did."""
        if not self.ended:
            self.worker.send(Kind.CANCEL, self.number, {"reason": reason})

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class HttpCalls:
    """Carries HTTP requests to workers."""

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, *, target: HttpTarget, params: dict[str, str], root_path: str
    ) -> None:
        limit = target.dispatcher.endpoint.max_body_bytes
        check_length(scope, limit)
        worker = await _take(target.dispatcher)
        exchange = Exchange(worker)
        try:
            body, more = await _piece(receive) if has_body(scope) else (b"", False)
            meta = _http_call(scope, target.function, params, root_path, end=not more)
        except BaseException:
            target.dispatcher.pool.give_back(worker)
            target.dispatcher.on_free()
            raise
        exchange.number = worker.begin(exchange, meta, body)
        try:
            if more:
                await _both_ways(receive, send, exchange, target, limit, len(body))
            else:
                await _respond_watching(receive, send, exchange, target)
        finally:
            self._leave(exchange, target)

    def _leave(self, exchange: Exchange, target: HttpTarget) -> None:
        """Whatever happened, the worker must not go on for nobody; one that does not stop is replaced."""
        if exchange.ended:
            return
        exchange.cancel("disconnect")

        def overstay() -> None:
            if not exchange.ended:
                why = f"a call of {target.function.id} did not stop when its client left"
                target.dispatcher.pool.mark_broken(exchange.worker, why)

        asyncio.get_running_loop().call_later(CANCEL_GRACE_S, overstay)


async def _take(dispatcher: HttpDispatcher) -> Worker:
    retry = [(b"retry-after", b"1")]
    try:
        return await dispatcher.take()
    except HoldingFull as error:
        raise refusal(429, "queue_full", str(error), headers=retry) from error
    except HeldTooLong as error:
        raise refusal(503, "startup", str(error), headers=retry) from error
    except NoWorker as error:
        raise unavailable(error.failure) from error


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def _both_ways(
    receive: Receive, send: Send, exchange: Exchange, target: HttpTarget, limit: int | None, size: int
) -> None:
    """Send the rest of the body while the response may already come."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_send_rest, receive, exchange, limit, size)
        try:
            await _respond(send, exchange, target)
        except (Refused, ClientGone, ResponseCut) as error:
            failure = error  # raised below: a task group would wrap it
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _send_rest(receive: Receive, exchange: Exchange, limit: int | None, size: int) -> None:
    try:
        more = True
        while more:
            body, more = await _piece(receive)
            size += len(body)
            if limit is not None and size > limit:
                raise too_large(limit)
            await exchange.send_piece(body, end=not more)
    except (Refused, ClientGone) as error:
        exchange.fail(error)
        return
    await _until_gone(receive, exchange)


async def _respond_watching(receive: Receive, send: Send, exchange: Exchange, target: HttpTarget) -> None:
    """Respond, and notice a client that leaves while the call takes its time."""
    loop = asyncio.get_running_loop()
    watcher: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(_until_gone(receive, exchange))

    timer = loop.call_later(NOTICE_GONE_AFTER_S, watch)
    try:
        await _respond(send, exchange, target)
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def _until_gone(receive: Receive, exchange: Exchange) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.cancel("disconnect")


async def _respond(send: Send, exchange: Exchange, target: HttpTarget) -> None:
    timeout_s = target.function.timeout_s
    started = False
    while True:
        try:
            frame = await exchange.next(timeout_s)
        except asyncio.TimeoutError:
            exchange.cancel("timeout")
            _give_up(started, 504, "timeout", f"{target.function.id} sent nothing for {timeout_s:g} s")
        if frame is None:
            _give_up(started, 502, "worker_lost", f"the worker {exchange.lost}")
        elif frame.kind is Kind.HEAD:
            head = {"type": "http.response.start", "status": frame.meta["status"], "headers": _headers(frame)}
            started = True
            await send(head)
            await _send_body(send, frame)
        elif frame.kind is Kind.DATA:
            await _send_body(send, frame)
            exchange.worker.send(Kind.CREDIT, exchange.number, {"bytes": len(frame.body)})
        elif frame.kind is Kind.FAILURE:
            _give_up(started, frame.meta.get("status", 500), "handler_error", str(frame.meta.get("message", "")))
        elif frame.kind is Kind.GONE:
            _give_up(started, 499, "cancelled", "the client left")
        if exchange.ended and not exchange._frames and frame is not None and frame.meta.get("end"):
            return


def _headers(frame: Frame) -> list[tuple[bytes, bytes]]:
    """The headers of a response; a line break in one would let user input begin a response of its own."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in frame.meta["headers"]]
    for name, value in headers:
        if b"\r" in name + value or b"\n" in name + value:
            raise refusal(500, "encode", f"the header {name.decode('latin-1')!r} of the response has a line break")
    return headers


async def _send_body(send: Send, frame: Frame) -> None:
    end = bool(frame.meta.get("end"))
    if frame.body or end:
        await send({"type": "http.response.body", "body": frame.body, "more_body": not end})


class ResponseCut(Exception):
    """A response that had begun cannot be finished; the connection is closed so that the client sees it."""


def _give_up(started: bool, status: int, reason: str, message: str) -> Any:
    if started:
        raise ResponseCut(message)
    raise refusal(status, reason, message)


def _http_call(scope: Scope, function: Function, params: dict[str, str], root_path: str, *, end: bool) -> HttpCall:
    return HttpCall(
        function=function.id,
        method=scope["method"],
        scheme=scope["scheme"],
        http_version=scope["http_version"],
        path=scope["path"],
        raw_path=(scope.get("raw_path") or b"").decode("latin-1"),
        root_path=root_path,
        query=scope["query_string"].decode("latin-1"),
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        params=params,
        client=scope.get("client"),
        server=scope.get("server"),
        end=end,
    )
