"""The gateway's own answers: JSON bodies with the errors that the design names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from starlette.types import Send

from flashfw.errors import FlashfwError
from flashfw.worker.frames import Failure

Headers = Iterable[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")


class Refused(FlashfwError):
    """A request that the gateway answers itself: `status`, a JSON body, further headers."""

    def __init__(self, status: int, error: dict[str, Any], headers: Headers = ()) -> None:
        super().__init__(str(error.get("message", "")))
        self.status = status
        self.body: dict[str, Any] = {"error": error}
        self.headers = tuple(headers)


class ResponseCut(Exception):
    """A response that had begun cannot be finished; the connection is closed so that the client sees it."""


def refusal(status: int, reason: str, message: str, *, headers: Headers = (), **more: Any) -> Refused:
    """A `Refused` with the usual error object.

    >>> refusal(404, "not_found", "no endpoint here").body
    {'error': {'reason': 'not_found', 'message': 'no endpoint here'}}
    """
    return Refused(status, {"reason": reason, "message": message, **more}, headers)


def no_job(job_id: str, whose: str = "there is") -> Refused:
    """404 for an id that no job has."""
    shown = repr(job_id) if len(job_id) <= 80 else f"{job_id[:77]!r}..."
    return refusal(404, "not_found", f"{whose} no job {shown}: it was never here, or its result_ttl is over")


def unavailable(failure: Failure, retry_after_s: float) -> Refused:
    """503 for an endpoint whose workers do not start, with the failure whole."""
    return Refused(503, dict(failure), [retry_after(retry_after_s)])


def retry_after(seconds: float) -> tuple[bytes, bytes]:
    """The header that says when to come again.

    >>> retry_after(12.0)
    (b'retry-after', b'12')
    """
    return (b"retry-after", str(max(1, round(seconds))).encode())


def to_json(value: Any) -> bytes:
    """A JSON value as bytes: UTF-8, and escapes only where a string is no Unicode text (half of a surrogate pair)."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


async def send_json(send: Send, status: int, body: Any, headers: Headers = ()) -> None:
    """Answer with JSON."""
    await send_bytes(send, status, to_json(body), [JSON_TYPE, *headers])


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Answer with a whole body."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
