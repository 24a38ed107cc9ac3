"""The heads of HTTP requests and responses as they travel: lengths and raw bytes, for which JSON would cost too much.

Headers are one block, `name NUL value LF` for each. Neither byte can be in a header, so a block is made by joining
and read by splitting, and whoever takes one from a worker checks all of it by one expression.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from flashfw.worker.frames import FrameError

Headers = list[tuple[bytes, bytes]]
Address = tuple[str, int]

_REQUEST = struct.Struct("!BHBBBIIIIHII")
_RESPONSE = struct.Struct("!BHH")
_END, _PREFLIGHT, _SUBPROTOCOL = 1, 2, 4
_STRAY = re.compile(rb"[\0\n]")
_NAME = rb"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?={}]+"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_SOUND = re.compile(rb"(?:%b\0%b\n)*" % (_NAME, _VALUE))
"""RFC 9110, 5.1 and 5.5."""
_SHAPE = re.compile(rb"(?:[^\0\n]*\0[^\0\n]*\n)*")


def block_of(headers: Iterable[Sequence[bytes]]) -> bytes:
    """Pairs of name and value as a block.

    A NUL or a line feed in one of them would be read as the end of it: it travels as a byte that no header may hold
    either, for the same refusal.

    >>> block_of([(b"a", b"1"), (b"b", b"2")])
    b'a\\x001\\nb\\x002\\n'
    """
    pairs = headers if isinstance(headers, list) else list(headers)
    if not pairs:
        return b""
    block = b"\n".join([*map(b"\0".join, pairs), b""])
    if block.count(b"\0") + block.count(b"\n") == 2 * len(pairs):
        return block
    return b"".join([b"%b\0%b\n" % (_without_ends(name), _without_ends(value)) for name, value in pairs])


def _without_ends(part: bytes) -> bytes:
    return _STRAY.sub(b"\x01", part)


def pairs_of(block: bytes) -> Headers:
    """The headers of a block that `block_of` made.

    >>> pairs_of(b"a\\x001\\nb\\x002\\n")
    [(b'a', b'1'), (b'b', b'2')]
    """
    parts = block.replace(b"\n", b"\0").split(b"\0")
    return list(zip(parts[:-1:2], parts[1::2], strict=True))


def request_head(
    *,
    function: str,
    method: str,
    scheme: str,
    http_version: str,
    path: str,
    raw_path: bytes,
    root_path: str,
    query: bytes,
    headers: bytes,
    params: Mapping[str, str],
    client: Address | None,
    server: Address | None,
    end: bool,
    subprotocols: Sequence[str] = (),
    is_preflight: bool = False,
) -> bytes:
    """The head of one request, parsed once by the gateway.

    `path` is decoded, `raw_path` as on the wire, `root_path` the mount of an application; `headers` are a block, with
    names in lower case. With `end` false more of the body follows as DATA. A WebSocket is the method `WEBSOCKET` with
    its `subprotocols`. A preflight is for the middleware alone.
    """
    parts = (
        function.encode(),
        method.encode(),
        scheme.encode(),
        http_version.encode(),
        path.encode("utf-8", "surrogatepass"),
        raw_path,
        root_path.encode("utf-8", "surrogatepass"),
        query,
        _peers_text(client, server),
        json.dumps(params).encode() if params else b"",
        json.dumps(list(subprotocols)).encode() if subprotocols else b"",
    )
    flags = (_END if end else 0) | (_PREFLIGHT if is_preflight else 0)
    return b"".join((_REQUEST.pack(flags, *map(len, parts)), *parts, headers))


class RequestHead:
    """A request's head as it came; what a call does not need is not read.

    Raises:
        FrameError: it is none.
    """

    __slots__ = ("_data", "_ends", "end", "function", "is_preflight", "is_socket")

    def __init__(self, data: bytes) -> None:
        try:
            flags, *sizes = _REQUEST.unpack_from(data)
        except struct.error as error:
            raise FrameError(f"a request's head of {len(data)} bytes") from error
        self._data = data
        self._ends = ends = [*accumulate(sizes, initial=_REQUEST.size)]
        if ends[-1] > len(data):
            raise FrameError("a request's head that is cut off")
        self.end = flags & _END != 0
        self.is_preflight = flags & _PREFLIGHT != 0
        self.function = _text(data[ends[0] : ends[1]])
        self.is_socket = data[ends[1] : ends[2]] == b"WEBSOCKET"

    @property
    def headers(self) -> bytes:
        """The block of its headers."""
        return self._data[self._ends[-1] :]

    def header(self, name: bytes) -> str:
        """The first value of a header, whose name is in lower case; empty if it is not there."""
        block = self.headers
        begin = (b"\n" + block).find(b"\n%b\0" % name)
        if begin < 0:
            return ""
        begin += len(name) + 1
        return block[begin : block.index(b"\n", begin)].decode("latin-1")

    @property
    def query(self) -> bytes:
        return self._part(7)

    @property
    def params(self) -> dict[str, str]:
        """The path parameters, decoded."""
        params: dict[str, str] = _json(self._part(9), {})
        return params

    @property
    def subprotocols(self) -> list[str]:
        names: list[str] = _json(self._part(10), [])
        return names

    def scope(self) -> dict[str, Any]:
        """An ASGI scope. Version 2.3 of HTTP, so that Starlette listens for a client that leaves while it streams.

        Raises:
            FrameError: it cannot be read.
        """
        client, server = _peers(self._part(8))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": _text(self._part(3)),
            "method": _text(self._part(1)),
            "scheme": _text(self._part(2)),
            "path": _text(self._part(4)),
            "raw_path": self._part(5),
            "root_path": _text(self._part(6)),
            "query_string": self.query,
            "headers": _pairs(self.headers),
            "client": client,
            "server": server,
            "path_params": self.params,
            "state": {},
        }

    def _part(self, index: int) -> bytes:
        return self._data[self._ends[index] : self._ends[index + 1]]


class ResponseHead(NamedTuple):
    """The start of a response. `headers` is their block; it `is_sound` if all of them may be sent to a client."""

    status: int
    end: bool
    headers: bytes
    is_sound: bool
    subprotocol: str | None


def response_head(
    status: int, headers: Iterable[Sequence[bytes]] = (), *, end: bool, subprotocol: str | None = None
) -> bytes:
    """The start of a response; with `end` all of it. A WebSocket that is accepted has the status 101.

    Raises:
        ValueError: there is no such status.
    """
    if not 100 <= status <= 599:
        raise ValueError(f"{status} is no status of HTTP's")
    flags = _END if end else 0
    if subprotocol is None:
        return _RESPONSE.pack(flags, status, 0) + block_of(headers)
    name = subprotocol.encode()
    return _RESPONSE.pack(flags | _SUBPROTOCOL, status, len(name)) + name + block_of(headers)


def whole_head(status: int, media: bytes, size: int) -> bytes:
    """The start of a response that is all there; one without `media` has no body."""
    head = _RESPONSE.pack(_END, status, 0)
    return head + b"content-type\0%b\ncontent-length\0%d\n" % (media, size) if media else head


def read_response(data: bytes) -> ResponseHead:
    """The start of a response as a worker sent it.

    Raises:
        FrameError: it is none, whatever the worker is.
    """
    try:
        flags, status, size = _RESPONSE.unpack_from(data)
    except struct.error as error:
        raise FrameError(f"a response's head of {len(data)} bytes") from error
    begin = _RESPONSE.size + size
    block = data[begin:]
    is_sound = _SOUND.fullmatch(block) is not None
    if not (is_sound or _SHAPE.fullmatch(block)) or begin > len(data) or not 100 <= status <= 599:
        raise FrameError("a response's head that is none")
    subprotocol = _text(data[_RESPONSE.size : begin]) if flags & _SUBPROTOCOL else None
    return ResponseHead(status, flags & _END != 0, block, is_sound, subprotocol)


def wrong_header(block: bytes) -> str:
    """The name of the first header in a block that no client may be sent; a line break in one could begin a response
    of its own.
    """
    pairs = pairs_of(block)
    return next(name.decode("latin-1") for name, value in pairs if not _SOUND.fullmatch(b"%b\0%b\n" % (name, value)))


@lru_cache(1024)
def _peers_text(client: Address | None, server: Address | None) -> bytes:
    return json.dumps([client, server]).encode()


@lru_cache(1024)
def _peers(text: bytes) -> tuple[Address | None, Address | None]:
    client, server = _json(text, (None, None))
    return (tuple(client) if client else None), (tuple(server) if server else None)


def _pairs(block: bytes) -> Headers:
    try:
        return pairs_of(block)
    except ValueError as error:
        raise FrameError("a block of headers that is none") from error


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise FrameError(str(error)) from error


def _json(data: bytes, empty: Any) -> Any:
    try:
        return json.loads(data) if data else empty
    except (ValueError, RecursionError) as error:
        raise FrameError(str(error)) from error
