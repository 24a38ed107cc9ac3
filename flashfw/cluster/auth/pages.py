"""Keys over HTTP: made, listed and revoked by who has an admin key."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from flashfw.cluster.auth.keys import document
from flashfw.cluster.auth.store import InvalidKey, Keys, LastAdminKey, UnknownKey
from flashfw.cluster.gateway.answers import refusal
from flashfw.cluster.gateway.bodies import read_object

_BODY_BYTES = 10_000
_SHAPE = '{"name": "...", "scope": "call" or "admin"}'


class KeyPages:
    """`GET` and `POST /_flashfw/keys`, `DELETE /_flashfw/keys/ID`, for keys with the scope `admin`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def routes(self) -> list[BaseRoute]:
        """The routes, for the server's own application."""
        return [
            Route("/_flashfw/keys", self._list, methods=["GET"]),
            Route("/_flashfw/keys", self._create, methods=["POST"]),
            Route("/_flashfw/keys/{id:path}", self._revoke, methods=["DELETE"]),
        ]

    async def _list(self, request: Request) -> JSONResponse:
        found = await self._keys.state.call(self._keys.all)
        return JSONResponse({"keys": [document(key) for key in found]})

    async def _create(self, request: Request) -> JSONResponse:
        body = await read_object(request.scope, request.receive, _BODY_BYTES, _SHAPE)
        name, scope = body.get("name"), body.get("scope", "call")
        if not isinstance(name, str) or not isinstance(scope, str):
            raise refusal(422, "validation", f"the body must be {_SHAPE}")
        try:
            key, text = await self._keys.state.call(self._keys.create, name, scope)
        except InvalidKey as error:
            raise refusal(422, "validation", str(error)) from None
        told = {**document(key), "key": str(text)}
        return JSONResponse(told, status_code=201, headers={"cache-control": "no-store"})

    async def _revoke(self, request: Request) -> JSONResponse:
        try:
            key = await self._keys.state.call(self._keys.revoke, request.path_params["id"])
        except UnknownKey as error:
            raise refusal(404, "unknown", str(error)) from None
        except LastAdminKey as error:
            raise refusal(409, "last_admin", str(error)) from None
        return JSONResponse(document(key))
