"""Secrets over HTTP: names with their dates, never a value."""

from __future__ import annotations

from collections.abc import Callable, Collection

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from flashfw.cluster.gateway.answers import refusal
from flashfw.cluster.gateway.bodies import read_object
from flashfw.cluster.secrets.store import VALUE_BYTES, InvalidSecret, Secrets, UnknownSecret, users
from flashfw.cluster.state import State
from flashfw.manifest import Manifest

_BODY_BYTES = 8 * VALUE_BYTES  # JSON may escape each byte
_SHAPE = '{"value": "..."}'


class SecretPages:
    """`GET /_flashfw/secrets`, `PUT` and `DELETE /_flashfw/secrets/NAME`, for keys with the scope `admin`.

    `manifest` is what is served now; `on_changed` is told which secrets have another value, and rolls the endpoints
    that need them.
    """

    def __init__(
        self,
        secrets: Secrets,
        state: State,
        *,
        manifest: Callable[[], Manifest],
        on_changed: Callable[[Collection[str]], None],
    ) -> None:
        self._secrets = secrets
        self._state = state
        self._manifest = manifest
        self._on_changed = on_changed

    def routes(self) -> list[BaseRoute]:
        """The routes, for the server's own application."""
        one = "/_flashfw/secrets/{name:path}"  # whatever it is, it is told that it is no name
        return [
            Route("/_flashfw/secrets", self._list, methods=["GET"]),
            Route(one, self._set, methods=["PUT"]),
            Route(one, self._remove, methods=["DELETE"]),
        ]

    async def _list(self, request: Request) -> JSONResponse:
        found = await self._state.call(self._secrets.all)
        manifest = self._manifest()
        return JSONResponse(
            {
                "secrets": [
                    {
                        "name": secret.name,
                        "created": secret.created_at,
                        "updated": secret.updated_at,
                        "endpoints": users(manifest, [secret.name]),
                    }
                    for secret in found
                ]
            }
        )

    async def _set(self, request: Request) -> JSONResponse:
        name = request.path_params["name"]
        value = (await read_object(request.scope, request.receive, _BODY_BYTES, _SHAPE)).get("value")
        if not isinstance(value, str):
            raise refusal(422, "validation", f"the body must be {_SHAPE}")
        try:
            is_changed = await self._state.call(self._secrets.set, name, value)
        except InvalidSecret as error:
            raise refusal(422, "validation", str(error)) from None
        rolled = users(self._manifest(), [name]) if is_changed else []
        if rolled:
            self._on_changed([name])
        return JSONResponse({"name": name, "changed": is_changed, "rolls": rolled})

    async def _remove(self, request: Request) -> JSONResponse:
        name = request.path_params["name"]
        needed = users(self._manifest(), [name])
        if needed and request.query_params.get("force") not in ("1", "true"):
            what = f"{', '.join(needed)} of the current release need{'s' if len(needed) == 1 else ''} the secret {name}"
            raise refusal(
                409, "needed", f"{what}; workers would not start any more (--force removes it)", endpoints=needed
            )
        try:
            await self._state.call(self._secrets.remove, name)
        except UnknownSecret as error:
            raise refusal(404, "unknown", str(error)) from None
        return JSONResponse({"name": name, "endpoints": needed})
