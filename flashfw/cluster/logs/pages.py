"""Logs over HTTP: lines of JSON, and with `follow` those that come, until the reader leaves."""

from __future__ import annotations

import difflib
import math
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from flashfw.cluster.clock import limit
from flashfw.cluster.gateway.answers import Refused, refusal
from flashfw.cluster.logs.entries import lines
from flashfw.cluster.logs.logs import Logs, Seat
from flashfw.cluster.logs.reading import Query
from flashfw.manifest import Manifest

LINES, MOST = 100, 100_000
LEAST_PART = 6
KEEPALIVE_S = 15.0
"""An empty line so often, so that proxies keep the connection, and a reader that is gone is noticed."""

PARAMETERS = ("endpoint", "lines", "follow", "job", "since", "after")
_PIECE_BYTES = 1 << 16


class LogPages:
    """`GET /_flashfw/logs`, for keys with the scope `admin`; `manifest` is what is served now.

    `since` is in seconds before now; `after` is the `at` of the last line that a reader has, to go on from there.
    """

    def __init__(self, logs: Logs, *, manifest: Callable[[], Manifest]) -> None:
        self._logs = logs
        self._manifest = manifest

    def routes(self) -> list[BaseRoute]:
        """The routes, for the server's own application."""
        return [Route("/_flashfw/logs", self._answer, methods=["GET"])]

    async def _answer(self, request: Request) -> StreamingResponse:
        asked = dict(request.query_params)
        for name in asked.keys() - set(PARAMETERS):
            raise _bad(f"there is no parameter {name!r}; it can be {', '.join(PARAMETERS)}")
        query = _query(asked, self._logs.clock.now())
        names = self._names(asked.get("endpoint"))
        told = self._following(names, query) if _flag(asked.get("follow")) else self._present(names, query)
        return _Told(told)

    def _names(self, asked: str | None) -> Collection[str] | None:
        """The endpoints that are asked for: one, by its id or that of a function of it; None for all."""
        if asked is None:
            return None
        manifest = self._manifest()
        known = {endpoint.id for endpoint in manifest.endpoints}.union(self._logs.endpoints())
        if asked in known:
            return [asked]
        for endpoint in manifest.endpoints:
            if any(function.id == asked for function in endpoint.functions):
                return [endpoint.id]
        there = f"there is: {', '.join(sorted(known))}" if known else "there is none yet"
        close = difflib.get_close_matches(asked, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else there
        raise refusal(404, "unknown", f"there is no log of {asked[:200]!r}; {hint}")

    async def _present(self, names: Collection[str] | None, query: Query) -> AsyncGenerator[bytes, None]:
        for piece in _pieces(await self._read(names, query)):
            yield piece

    async def _following(self, names: Collection[str] | None, query: Query) -> AsyncGenerator[bytes, None]:
        with self._logs.seat(names) as seat:
            for piece in _pieces(await self._read(names, query)):
                yield piece
            yield b"\n"  # the reader sees that it is connected, though there may be nothing to tell for hours
            while not seat.is_dismissed:
                yield await self._news(seat, query)

    async def _news(self, seat: Seat, query: Query) -> bytes:
        with limit(self._logs.clock, KEEPALIVE_S):
            return b"".join(line for entry in await seat.take() if query.wants(entry) for line in lines(entry))
        return b"\n"

    async def _read(self, names: Collection[str] | None, query: Query) -> list[bytes]:
        if not query.lines:
            return []
        return await self._logs.read(names, query)


class _Told(StreamingResponse):
    """Lines as they are told; who tells them hears when the reader is gone, at once."""

    def __init__(self, told: AsyncGenerator[bytes, None]) -> None:
        super().__init__(told, media_type="application/x-ndjson", headers={"cache-control": "no-store"})
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._told):
            await super().__call__(scope, receive, send)


def _pieces(found: list[bytes]) -> list[bytes]:
    """Lines in pieces to send; an answer of a hundred thousand parts would take its time."""
    pieces, size = [[]], 0  # type: list[list[bytes]], int
    for line in found:
        if size >= _PIECE_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(line)
        size += len(line)
    return [b"".join(piece) for piece in pieces]


def _query(asked: dict[str, str], now: float) -> Query:
    job = asked.get("job")
    if job is not None and len(job) < LEAST_PART:
        raise _bad(f"job is {job!r}; it takes an id, or {LEAST_PART} or more characters of one")
    since_s, after = _number("since", asked.get("since")), _number("after", asked.get("after"))
    begin = [math.nextafter(after, math.inf)] if after is not None else []
    begin += [now - since_s] if since_s is not None else []
    return Query(
        lines=_count(asked.get("lines"), default=MOST if begin else LINES),
        since=max(begin, default=None),
        job=job,
    )


def _count(text: str | None, *, default: int) -> int:
    if text is None:
        return default
    if text.isascii() and text.isdigit() and int(text[:9]) <= MOST:
        return int(text[:9])
    raise _bad(f"lines is {text[:80]!r}; it takes a number up to {MOST}")


def _number(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise _bad(f"{name} is {text[:80]!r}; it takes a number of seconds")
    return number


def _flag(text: str | None) -> bool:
    if text in (None, "0", "false"):
        return False
    if text in ("", "1", "true"):
        return True
    raise _bad(f"follow is {str(text)[:80]!r}; it can be 1 or 0")


def _bad(message: str) -> Refused:
    return refusal(400, "validation", message)
