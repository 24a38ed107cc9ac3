"""What the methods of a path come to where no function answers: OPTIONS, CORS preflights, 405."""

from __future__ import annotations

from starlette.types import Scope, Send

from flashfw.cluster.gateway.answers import Refused, refusal
from flashfw.cluster.gateway.bodies import header
from flashfw.cluster.gateway.http_calls import HttpTarget
from flashfw.cluster.gateway.routes import Found


def asked(scope: Scope, found: Found) -> HttpTarget | None:
    """The function that a CORS preflight asks for, if there is middleware to answer it; else None."""
    method = (header(scope, b"access-control-request-method") or b"").decode("latin-1")
    if not method or header(scope, b"origin") is None:
        return None
    beside = [found.methods.get(method), found.target, *found.methods.values()]
    return next((it for it in beside if isinstance(it, HttpTarget) and it.function.middleware), None)


async def send_options(send: Send, found: Found) -> None:
    """The answer to OPTIONS where no function gives one."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", found.allow.encode())]})
    await send({"type": "http.response.body", "body": b""})


def wrong_method(scope: Scope, found: Found) -> Refused:
    """The answer to a method that has no function at a path that is there."""
    path = scope["path"]
    if scope["type"] == "websocket":
        return refusal(404, "not_found", f"there is no WebSocket at {path}; it takes {found.takes}")
    if not found.takes:
        headers = [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
        return refusal(426, "upgrade", f"{path} is a WebSocket", headers=headers)
    return refusal(405, "method", f"{path} takes {found.takes}", headers=[(b"allow", found.allow.encode())])
