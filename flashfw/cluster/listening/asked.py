"""A request that came whole, and the right to answer it without a task and the messages of an ASGI application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Scope

Headers = Sequence[tuple[bytes, bytes]]

METHODS = frozenset({b"GET", b"POST", b"PUT", b"PATCH", b"DELETE"})
_ASKS_FOR_MORE = frozenset({b"expect", b"proxy-connection", b"transfer-encoding", b"upgrade"})


def is_plain(version: str, method: bytes, url: bytes, named: Mapping[bytes, bytes], count: int) -> bool:
    """Whether a head asks for an answer and nothing else; all others are the application's, as they come.

    `named` are its headers by name, `count` is how many there were: of a name that comes twice the first one counts
    for some and all of them for others.

    >>> is_plain("1.1", b"POST", b"/web?a=1", {b"host": b"localhost", b"content-length": b"2"}, 2)
    True
    >>> is_plain("1.1", b"POST", b"/web", {b"transfer-encoding": b"chunked"}, 1)
    False
    """
    return (
        version == "1.1"
        and method in METHODS
        and url[:1] == b"/"
        and url.isascii()
        and b"#" not in url
        and len(named) == count
        and _ASKS_FOR_MORE.isdisjoint(named)
        and named.get(b"connection", b"keep-alive").lower() == b"keep-alive"
    )


class Answerer(Protocol):
    """Answers requests that came whole, where it can."""

    def begin(self, asked: Asked) -> bool:
        """Take the request on, to answer it by `asked` now or later; False where the application is to have it."""
        ...


class Host(Protocol):
    """A connection, as a request on it sees it."""

    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: Literal["http", "https"] | None

    def write_answer(self, asked: Asked, status: int, lines: bytes, body: bytes) -> bool:
        """As `Asked.answer`."""
        ...

    def go_on(self, asked: Asked, app: ASGIApp) -> None:
        """As `Asked.go_on`."""
        ...


class Heard:
    """Stands for the event by which uvicorn wakes who reads from a connection: nobody does."""

    def set(self) -> None:
        """Wake nobody."""


_HEARD = Heard()


class Asked:
    """One such request. Until it has its answer it stands where uvicorn keeps what runs on a connection, so that it
    knows to keep the next request waiting, and to close the connection after this one.

    `on_left` is called when the client leaves before it has an answer.
    """

    __slots__ = (
        "body",
        "default_headers",
        "disconnected",
        "headers",
        "host",
        "keep_alive",
        "method",
        "named",
        "on_left",
        "path",
        "query",
        "raw_path",
        "response_complete",
        "response_started",
    )
    message_event = _HEARD
    more_body = False
    waiting_for_100_continue = False

    def __init__(
        self,
        host: Host,
        method: str,
        url: bytes,
        headers: Headers,
        named: Mapping[bytes, bytes],
        body: bytes,
        default_headers: list[tuple[bytes, bytes]],
    ) -> None:
        self.host = host
        self.method = method
        self.raw_path, _, self.query = url.partition(b"?")
        path = self.raw_path.decode("ascii")
        self.path = unquote(path) if "%" in path else path
        self.headers = headers
        self.named = named
        self.body = body
        self.default_headers = default_headers
        self.on_left: Callable[[], object] | None = None
        self.keep_alive = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def answer(self, status: int, lines: bytes, body: bytes) -> bool:
        """Send a whole response, where it can be sent now and the connection goes on after it; else nothing.

        `lines` are its headers as they are written, with what says how long the body is.
        """
        return self.host.write_answer(self, status, lines, body)

    def go_on(self, app: ASGIApp) -> None:
        """Have an application answer instead; nothing happens if it has its answer. The body was handed over before,
        so that all the application can receive is that the client left.
        """
        self.host.go_on(self, app)

    def as_scope(self) -> Scope:
        """The request as an application is told of it."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.host.server,
            "client": self.host.client,
            "scheme": self.host.scheme,
            "root_path": "",
            "method": self.method,
            "path": self.path,
            "raw_path": self.raw_path,
            "query_string": self.query,
            "headers": list(self.headers),
        }
