"""The heads of HTTP frames as tests write and read them: in the place of `meta`, as a dict of texts."""

from __future__ import annotations

from typing import Any

from flashfw.worker.frames import Frame, Kind, pack
from flashfw.worker.http_frames import RequestHead, block_of, pairs_of, read_response, request_head, response_head


def legible(frame: Frame) -> Frame:
    """The frame with what its head says in `meta`."""
    if frame.kind is Kind.HEAD:
        head = read_response(frame.head)
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in pairs_of(head.headers)]
        return frame._replace(meta={**head._asdict(), "headers": headers})
    if frame.kind is Kind.REQUEST:
        request = RequestHead(frame.head)
        scope = request.scope()
        query = scope["query_string"].decode()
        return frame._replace(meta={**scope, "function": request.function, "query": query, "end": request.end})
    return frame


def packed(kind: Kind, call: int = 0, meta: Any = None, body: bytes = b"") -> bytes:
    """The frame of such a `meta`."""
    if kind is Kind.HEAD:
        return pack(kind, call, None, body, response_head(meta["status"], _raw(meta["headers"]), end=meta["end"]))
    if kind is Kind.REQUEST:
        return pack(kind, call, None, body, _request(**meta))
    return pack(kind, call, meta, body)


def _request(
    function: str, method: str = "GET", path: str = "/", *, headers: Any = (("host", "localhost"),), **given: Any
) -> bytes:
    query = given.pop("query", "").encode("latin-1")
    return request_head(
        **{
            "function": function,
            "method": method,
            "scheme": "http",
            "http_version": "1.1",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query": query,
            "headers": block_of(_raw(headers)),
            "params": {},
            "client": ("127.0.0.1", 5000),
            "server": ("127.0.0.1", 80),
            "end": True,
            **given,
        }
    )


def _raw(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
