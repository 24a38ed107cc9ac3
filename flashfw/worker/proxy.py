"""HTTP calls to a server on this machine: an ASGI application that passes each on, both ways at the pace of its reader.

h11, because it is small, pure Python and knows HTTP alone: httpx would bring five packages beside user code, decode
what must pass as it is, and own the connection. One connection per call: on loopback that costs 0.1 ms, and no
kept-alive one can turn out to be closed when a call that must not be sent twice is on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import h11
from starlette.types import Receive, Scope, Send

from flashfw.worker.encode import dumps
from flashfw.worker.foreign import HOST, ForeignServer

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization")
    + (b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Of one connection, not of the message (RFC 9110, 7.6.1)."""
FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix")
MOST_OF_A_HEAD = 1 << 17
_READ_BYTES = 1 << 16

Headers = list[tuple[bytes, bytes]]


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
            await send({"type": "websocket.close", "code": 1003})
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


def target(scope: Scope) -> bytes:
    """The path below the mount with its query, as the server gets it; escapes stay as the client wrote them.

    >>> target({"path": "/llm/a b", "raw_path": b"/llm/a%20b", "root_path": "/llm", "query_string": b"x=1"})
    b'/a%20b?x=1'
    >>> target({"path": "/llm", "raw_path": b"/llm", "root_path": "/llm", "query_string": b""})
    b'/'
    """
    root = scope.get("root_path", "")
    raw: bytes = scope.get("raw_path") or b""
    if raw.startswith(root.encode()) and b"?" not in raw:
        path = raw[len(root) :]
    else:
        path = quote(scope["path"].removeprefix(root), safe="/:@!$&'()*+,;=~").encode()
    query: bytes = scope["query_string"]
    return (path if path.startswith(b"/") else b"/" + path) + (b"?" + query if query else b"")


def request_headers(scope: Scope) -> Headers:
    """What the server gets to see: the client's headers, and where they came from."""
    given: Headers = scope["headers"]
    dropped = HOP_BY_HOP | _named(given) | {b"expect", *FORWARDED}
    headers = [(name, value) for name, value in given if name not in dropped]
    names = {name for name, _ in given}
    host = next((value for name, value in given if name == b"host"), b"")
    if b"host" not in names:
        headers.append((b"host", HOST.encode()))
    if b"content-length" not in names and b"transfer-encoding" in names:
        headers.append((b"transfer-encoding", b"chunked"))
    before = [value for name, value in given if name == b"x-forwarded-for"]
    client = [str(scope["client"][0]).encode()] if scope.get("client") else []
    values = (b", ".join([*before, *client]), scope["scheme"].encode(), host, scope.get("root_path", "").encode())
    headers += [(name, value) for name, value in zip(FORWARDED, values, strict=True) if value]
    return [*headers, (b"connection", b"close")]


def response_headers(given: Iterable[tuple[bytes, bytes]], prefix: str) -> Headers:
    """What the client gets to see. A redirect to a path of the server's leads below the mount.

    >>> response_headers([(b"Location", b"/login"), (b"Connection", b"close")], "/llm")
    [(b'location', b'/llm/login')]
    """
    pairs = [(bytes(name).lower(), bytes(value)) for name, value in given]
    dropped = HOP_BY_HOP | _named(pairs)
    return [
        (name, _below(value, prefix) if name == b"location" else value) for name, value in pairs if name not in dropped
    ]


def _below(location: bytes, prefix: str) -> bytes:
    root = prefix.encode()
    if not location.startswith(b"/") or location.startswith((b"//", root + b"/")) or location == root:
        return location
    return root + location


def _named(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The headers that a Connection header names as its own."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(name.strip().lower() for value in values for name in value.split(b","))
