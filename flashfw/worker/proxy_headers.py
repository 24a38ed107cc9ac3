"""What of a message's head passes to a server behind the worker and back: its target and its headers."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from starlette.types import Scope

from flashfw.worker.foreign import HOST

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization")
    + (b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Of one connection, not of the message (RFC 9110, 7.6.1)."""
_FRAMING = frozenset((b"host", b"content-length"))
"""No option of a connection, whatever a Connection header says: without them the server reads another message."""
FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix")

Headers = list[tuple[bytes, bytes]]


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
    headers = _passed(scope)
    names = {name for name, _ in given}
    if b"host" not in names:
        headers.append((b"host", HOST.encode()))
    if b"content-length" not in names and b"transfer-encoding" in names:
        headers.append((b"transfer-encoding", b"chunked"))
    return [*headers, (b"connection", b"close")]


def socket_headers(scope: Scope) -> tuple[bytes, Headers]:
    """The host and the other headers of a WebSocket's handshake, but for those that every handshake has of its own."""
    headers = _passed(scope)
    host = next((value for name, value in headers if name == b"host"), HOST.encode())
    own = (b"host", b"content-length")
    return host, [pair for pair in headers if pair[0] not in own and not pair[0].startswith(b"sec-websocket-")]


def _passed(scope: Scope) -> Headers:
    given: Headers = scope["headers"]
    dropped = HOP_BY_HOP | _named(given) | {b"expect", *FORWARDED}
    host = next((value for name, value in given if name == b"host"), b"")
    before = [value for name, value in given if name == b"x-forwarded-for"]
    client = [str(scope["client"][0]).encode()] if scope.get("client") else []
    scheme = {"ws": b"http", "wss": b"https"}.get(scope["scheme"], scope["scheme"].encode())
    values = (b", ".join([*before, *client]), scheme, host, scope.get("root_path", "").encode())
    forwarded = [(name, value) for name, value in zip(FORWARDED, values, strict=True) if value]
    return [*((name, value) for name, value in given if name not in dropped), *forwarded]


def response_headers(given: Iterable[tuple[bytes, bytes]], prefix: str) -> Headers:
    """What the client gets to see. A redirect to a path of the server's leads below the mount.

    >>> response_headers([(b"Location", b"/login"), (b"Connection", b"close")], "/llm")
    [(b'location', b'/llm/login')]
    """
    pairs = [(bytes(name).lower(), bytes(value)) for name, value in given]
    dropped = HOP_BY_HOP | _named(pairs) | {b"date"}  # the gateway says it of every answer
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
    return frozenset(name.strip().lower() for value in values for name in value.split(b",")) - _FRAMING
