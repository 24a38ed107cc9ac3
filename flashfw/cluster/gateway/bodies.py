"""Reading request bodies at the edge: limits, content types and JSON, before anything is accepted."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any, NoReturn

from starlette.types import Receive, Scope

from flashfw.cluster.gateway.answers import refusal


class ClientGone(Exception):
    """The client went away before its request was whole."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that name (in lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def has_body(scope: Scope) -> bool:
    """Whether a body follows the head of this request."""
    length = header(scope, b"content-length")
    if length is not None:
        return length != b"0"
    return header(scope, b"transfer-encoding") is not None


def check_length(scope: Scope, limit: int | None, refuse: Callable[[int], Exception] | None = None) -> None:
    """Refuse by its head a request that says it is larger than `limit` bytes.

    Raises:
        Refused: 413.
    """
    length = header(scope, b"content-length")
    if limit is not None and length is not None and length.isdigit() and int(length) > limit:
        raise (refuse or too_large)(limit)


def too_large(limit: int) -> Exception:
    """413, naming the limit and the key that sets it."""
    return refusal(413, "too_large", f"the body is larger than max_body ({limit} bytes) of this endpoint")


async def read_body(
    scope: Scope, receive: Receive, limit: int | None, refuse: Callable[[int], Exception] | None = None
) -> bytes:
    """The whole body; `refuse` makes the refusal of one that is larger than `limit`, which else is an endpoint's.

    Raises:
        Refused: 413 for more than `limit` bytes.
        ClientGone: the client went away.
    """
    if not has_body(scope):
        return b""
    check_length(scope, limit, refuse)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if limit is not None and size > limit:
            raise (refuse or too_large)(limit)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def read_object(scope: Scope, receive: Receive, limit: int, shape: str = "a JSON object") -> dict[str, Any]:
    """The JSON object that one of the server's own pages is sent; `shape` says how it should look.

    Raises:
        Refused: 413 for more than `limit` bytes, 422 for anything else than an object.
        ClientGone: the client went away.
    """
    value = parse_json(await read_body(scope, receive, limit, _too_large_for_a_page), 422)
    if not isinstance(value, dict):
        raise refusal(422, "validation", f"the body must be {shape}")
    return value


def _too_large_for_a_page(limit: int) -> Exception:
    return refusal(413, "too_large", f"the body is larger than the {limit} bytes that this page takes")


def check_json_type(scope: Scope) -> None:
    """Refuse a body that says it is no JSON; curl's default for `-d` is refused with the header to add.

    Raises:
        Refused: 415.
    """
    value = header(scope, b"content-type")
    if value is None or is_json(value):
        return
    text = value.split(b";", 1)[0].strip().lower().decode("latin-1")
    raise refusal(415, "media_type", f"a job takes application/json, not {text}; send 'Content-Type: application/json'")


def check_plain(scope: Scope) -> None:
    """Refuse a compressed body: unpacked it could be of any size, and jobs are stored as they come.

    Raises:
        Refused: 415.
    """
    coding = header(scope, b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        what = f"the body is sent with Content-Encoding {coding.decode('latin-1')!r}; send it uncompressed"
        raise refusal(415, "media_type", what, headers=[(b"accept-encoding", b"identity")])


def is_json(content_type: bytes | None) -> bool:
    """Whether a body of this content type is JSON; one without a type is taken for it.

    >>> [is_json(value) for value in (None, b"application/json; charset=utf-8", b"application/x+json", b"image/png")]
    [True, True, True, False]
    """
    if content_type is None:
        return True
    media = content_type.split(b";", 1)[0].strip().lower()
    return media == b"application/json" or (media.startswith(b"application/") and media.endswith(b"+json"))


def parse_json(body: bytes, status: int = 422) -> Any:
    """The JSON value of a body.

    Raises:
        Refused: `status` with line and column of what is no JSON.
    """
    try:
        return _JSON.decode(body.decode())
    except json.JSONDecodeError as error:
        marked = "it begins with a byte order mark; send UTF-8 without one"
        why = marked if body.startswith(BOM_UTF8) else f"{error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        why = f"byte {body[error.start]:#04x} at {error.start} is not UTF-8"
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as error:
        why = str(error).partition(";")[0]  # of an integer with too many digits; the rest is advice for programmers
    raise refusal(status, "validation", f"the body is no JSON: {why}")


def write_json(value: Any, status: int = 422) -> bytes:
    """A value that `parse_json` returned, as JSON again.

    Raises:
        Refused: `status`, where a text holds a surrogate without its other half, or the nesting is just too deep.
    """
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        why = "a text has a lone surrogate, which is no character"
    except RecursionError:
        why = "it is nested too deeply"
    raise refusal(status, "validation", f"the body is no JSON: {why}")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value, write null")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
"""Made once: `json.loads` with an option makes one for each call."""
