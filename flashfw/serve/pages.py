"""The administration of a server over HTTP: one application of what each room offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send

import flashfw
from flashfw.bundle.release import API
from flashfw.cluster.gateway.answers import refusal


class Administration:
    """Answers below `/_flashfw/` what the gateway does not answer itself; whoever comes here has been let in.

    What a page raises is the gateway's to answer.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._router = Router(list(routes), redirect_slashes=False, default=_unknown)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].isprintable():  # the end of a pattern is also before a line break at the end of a path
            await _unknown(scope, receive, send)
        scope["app"] = self  # so that a wrong method is raised, and not answered in plain text
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            if error.status_code != 405:
                raise refusal(error.status_code, "refused", str(error.detail)) from error
            allowed = ", ".join(self._methods(scope))
            headers = [(b"allow", allowed.encode())]
            raise refusal(405, "method", f"{scope['path'][:200]} takes {allowed}", headers=headers) from error

    def _methods(self, scope: Scope) -> list[str]:
        """What a path takes; the router's own error names the methods of one of its routes alone."""
        here = [route for route in self._router.routes if route.matches(scope)[0] is not Match.NONE]
        return sorted({method for route in here if isinstance(route, Route) for method in route.methods or ()})


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise refusal(404, "not_found", f"this server has nothing at {scope['path'][:200]!r}")


def server_route(told: Callable[[], dict[str, Any]]) -> BaseRoute:
    """`GET /_flashfw/server`: what a client needs to know before it ships; `told` are the fields that may change."""

    async def answer(request: Request) -> Response:
        return JSONResponse({"flashfw": flashfw.__version__, "api": API, **told()})

    return Route("/_flashfw/server", answer, methods=["GET"])
