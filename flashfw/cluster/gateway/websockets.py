"""A WebSocket carried to a worker: its handshake, its messages both ways under credit, and how it ends.

| what happens | before it is accepted | after |
| --- | --- | --- |
| the function returns, or closes | 403 | its close, else 1000 |
| it raises | as in HTTP | 1011 with type and message |
| the client leaves | the call is cancelled | `websocket.disconnect`, and a cancel 10 s later |
| the worker dies | 502 | 1011 |
| the worker was told to stop (a roll, a drain) | 502 | 1012 |
| its worker has taken in new code | the new code's answer, or the old one's | 1012 after `drain_timeout` |
| nothing for `timeout` | 504 | nothing: messages may be as rare as they like |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from starlette.types import Message, Receive, Scope, Send

from flashfw.cluster.dispatch.runs import CANCEL_GRACE_S
from flashfw.cluster.gateway.answers import ResponseCut, refusal
from flashfw.cluster.gateway.bodies import ClientGone
from flashfw.cluster.gateway.exchange import Exchange, NothingCame, Outdated
from flashfw.cluster.gateway.http_calls import HttpTarget, head_of, headers_of, leave, refuse_failure, take_unless
from flashfw.worker.frames import PIECE_BYTES, Frame, Kind
from flashfw.worker.sockets import LEAVE_S, clipped, cost

SERVER_ERROR, RESTART = 1011, 1012


async def serve_socket(
    scope: Scope, receive: Receive, send: Send, *, target: HttpTarget, params: dict[str, str], root_path: str
) -> None:
    """One WebSocket, from its handshake to its end. It has a slot of a worker as long as it is open.

    Raises:
        Refused: it was not accepted; nothing is sent yet.
        ClientGone: the client left.
        ResponseCut: it was accepted, and closed for a reason that is not the function's.
    """
    await receive()  # websocket.connect
    first = asyncio.ensure_future(receive())  # before the handshake is answered a client can only leave
    try:
        worker = await take_unless(first, target)
    except BaseException:
        first.cancel()
        raise
    head = head_of(scope, target.function, params, root_path)
    exchange = Exchange(worker, target.dispatcher.clock)
    exchange.number = worker.begin_request(exchange, head, b"")
    listening = asyncio.ensure_future(_listen(first, receive, exchange))
    try:
        await _Outwards(send, exchange, target).run()
    finally:
        listening.cancel()
        first.cancel()
        leave(exchange, target, LEAVE_S + CANCEL_GRACE_S)


async def _listen(first: Awaitable[Message], receive: Receive, exchange: Exchange) -> None:
    """The client's messages to the worker, as fast as that takes them, until the client leaves."""
    try:
        message = await first
        while message["type"] == "websocket.receive":
            text: str | None = message.get("text")
            body = memoryview((message.get("bytes") or b"") if text is None else text.encode())
            for begin in range(0, len(body) or 1, PIECE_BYTES):
                piece = body[begin : begin + PIECE_BYTES]
                meta = {"text": text is not None, "more": begin + PIECE_BYTES < len(body)}
                await exchange.send_data(meta, piece, cost(piece))
            message = await receive()
        if not exchange.ended:
            left = {"end": True, "code": message.get("code", 1005), "reason": message.get("reason") or ""}
            exchange.worker.send(Kind.DATA, exchange.number, left)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # whoever waits for the worker is to know of it
        exchange.fail(error)
        return
    exchange.fail(ClientGone())


class _Outwards:
    """What the worker says, to the client."""

    def __init__(self, send: Send, exchange: Exchange, target: HttpTarget) -> None:
        self._send = send
        self._exchange = exchange
        self._target = target
        self._accepted = False
        self._pieces: list[bytes] = []

    async def run(self) -> None:
        while (frame := await self._next()) is not None:
            await _TAKES[frame.kind](self, frame)
            if frame.meta.get("end") or (frame.kind is Kind.HEAD and self._is_refused):
                return
        why = f"the worker {self._exchange.lost}"
        if not self._accepted:
            raise refusal(502, "worker_lost", why)
        is_rolled = self._exchange.worker.is_stopping
        await self._cut(RESTART if is_rolled else SERVER_ERROR, "service restart" if is_rolled else "worker lost", why)

    @property
    def _is_refused(self) -> bool:
        head = self._exchange.head
        return head is not None and head.end

    async def _next(self) -> Frame | None:
        timeout_s = self._target.function.timeout_s
        try:
            return await self._exchange.next(None if self._accepted else timeout_s)
        except NothingCame:
            self._exchange.cancel("timeout")
            what = f"{self._target.function.id} did not accept the WebSocket within {timeout_s:g} s"
            raise refusal(504, "timeout", what) from None
        except Outdated:
            await self._cut(RESTART, "service restart", "the code was saved")

    async def head(self, frame: Frame) -> None:
        head = self._exchange.head
        assert head is not None
        headers = headers_of(head)
        if head.status == 101:
            self._accepted = True
            await self._to_client({"type": "websocket.accept", "subprotocol": head.subprotocol, "headers": headers})
            return
        start = {"type": "websocket.http.response.start", "status": head.status, "headers": headers}
        await self._to_client(start)
        await self._to_client({"type": "websocket.http.response.body", "body": frame.body})

    async def data(self, frame: Frame) -> None:
        if frame.meta.get("end"):
            await self._to_client(
                {"type": "websocket.close", "code": frame.meta["code"], "reason": frame.meta["reason"]}
            )
            return
        self._pieces.append(frame.body)
        if not frame.meta["more"]:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            await self._to_client(
                {"type": "websocket.send", "text": whole.decode()}
                if frame.meta["text"]
                else {"type": "websocket.send", "bytes": whole}
            )
        self._exchange.worker.send(Kind.CREDIT, self._exchange.number, {"bytes": cost(frame.body)})

    async def failure(self, frame: Frame) -> None:
        if not self._accepted:
            refuse_failure(frame)
        message = f"{frame.meta.get('type')}: {frame.meta.get('message')}"
        await self._cut(SERVER_ERROR, clipped(message), message)

    async def gone(self, frame: Frame) -> None:
        raise ClientGone

    async def _cut(self, code: int, reason: str, why: str) -> NoReturn:
        await self._to_client({"type": "websocket.close", "code": code, "reason": reason})
        raise ResponseCut(f"{why}: closed with {code}")

    async def _to_client(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError):  # it left, or broke the protocol, a moment ago
            raise ClientGone from None


_TAKES: dict[Kind, Callable[[_Outwards, Frame], Awaitable[None]]] = {
    Kind.HEAD: _Outwards.head,
    Kind.DATA: _Outwards.data,
    Kind.FAILURE: _Outwards.failure,
    Kind.GONE: _Outwards.gone,
}
