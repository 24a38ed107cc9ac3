"""HTTP calls to a server on this machine: an ASGI application that passes each on, both ways at the pace of its reader.

h11, because it is small, pure Python and knows HTTP alone: httpx would bring five packages beside user code, decode
what must pass as it is, and own the connection. One connection per call: on loopback that costs 0.1 ms, and no
kept-alive one can turn out to be closed when a call that must not be sent twice is on it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from starlette.types import Receive, Scope, Send

from flashfw.worker.encode import dumps
from flashfw.worker.foreign import HOST, ForeignServer
from flashfw.worker.proxy_headers import request_headers, response_headers, target
from flashfw.worker.proxy_sockets import pass_on

MOST_OF_A_HEAD = 1 << 17
_READ_BYTES = 1 << 16


class Proxy:
    """A server with its lifespan and, as `app`, what answers its calls; the prefix of the mount is taken off."""

    def __init__(self, server: ForeignServer) -> None:
        self._server = server

    async def startup(self) -> None:
        """Waits until the server is ready.

        Raises:
            ServerFailed: it does not become so.
        """
        await self._server.start()

    async def shutdown(self) -> None:
        """Waits until the server has ended."""
        await self._server.stop()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call, as ASGI 3 has it.

        Raises:
            h11.RemoteProtocolError, OSError: the server broke off within its answer, which is then cut off too.
        """
        if scope["type"] != "http":
            await pass_on(self._server.port, scope, receive, send)
            return
        call = _Call(scope, receive, send)
        try:
            await call.run(self._server.port)
        except h11.LocalProtocolError as error:
            await call.refuse(400, f"the request cannot be passed on: {error}")
        except (OSError, h11.RemoteProtocolError) as error:
            if call.has_left:
                return
            if call.begun:
                raise
            await call.refuse(502, f"the server behind this endpoint broke off: {error or type(error).__name__}")


class _Call:
    """One request on a connection of its own."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun = False
        self.has_left = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._prefix: str = scope.get("root_path", "")
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_OF_A_HEAD)

    async def run(self, port: int) -> None:
        headers = request_headers(self._scope)
        request = h11.Request(method=self._scope["method"], target=target(self._scope), headers=headers)
        reader, writer = await asyncio.open_connection(HOST, port)
        sending: asyncio.Task[None] | None = None
        try:
            writer.write(self._http.send(request) or b"")
            sending = asyncio.create_task(self._pass_on(writer))
            await self._answer(reader)
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait([sending])
            writer.transport.abort()

    async def refuse(self, status: int, message: str) -> None:
        """Answer in the server's place."""
        body = dumps({"error": {"reason": "proxy", "message": message}})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _pass_on(self, writer: asyncio.StreamWriter) -> None:
        """The body, then the news that the client left. A server that answers before it has read it all may do so."""
        more = True
        try:
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    break
                more = message.get("more_body", False)
                if data := message.get("body", b""):
                    writer.write(self._http.send(h11.Data(data=data)) or b"")
                    await writer.drain()
            else:
                writer.write(self._http.send(h11.EndOfMessage()) or b"")
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except (OSError, h11.LocalProtocolError):
            return
        self.has_left = True
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        while True:
            event: Any = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await reader.read(_READ_BYTES))
            elif isinstance(event, h11.Response):
                headers = response_headers(event.headers.raw_items(), self._prefix)
                self.begun = True
                await self._send({"type": "http.response.start", "status": event.status_code, "headers": headers})
            elif isinstance(event, h11.Data):
                await self._send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("it closed the connection without an answer")
