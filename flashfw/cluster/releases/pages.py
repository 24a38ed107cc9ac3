"""Releases over HTTP: layers received, releases shipped, rollouts followed, for who has an admin key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from flashfw import manifest as manifests
from flashfw.bundle import release as records
from flashfw.bundle.archive import ArchiveError
from flashfw.bundle.release import Layer, Release, is_digest
from flashfw.cluster.gateway.answers import refusal
from flashfw.cluster.gateway.bodies import ClientGone, read_object, write_json
from flashfw.cluster.releases.layers import FULL
from flashfw.cluster.releases.releases import Releases
from flashfw.cluster.releases.rollouts import Running
from flashfw.cluster.releases.store import Listed, Noted, event_document, failure_document
from flashfw.errors import ManifestError

BODY_BYTES = 64_000_000
"""A record names every file of the project with its digest, for each endpoint that it counts for."""
WAIT_S = 30.0
LAYER_BYTES = 1 << 40
MOST_DIGESTS = 10_000
MOST_DIGITS = 18
"""Of a number that SQLite can hold."""
BY_LENGTH = 200


class ReleasePages:
    """The pages that `flashfw ship`, `rollback` and `remove` speak with."""

    def __init__(self, releases: Releases) -> None:
        self._releases = releases

    def routes(self) -> list[BaseRoute]:
        """The routes, for the server's own application."""
        return [
            Route("/_flashfw/releases", self._list, methods=["GET"]),
            Route("/_flashfw/releases", self._ship, methods=["POST"]),
            Route("/_flashfw/releases/{id}", self._release, methods=["GET"]),
            Route("/_flashfw/layers/missing", self._missing, methods=["POST"]),
            Route("/_flashfw/layers/{digest}", self._layer, methods=["PUT"]),
            Route("/_flashfw/rollouts/{number}", self._rollout, methods=["GET"]),
            Route("/_flashfw/rollback", self._rollback, methods=["POST"]),
            Route("/_flashfw/remove", self._remove, methods=["POST"]),
        ]

    async def _list(self, request: Request) -> JSONResponse:
        last = self._releases.last
        running = rollout_document(last.noted, last) if last is not None and self._releases.is_busy else None
        listed = [listed_document(found) for found in await self._releases.listed()]
        return JSONResponse({"current": self._releases.current, "releases": listed, "rollout": running})

    async def _release(self, request: Request) -> JSONResponse:
        store, asked = self._releases.store, request.path_params["id"]
        release = await store.state.call(store.release, asked)
        found = next((one for one in await self._releases.listed() if one.id == asked), None)
        if release is None or found is None:
            raise refusal(404, "not_found", f"there is no release {asked[:80]!r} here, or it is not kept any more")
        told = listed_document(found)
        return await anyio.to_thread.run_sync(lambda: JSONResponse({"release": manifests.encode(release), **told}))

    async def _missing(self, request: Request) -> JSONResponse:
        digests = (await _body(request)).get("digests")
        if not isinstance(digests, list) or len(digests) > MOST_DIGESTS or not all(map(_is_digest, digests)):
            raise refusal(422, "validation", 'the body must be {"digests": ["<SHA-256 in hex>", ...]}')
        missing = await anyio.to_thread.run_sync(self._releases.layers.missing, digests)
        return JSONResponse({"missing": missing})

    async def _layer(self, request: Request) -> JSONResponse:
        layer = _asked_layer(request)
        try:
            await self._releases.layers.receive(layer, _pieces(request))
        except ArchiveError as error:
            raise refusal(422, "layer", f"layer {layer.digest[:12]}: {error}") from None
        except OSError as error:
            if error.errno in FULL:
                what = f"the server's disk is full: layer {layer.digest[:12]} was not kept"
                raise refusal(507, "disk_full", f"{what}; make room on the server, and ship again") from None
            what = f"the server cannot write layer {layer.digest[:12]}: {error.strerror or error}"
            raise refusal(507, "storage", what) from None
        return JSONResponse({"digest": layer.digest}, status_code=201)

    async def _ship(self, request: Request) -> JSONResponse:
        body = await _body(request)
        removes = body.get("removes", [])
        if not isinstance(removes, list) or not all(isinstance(name, str) for name in removes):
            raise refusal(422, "validation", "removes must be a list of endpoint ids")
        release = await anyio.to_thread.run_sync(_release, body)  # of some megabytes, while others are answered
        expected = _text(body, "expected")
        number = await self._releases.ship(release, expected=expected, removes=removes, by=_by(body))
        return JSONResponse({"rollout": number}, status_code=202)

    async def _rollback(self, request: Request) -> JSONResponse:
        body = await _body(request)
        to, expected = _text(body, "to"), _text(body, "expected")
        number = await self._releases.rollback(to=to, expected=expected, by=_by(body))
        return JSONResponse({"rollout": number}, status_code=202)

    async def _remove(self, request: Request) -> JSONResponse:
        body = await _body(request)
        await self._releases.remove(confirm=_text(body, "confirm") or "", by=_by(body))
        return JSONResponse({"removed": True})

    async def _rollout(self, request: Request) -> JSONResponse:
        asked, after, wait_s = request.path_params["number"], _number(request, "after"), _number(request, "wait")
        if not (asked.isascii() and asked.isdigit() and len(asked) <= MOST_DIGITS):
            raise refusal(404, "not_found", f"there is no rollout {asked[:80]!r}")
        number = int(asked)
        last = self._releases.last
        if last is not None and last.noted.number == number:
            with anyio.move_on_after(min(wait_s, WAIT_S)):
                await last.changed(int(after))
            return JSONResponse(rollout_document(last.noted, last, after=int(after)))
        store = self._releases.store
        noted = await store.state.call(store.rollout, number)
        if noted is None:
            raise refusal(404, "not_found", f"there is no rollout {number}")
        return JSONResponse(rollout_document(noted, None, after=int(after)))


def listed_document(found: Listed) -> dict[str, Any]:
    """A release in a list."""
    return {"id": found.id, "created": found.created, "by": found.by, "state": found.state}


def rollout_document(noted: Noted, running: Running | None, *, after: int | None = None) -> dict[str, Any]:
    """A rollout, with its events beyond `after` unless that is None; `running` knows more than was written down."""
    events = tuple(running.events) if running else noted.events
    failure = running.failure if running else noted.failure
    return {
        "number": noted.number,
        "release": noted.release,
        "from": noted.before,
        "by": noted.by,
        "started": noted.started,
        "state": running.state if running else noted.state,
        "events": [] if after is None else [event_document(event) for event in events if event.seq > after],
        "failure": None if failure is None else failure_document(failure),
    }


async def _body(request: Request) -> dict[str, Any]:
    return await read_object(request.scope, request.receive, BODY_BYTES)


def _release(body: dict[str, Any]) -> Release:
    try:
        return records.loads(write_json(body.get("release")).decode())
    except ManifestError as error:
        raise refusal(422, "manifest", str(error)) from None


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises:
        ClientGone: the client went away before it was whole.
    """
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _asked_layer(request: Request) -> Layer:
    digest, size = request.path_params["digest"], request.query_params.get("size", "")
    if not is_digest(digest):
        raise refusal(422, "layer", "a layer is named by the SHA-256 of its tar, 64 hex digits")
    if not (size.isascii() and size.isdigit() and len(size) < 20 and int(size) <= LAYER_BYTES):
        raise refusal(422, "layer", f"size is {size[:20]!r}; it takes the number of bytes of the uncompressed tar")
    return Layer(digest=digest, size_bytes=int(size))


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and is_digest(value)


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or isinstance(value, str) and _is_storable(value):
        return value or None
    raise refusal(422, "validation", f"{name} must be text or null")


def _is_storable(text: str) -> bool:
    """JSON can name half a character, which no database takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _by(body: dict[str, Any]) -> str:
    """Who asks, for people: cut to what fits on a line."""
    return " ".join((_text(body, "by") or "somebody").split())[:BY_LENGTH]


def _number(request: Request, name: str) -> float:
    value = request.query_params.get(name)
    if value is None:
        return 0.0
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise refusal(400, "validation", f"{name} is {value[:20]!r}; it takes a number from 0")
    return found
