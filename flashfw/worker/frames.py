"""The framed link between gateway and worker: bytes to frames and back, and what each frame means.

A frame is fixed lengths (with kind and call number), a JSON object called meta, and raw bytes.
Inputs, outputs, HTTP bodies and log text are never inside the JSON, so they are not copied or
encoded twice. Two kinds have a head of `http_frames` in the place of meta. Call numbers are chosen
by the gateway, unique per link; 0 means no call.

| kind | from | meta | body |
| --- | --- | --- | --- |
| START | gateway | `Start` | |
| CALL | gateway | `JobCall` | input as JSON |
| REQUEST | gateway | a request's head | the HTTP body (its first piece) |
| DATA | both | `{"end": bool}` | a piece of an HTTP body; from the worker also a response's |
| | both | `{"text": bool, "more": bool}` | a piece of a WebSocket's message |
| | both | `{"end": true, "code": n, "reason": str}` | the end of a WebSocket |
| CREDIT | both | `{"bytes": n}` | the receiver has used up n bytes of DATA and CHUNK of this call |
| CANCEL | gateway | `{"reason": str}` | stop this call: `cancelled`, `timeout`, `disconnect` |
| DRAIN | gateway | `{}` | finish what runs, tear fixtures down, exit 0; no further CALL comes |
| RELOAD | gateway | `Reload` | take in what was saved; calls that came before end on the code that they began with |
| READY | worker | `Ready` | |
| BROKEN | worker | `Failure` | start-up failed; the worker exits after it |
| DESCRIBED | worker | `{"functions": {id: Description}}` | the answer to a START with `describe`; then exit |
| RESULT | worker | `{}` | the output of a job as JSON; ends the call |
| FAILURE | worker | `Failure` | ends the call |
| CHUNK | worker | `{"index": n}` | one yielded item of a job as JSON |
| HEAD | worker | a response's head | start of a response; ends the call if `end`; 101 accepts a WebSocket |
| PROGRESS | worker | `{}` | the latest progress of a job as JSON |
| LOG | worker | `{"stream": str, "job": str or null, "level": str}` | text, whole lines; call 0 |
| LOADED | worker | `{"files": [str]}` | project files imported since the last such frame; call 0 |
| BEAT | worker | `{"blocked_s": f}` | how long the loop has not turned, each second; `next_s` if the next is later |
| GONE | worker | `{}` | this call ended without an answer because of CANCEL |
| RELOADED | worker | `Reloaded` | the answer to a RELOAD: calls that come from now on meet the new code; call 0 |
| UNFIT | worker | `Failure` | an HTTP call broke this worker (`WorkerBroken`, CUDA): it wants no further CALL; call 0 |
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from typing_extensions import NotRequired, TypedDict

HEAD = struct.Struct("!BxxxIII")
MAX_FRAME_BYTES = 1 << 30
WINDOW_BYTES = 1 << 20
"""How much DATA or CHUNK of one call may be under way before its sender waits for CREDIT."""
PIECE_BYTES = 1 << 18
"""Larger bodies travel in pieces of this size, so that one call never holds up the others for long."""


BEAT_S = 1.0
"""How often a worker beats."""


class Kind(IntEnum):
    START = 1
    CALL = 2
    DATA = 3
    CREDIT = 4
    CANCEL = 5
    DRAIN = 6
    RELOAD = 7
    REQUEST = 8
    READY = 16
    BROKEN = 17
    DESCRIBED = 18
    RESULT = 19
    FAILURE = 20
    CHUNK = 21
    HEAD = 22
    PROGRESS = 23
    LOG = 24
    LOADED = 25
    BEAT = 26
    GONE = 27
    UNFIT = 28
    RELOADED = 29


class Start(TypedDict):
    """What a worker is told first. `endpoint` is `manifest.encode(Endpoint)`; `files` is where those of jobs lie,
    and `synced` says that these have to outlast a power cut. With `reloads` a RELOAD may come.
    """

    endpoint: dict[str, Any]
    root: str
    project: str
    environment: str
    worker: str
    volumes: dict[str, str]
    secrets: list[str]
    describe: bool
    files: NotRequired[str]
    synced: NotRequired[bool]
    reloads: NotRequired[bool]


class JobCall(TypedDict):
    """A claimed job. `deadline` is in seconds since the epoch.

    Jobs of one `batch` are handed to the handler together, once all `of` them have come.
    """

    function: str
    id: str
    attempt: int
    deadline: float
    batch: NotRequired[str]
    of: NotRequired[int]


class Failure(TypedDict, total=False):
    """Why a call or a start ended without a result.

    `reason` is one of `flashfw.cluster.jobs.model.Reason`'s values; `place` is the innermost
    `file:line` of the project; `errors` are the fields of a validation error
    (`{"loc": [...], "msg": str, "type": str}`); `status` is an HTTP status that the error asks for;
    `fixture` names the fixture that a start broke on; `broken` asks for another worker; `types` are the
    dotted names of a handler's exception and of its bases, for `retries.on`.
    """

    reason: str
    type: str
    types: list[str]
    message: str
    traceback: str
    place: str
    fixture: str
    errors: list[dict[str, Any]]
    status: int
    detail: Any
    headers: dict[str, str]
    broken: bool


class Ready(TypedDict):
    """A worker that takes calls. Durations are what a cold start spent on each part."""

    pid: int
    import_s: float
    fixtures_s: dict[str, float]
    files: list[str]


class Reload(TypedDict):
    """Project files that were saved since the worker read them, and the endpoint's record now. `number` is repeated
    in the answer.
    """

    number: int
    files: list[str]
    endpoint: dict[str, Any]


class Reloaded(TypedDict):
    """What became of a RELOAD. With `why` the worker has changed nothing, and another one has to take its place;
    without, `files` are all project files that it has imported now.
    """

    number: int
    files: list[str]
    took_s: float
    why: NotRequired[str]


class Description(TypedDict, total=False):
    """What describing learned of one function: JSON schemas for docs and early refusals.

    `input` and `output` are JSON Schemas with `$defs` inside; `parameters` are OpenAPI parameter
    objects (path, query, header, cookie); `media` is the content type of the body. `stream` tells a
    generator, `is_async` a coroutine. `methods` are the method functions of a class that the source
    alone could not tell. With `error` the handler could not be described.
    """

    doc: str
    stream: bool
    is_async: bool
    input: Any
    output: Any
    parameters: list[dict[str, Any]]
    media: str
    methods: list[str]
    error: Failure


class Frame(NamedTuple):
    """One message of the link. `head` is that of an HTTP request or response, which `http_frames` reads."""

    kind: Kind
    call: int
    meta: dict[str, Any]
    body: bytes
    head: bytes = b""


class FrameError(Exception):
    """The peer sent bytes that are no frame."""


MORE, END = b'{"end":false}', b'{"end":true}'
"""The meta of most DATA, packed."""

_EMPTY: dict[str, Any] = {}
_KNOWN: dict[bytes, dict[str, Any]] = {b"": _EMPTY, MORE: {"end": False}, END: {"end": True}}
_KINDS = {int(kind): kind for kind in Kind}
_HEADED = frozenset({Kind.REQUEST, Kind.HEAD})
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


def pack(kind: Kind, call: int = 0, meta: Any = None, body: bytes | memoryview = b"", head: bytes = b"") -> bytes:
    """A frame as bytes. `head` is that of a request or response, or a meta that is packed already.

    >>> frames = Frames()
    >>> list(frames.feed(pack(Kind.RESULT, 7, None, b"42")))
    [Frame(kind=<Kind.RESULT: 19>, call=7, meta={}, body=b'42', head=b'')]
    """
    if meta:
        head = _encode(meta).encode()
    return b"".join((HEAD.pack(kind, call, len(head), len(body)), head, body))


def pack_before(body: bytes | memoryview, kind: Kind, call: int, meta: Any, head: bytes) -> bytes:
    """What of the frame is sent before its body, for a body that is too large to be copied."""
    if meta:
        head = _encode(meta).encode()
    return HEAD.pack(kind, call, len(head), len(body)) + head


class Frames:
    """Cuts a byte stream into frames; keeps what is not whole yet, as it came."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._needed = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Each frame that is whole after `data`.

        Raises:
            FrameError: the stream holds something else than frames.
        """
        offset = 0
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            parts, self._parts = self._parts, []
            if self._needed == HEAD.size:
                data = b"".join(parts)
            else:
                offset = len(data) - (self._size - self._needed)
                parts[-1] = memoryview(data)[:offset]
                yield _joined(parts)
        size = len(data)
        while size - offset >= HEAD.size:
            kind, call, meta_size, body_size = HEAD.unpack_from(data, offset)
            if meta_size + body_size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {meta_size + body_size} bytes")
            start = offset + HEAD.size
            end = start + meta_size + body_size
            if size < end:
                self._keep(data, offset, end - offset)
                return
            yield _frame(kind, call, data[start : start + meta_size], data[start + meta_size : end])
            offset = end
        if offset < size:
            self._keep(data, offset, HEAD.size)

    def _keep(self, data: bytes, offset: int, needed: int) -> None:
        self._parts = [memoryview(data)[offset:]]
        self._size, self._needed = len(data) - offset, needed


def _joined(parts: list[bytes | memoryview]) -> Frame:
    """A frame that came in pieces, the first of which has its lengths; the body is copied once."""
    kind, call, meta_size, _ = HEAD.unpack_from(parts[0])
    begin = HEAD.size + meta_size
    if begin > len(parts[0]):
        parts = [memoryview(b"".join(parts))]
    meta = bytes(parts[0][HEAD.size : begin])
    return _frame(kind, call, meta, b"".join((parts[0][begin:], *parts[1:])))


def _frame(kind: int, call: int, meta: bytes, body: bytes) -> Frame:
    known_kind = _KINDS.get(kind)
    if known_kind is None:
        raise FrameError(f"{kind} is not a valid Kind")
    try:
        if kind in _HEADED:
            return Frame(known_kind, call, _EMPTY, body, meta)
        read = _KNOWN.get(meta)
        if read is None:
            text = meta.decode()
            read, end = _decode(text)
            if end != len(text) or not isinstance(read, dict):
                raise FrameError("meta that is no JSON object")
        return Frame(known_kind, call, read, body)
    except (ValueError, RecursionError) as error:
        raise FrameError(str(error)) from error
