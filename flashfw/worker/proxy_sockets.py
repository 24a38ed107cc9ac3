"""A WebSocket to a server on this machine: its handshake, messages both ways at the pace of their readers, its end.

wsproto, because it is as small as h11, which it stands on, and owns no connection. Messages are not compressed: on
loopback that costs time and saves nothing.

| what happens | the client gets |
| --- | --- |
| the server refuses the handshake | its answer |
| the server closes | its code and reason; 1000 where it named none |
| the server breaks off, or breaks the protocol | 502 before it accepted, 1011 after |
| a message of the server is too large | 1009, and the server too |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h11
from starlette.types import Message, Receive, Scope, Send
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from flashfw.worker.encode import dumps
from flashfw.worker.foreign import HOST
from flashfw.worker.proxy_headers import response_headers, socket_headers, target
from flashfw.worker.sockets import MAX_MESSAGE_BYTES

_READ_BYTES = 1 << 16
_BROKE_OFF = "the server behind this endpoint broke off"


async def pass_on(port: int, scope: Scope, receive: Receive, send: Send) -> None:
    """One WebSocket, as ASGI 3 has it, from its handshake to its end."""
    tunnel = _Tunnel(scope, receive, send)
    try:
        await tunnel.run(port)
    except (h11.LocalProtocolError, UnicodeError) as error:
        await tunnel.fail(400, f"the request cannot be passed on: {error}")
    except (OSError, h11.RemoteProtocolError, RemoteProtocolError, LocalProtocolError) as error:
        if not tunnel.has_left:
            await tunnel.fail(502, f"{_BROKE_OFF}: {error or type(error).__name__}")


class _Tunnel:
    """One WebSocket on a connection of its own."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.has_left = False
        self._accepted = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._prefix: str = scope.get("root_path", "")
        self._socket = WSConnection(ConnectionType.CLIENT)
        self._pieces: list[bytes] = []
        self._size = 0

    async def run(self, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        listening: asyncio.Task[None] | None = None
        try:
            await self._receive()  # websocket.connect
            writer.write(self._socket.send(_handshake(self._scope)))
            listening = asyncio.create_task(self._inwards(writer))
            async for event in self._events(reader):
                if await self._is_over(event, writer):
                    await writer.drain()
                    return
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.wait([listening])
            writer.close()

    async def fail(self, status: int, message: str) -> None:
        """Tell the client in the server's place: with a status, or once it was accepted by closing with 1011."""
        if self._accepted:
            await self._send({"type": "websocket.close", "code": 1011, "reason": message})
            return
        headers = [(b"content-type", b"application/json")]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        body = dumps({"error": {"reason": "proxy", "message": message}})
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def _events(self, reader: asyncio.StreamReader) -> AsyncIterator[Event]:
        """What the server says.

        Raises:
            ConnectionResetError: it closed the connection and had not said that it would.
        """
        while True:
            data = await reader.read(_READ_BYTES)
            self._socket.receive_data(data or None)
            for event in self._socket.events():
                yield event
            if not data:
                raise ConnectionResetError("it closed the connection")

    async def _inwards(self, writer: asyncio.StreamWriter) -> None:
        """The client's messages, then its leaving, which before the handshake is answered is all that can come."""
        message = await self._receive()
        try:
            while message["type"] == "websocket.receive":
                text: str | None = message.get("text")
                event = BytesMessage(message["bytes"]) if text is None else TextMessage(text)
                writer.write(self._socket.send(event))
                await writer.drain()
                message = await self._receive()
        except (OSError, LocalProtocolError):
            return  # the server is closing, or gone: told where its side is read
        self.has_left = True
        self._say_leaving(message, writer)

    def _say_leaving(self, message: Message, writer: asyncio.StreamWriter) -> None:
        code = message.get("code", CloseReason.NO_STATUS_RCVD)
        if not self._accepted or code == CloseReason.ABNORMAL_CLOSURE:
            writer.transport.abort()
        elif self._socket.state is ConnectionState.OPEN:
            if code == CloseReason.NO_STATUS_RCVD:  # wsproto asks for this very object
                writer.write(self._socket.send(CloseConnection(CloseReason.NO_STATUS_RCVD)))
            else:
                writer.write(self._socket.send(CloseConnection(code, message.get("reason") or None)))

    async def _is_over(self, event: Event, writer: asyncio.StreamWriter) -> bool:
        """Pass on what the server said; whether that was the last of it."""
        if isinstance(event, (TextMessage, BytesMessage)):
            return await self._message(event, writer)
        if isinstance(event, Ping):
            if self._socket.state is ConnectionState.OPEN:
                writer.write(self._socket.send(event.response()))
                await writer.drain()
        elif isinstance(event, CloseConnection):
            await self._closed(event, writer)
            return True
        elif isinstance(event, AcceptConnection):
            self._accepted = True
            headers = response_headers(event.extra_headers, self._prefix)
            await self._send({"type": "websocket.accept", "subprotocol": event.subprotocol, "headers": headers})
        elif isinstance(event, RejectConnection):
            await self._refused(event)
        elif isinstance(event, RejectData):
            await self._send(
                {
                    "type": "websocket.http.response.body",
                    "body": bytes(event.data),
                    "more_body": not event.body_finished,
                }
            )
            return event.body_finished
        return False

    async def _message(self, event: TextMessage | BytesMessage, writer: asyncio.StreamWriter) -> bool:
        piece = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
        self._size += len(piece)
        if self._size > MAX_MESSAGE_BYTES:
            why = f"a message of more than {MAX_MESSAGE_BYTES} bytes"
            if self._socket.state is ConnectionState.OPEN:
                writer.write(self._socket.send(CloseConnection(CloseReason.MESSAGE_TOO_BIG, why)))
            await self._send({"type": "websocket.close", "code": 1009, "reason": why})
            return True
        self._pieces.append(piece)
        if event.message_finished:
            whole = b"".join(self._pieces)
            self._pieces, self._size = [], 0
            if not self.has_left:
                content = {"text": whole.decode()} if isinstance(event, TextMessage) else {"bytes": whole}
                await self._send({"type": "websocket.send", **content})
        return False

    async def _closed(self, event: CloseConnection, writer: asyncio.StreamWriter) -> None:
        is_said = self._socket.state is not ConnectionState.OPEN  # else what it sent was no WebSocket's
        if event.code == CloseReason.ABNORMAL_CLOSURE:
            raise ConnectionResetError("it closed the connection")
        if self._socket.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            writer.write(self._socket.send(event.response()))
        if not is_said:
            raise RemoteProtocolError(event.reason or "it broke the protocol")
        code = 1000 if event.code == CloseReason.NO_STATUS_RCVD else int(event.code)
        await self._send({"type": "websocket.close", "code": code, "reason": event.reason or ""})

    async def _refused(self, event: RejectConnection) -> None:
        if event.status_code < 200:
            raise RemoteProtocolError(f"it answered the handshake with {event.status_code}")
        headers = [pair for pair in response_headers(event.headers, self._prefix) if pair[0] != b"content-length"]
        await self._send({"type": "websocket.http.response.start", "status": event.status_code, "headers": headers})


def _handshake(scope: Scope) -> Request:
    host, headers = socket_headers(scope)
    where = target(scope).decode("ascii")
    return Request(host.decode("ascii"), where, subprotocols=list(scope["subprotocols"]), extra_headers=headers)
