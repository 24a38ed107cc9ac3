"""An HTTP request carried to a worker and its response back, piece by piece, with backpressure both ways."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import anyio
from starlette.types import Receive, Scope, Send

from flashfw.cluster.auth.keys import Principal
from flashfw.cluster.dispatch.holding import HeldTooLong, HoldingFull, HttpDispatcher, NotServed
from flashfw.cluster.dispatch.runs import CANCEL_GRACE_S
from flashfw.cluster.gateway.answers import Refused, ResponseCut, refusal, retry_after, unavailable
from flashfw.cluster.gateway.bodies import ClientGone, check_length, has_body, header, too_large
from flashfw.cluster.gateway.exchange import Exchange, NothingCame, Outdated
from flashfw.cluster.workers.customer import NoWorker
from flashfw.cluster.workers.worker import Worker
from flashfw.manifest import Function
from flashfw.worker.frames import Frame, Kind
from flashfw.worker.http_frames import ResponseHead, block_of, pairs_of, request_head, wrong_header

BODY_PATIENCE_S = 1.0
"""How long a worker's slot waits for a client that sends the head of a request and is slow with its body."""
CREDIT_BYTES = 1 << 17
"""A worker hears of so much at once that its client took: with that and a piece outstanding its window is not full."""
NOTICE_GONE_AFTER_S = 0.25
"""A call that takes longer is watched for its client's leaving; shorter ones are not worth a task."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """An HTTP function or a mounted application and who brings calls to it."""

    function: Function
    dispatcher: HttpDispatcher


@dataclass(frozen=True, slots=True)
class Begun:
    """A call that is under way already, for `principal`; `began` is of `time.perf_counter`."""

    target: HttpTarget
    principal: Principal
    exchange: Exchange
    began: float


class HttpCalls:
    """Carries HTTP requests to workers."""

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        target: HttpTarget,
        params: dict[str, str],
        root_path: str,
        preflight: bool = False,
    ) -> None:
        limit = target.dispatcher.endpoint.max_body_bytes
        check_length(scope, limit)
        if has_body(scope):
            is_told = header(scope, b"expect") is not None
            worker, body, more = await _take_with_body(receive, target, is_told=is_told)
            if limit is not None and len(body) > limit:  # a chunked one does not say so before
                target.dispatcher.give_back(worker)
                raise too_large(limit)
        else:
            worker, body, more = await _take_watching(receive, target), b"", False
        head = head_of(scope, target.function, params, root_path, end=not more, is_preflight=preflight)
        exchange = Exchange(worker, target.dispatcher.clock)
        exchange.number = worker.begin_request(exchange, head, body)
        try:
            if more:
                await _both_ways(receive, send, exchange, target, limit, len(body))
            else:
                await _respond_watching(receive, send, exchange, target)
        finally:
            leave(exchange, target, CANCEL_GRACE_S)

    async def go_on(self, receive: Receive, send: Send, begun: Begun) -> None:
        """Answer for a call whose request the worker has whole."""
        waited_s = time.perf_counter() - begun.began
        try:
            await _respond_watching(receive, send, begun.exchange, begun.target, waited_s)
        finally:
            leave(begun.exchange, begun.target, CANCEL_GRACE_S)


async def _take_watching(receive: Receive, target: HttpTarget) -> Worker:
    worker = target.dispatcher.take_now(target.function.id)
    if worker is not None:
        return worker
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        return await take_unless(gone, target)
    finally:
        gone.cancel()


async def _take_with_body(receive: Receive, target: HttpTarget, *, is_told: bool) -> tuple[Worker, bytes, bool]:
    """A worker, the first piece of the body for it, and whether there is more.

    No more than that piece is read before there is a worker, so that what is held is small, and none where the
    client waits to be told to go on.
    """
    worker = target.dispatcher.take_now(target.function.id)
    if worker is not None:
        return await _with_piece(worker, receive, target)
    if is_told:
        return await _with_piece(await take(target), receive, target)
    pieces: list[tuple[bytes, bool]] = []
    gone = asyncio.ensure_future(_gone_after(pieces, receive))
    try:
        worker = await take_unless(gone, target)
    finally:
        gone.cancel()
    return (worker, *pieces[0]) if pieces else await _with_piece(worker, receive, target)


async def _gone_after(pieces: list[tuple[bytes, bool]], receive: Receive) -> None:
    """Read the first piece of a body, and return once its client has left; where there is more that cannot be seen."""
    try:
        pieces.append(await _piece(receive))
    except ClientGone:
        return
    if pieces[0][1]:
        await asyncio.get_running_loop().create_future()
    await _disconnected(receive)


async def _with_piece(worker: Worker, receive: Receive, target: HttpTarget) -> tuple[Worker, bytes, bool]:
    """The same for a worker that was taken. A client that is slow to send the body keeps nobody from the slot, and
    a worker that was stopped meanwhile is replaced: no byte has reached it.
    """
    is_lent = True

    def give_back() -> None:
        nonlocal is_lent
        if is_lent:
            is_lent = False
            target.dispatcher.give_back(worker)

    timer = target.dispatcher.clock.call_later(BODY_PATIENCE_S, give_back)
    try:
        body, more = await _piece(receive)
    except BaseException:
        give_back()
        raise
    finally:
        timer.cancel()
    if is_lent and worker.serves:
        return worker, body, more
    give_back()
    return await take(target), body, more


def leave(exchange: Exchange, target: HttpTarget, grace_s: float) -> None:
    """Whatever happened, the worker must not go on for nobody; one that does not stop within the grace is replaced."""
    if exchange.ended:
        return
    exchange.cancel("disconnect")

    def overstay() -> None:
        if not exchange.ended:
            why = f"a call of {target.function.id} did not stop when it was told to"
            target.dispatcher.pool.mark_broken(exchange.worker, why)

    target.dispatcher.clock.call_later(grace_s, overstay)


async def take(target: HttpTarget) -> Worker:
    """A worker with a slot, at once or after holding the call.

    Raises:
        Refused: there is none, and why.
    """
    try:
        return await target.dispatcher.take(target.function.id)
    except HoldingFull as error:
        raise refusal(429, "queue_full", str(error), headers=[_later(target)]) from error
    except HeldTooLong as error:
        raise refusal(503, "startup", str(error), headers=[_later(target)]) from error
    except NotServed as error:
        raise refusal(404, "function_gone", str(error)) from error
    except NoWorker as error:
        raise unavailable(error.failure, target.dispatcher.retry_after_s()) from error


def _later(target: HttpTarget) -> tuple[bytes, bytes]:
    return retry_after(target.dispatcher.retry_after_s())


async def take_unless(gone: asyncio.Future[Any], target: HttpTarget) -> Worker:
    """The same for a client that may leave meanwhile: `gone` is done when it does, and is left as it is.

    Raises:
        Refused: there is no worker.
        ClientGone: it left, and is held no longer.
    """
    while True:
        taking = asyncio.ensure_future(take(target))
        try:
            await asyncio.wait([gone, taking], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            _drop(taking, target)
            raise
        if not taking.done():
            taking.cancel()  # gives back what it may get
            raise ClientGone
        if (worker := taking.result()).serves:
            return worker
        target.dispatcher.give_back(worker)  # it was stopped in the moment since


def _drop(taking: asyncio.Future[Worker], target: HttpTarget) -> None:
    if not taking.done():
        taking.cancel()
    elif taking.exception() is None:
        target.dispatcher.give_back(taking.result())


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


async def _respond_watching(
    receive: Receive, send: Send, exchange: Exchange, target: HttpTarget, waited_s: float = 0.0
) -> None:
    """Respond, and notice a client that leaves while the call takes its time."""
    watcher: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watcher
        watcher = asyncio.ensure_future(_until_gone(receive, exchange))

    timer = target.dispatcher.clock.call_later(NOTICE_GONE_AFTER_S, watch)
    try:
        await _respond(send, exchange, target, waited_s)
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def _until_gone(receive: Receive, exchange: Exchange) -> None:
    await _disconnected(receive)
    exchange.fail(ClientGone())


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _respond(send: Send, exchange: Exchange, target: HttpTarget, waited_s: float = 0.0) -> None:
    timeout_s = target.function.timeout_s
    started = False
    owed = 0
    while True:
        try:
            frame = await exchange.next(max(0.0, timeout_s - waited_s))
            waited_s = 0.0
        except NothingCame:
            exchange.cancel("timeout")
            _give_up(started, 504, "timeout", f"{target.function.id} sent nothing for {timeout_s:g} s")
        except Outdated:
            exchange.cancel("disconnect")
            _give_up(started, 502, "worker_lost", "the code was saved, and the answer did not end within drain_timeout")
        if frame is None:
            _give_up(started, 502, "worker_lost", f"the worker {exchange.lost}")
        elif frame.kind is Kind.HEAD and (head := exchange.head) is not None:
            start = {"type": "http.response.start", "status": head.status, "headers": headers_of(head)}
            started = True
            await send(start)
            await _send_body(send, frame.body, end=head.end)
            if head.end:
                return
        elif frame.kind is Kind.DATA:
            await _send_body(send, frame.body, end=bool(frame.meta.get("end")))
            owed += len(frame.body)
            if owed >= CREDIT_BYTES:
                exchange.worker.send(Kind.CREDIT, exchange.number, {"bytes": owed})
                owed = 0
        elif frame.kind is Kind.FAILURE:
            if started:
                raise ResponseCut(str(frame.meta.get("message", "")))
            refuse_failure(frame)
        elif frame.kind is Kind.GONE:
            _give_up(started, 499, "cancelled", "the client left")
        if frame is not None and frame.meta.get("end"):
            return


def refuse_failure(frame: Frame) -> NoReturn:
    """Answer for a call that ended with a FAILURE before its response began.

    Raises:
        Refused: always.
    """
    reason = str(frame.meta.get("reason", "handler_error"))
    status = 404 if reason == "function_gone" else frame.meta.get("status", 500)
    raise refusal(status, reason, str(frame.meta.get("message", "")))


def headers_of(head: ResponseHead) -> list[tuple[bytes, bytes]]:
    """The headers of a response.

    Raises:
        Refused: 500, one has what no header may have.
    """
    if not head.is_sound:
        name = wrong_header(head.headers)
        raise refusal(
            500, "encode", f"the header {name!r} of the response has a line break or another control character"
        )
    return pairs_of(head.headers)


async def _send_body(send: Send, body: bytes, *, end: bool) -> None:
    if body or end:
        await send({"type": "http.response.body", "body": body, "more_body": not end})


def _give_up(started: bool, status: int, reason: str, message: str) -> NoReturn:
    if started:
        raise ResponseCut(message)
    raise refusal(status, reason, message)


def head_of(
    scope: Scope,
    function: Function,
    params: dict[str, str],
    root_path: str,
    *,
    end: bool = True,
    is_preflight: bool = False,
) -> bytes:
    """The head of a request, or of a WebSocket's handshake, as a worker is told of it."""
    return request_head(
        function=function.id,
        method=scope.get("method", "WEBSOCKET"),
        scheme=scope["scheme"],
        http_version=scope["http_version"],
        path=scope["path"],
        raw_path=scope.get("raw_path") or b"",
        root_path=root_path,
        query=scope["query_string"],
        headers=block_of(scope["headers"]),
        params=params,
        client=scope.get("client"),
        server=scope.get("server"),
        end=end,
        subprotocols=scope.get("subprotocols", ()),
        is_preflight=is_preflight,
    )
