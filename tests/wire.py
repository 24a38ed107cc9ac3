"""Requests as bytes on a socket, for those that no HTTP client would send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Reply:
    """What came back until the server closed the connection."""

    raw: bytes

    @property
    def status(self) -> int:
        """The status of the first response; 0 where there is none."""
        return int(self.raw.split(b" ", 2)[1]) if self.raw.startswith(b"HTTP/") else 0

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def head(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").lower()

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of the gateway's error, or what a worker said of the request."""
        value = self.json()
        if "error" in value:
            return str(value["error"]["message"])
        return str(value["detail"])


def exchange(url: str, data: bytes, *, half_close: bool = False) -> Reply:
    """Send the bytes and read until the server closes; `half_close` says that no more will come."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S) as sock:
        pieces = []
        try:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                pieces.append(piece)
        except ConnectionError:
            pass  # a server need not read what it refused
        return Reply(b"".join(pieces))


def request(
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: Iterable[tuple[str, str]] = (),
    host: str | None = "127.0.0.1",
    content_type: str | None = "application/json",
    version: str = "1.1",
    close: bool = True,
) -> bytes:
    """The bytes of a request. Without a `host` it has no such header."""
    lines = [f"{method} {path} HTTP/{version}"]
    lines += [] if host is None else [f"Host: {host}"]
    lines += ["Connection: close"] if close else []
    lines += [f"Content-Length: {len(body)}"] if body else []
    lines += [f"Content-Type: {content_type}"] if body and content_type else []
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
