"""The gateway: one ASGI callable in front of a cluster; parses nothing twice and keeps no framework in the way."""

from __future__ import annotations

import time
from collections.abc import Coroutine

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flashfw.cluster.auth.keys import KeyScope, Principal
from flashfw.cluster.events import Emit, internal, request
from flashfw.cluster.gateway import preflight, results
from flashfw.cluster.gateway.admin import Admin, Served
from flashfw.cluster.gateway.answers import Refused, ResponseCut, refusal, send_json
from flashfw.cluster.gateway.bodies import ClientGone
from flashfw.cluster.gateway.guard import PRINCIPAL, Guard, admit
from flashfw.cluster.gateway.http_calls import Begun, HttpCalls, HttpTarget
from flashfw.cluster.gateway.intake import BegunJob, Intake, JobTarget
from flashfw.cluster.gateway.job_api import JobApi
from flashfw.cluster.gateway.plain import PlainCalls
from flashfw.cluster.gateway.readiness import Readiness
from flashfw.cluster.gateway.routes import WEBSOCKET, Found, Routes
from flashfw.cluster.gateway.websockets import serve_socket
from flashfw.cluster.jobs.store import JobStore, StoreError
from flashfw.cluster.state import StateError

CLIENT_GONE = 499
"""What is noted, since nothing was answered."""
SPEAK_FOR_THEMSELVES = (404, 405)
"""Refusals that need no further word beside the method and the path."""
OPEN = frozenset({"/docs", "/_flashfw/live", "/_flashfw/ready"})
"""What needs no key: a page that shows nothing by itself, and what a load balancer asks."""
OF_CALLERS = "/_flashfw/jobs/"
"""Jobs by their ids, which only those know who may call."""


class Gateway:
    """Answers every HTTP request of a server, and every WebSocket's handshake.

    `administration` answers what is below `/_flashfw/` and not the gateway's own, whatever the method. It may raise
    `Refused`. Without `readiness` a server is ready as long as it answers.
    """

    def __init__(
        self,
        served: Served,
        *,
        intake: Intake,
        store: JobStore,
        guard: Guard,
        emit: Emit,
        administration: ASGIApp | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        self._served = served
        self._store = store
        self._guard = guard
        self._emit = emit
        self._administration = administration
        self._plain = PlainCalls(intake, store, served.job_files)
        self._job_api = JobApi(intake, store, served.cancel)
        self._admin = Admin(served, store=store, watch=intake.watch, readiness=readiness)
        self._http = HttpCalls()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("method", WEBSOCKET)
        response = _Response(scope, send, self._guard)
        await self._see_through(scope, response, self._answer(scope, receive, response), time.perf_counter())

    async def go_on(self, begun: Begun, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose call was begun the short way."""
        scope[PRINCIPAL] = begun.principal
        response = _Response(scope, send, self._guard)
        response.function = begun.target.function.id
        await self._see_through(scope, response, self._http.go_on(receive, response.send, begun), begun.began)

    async def wait_on(self, begun: BegunJob, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose job was submitted the short way."""
        scope[PRINCIPAL] = begun.principal
        response = _Response(scope, send, self._guard)
        response.function = begun.target.function.id
        answering = self._plain.wait_on(scope, receive, response.send, begun)
        await self._see_through(scope, response, answering, begun.began)

    async def _see_through(
        self, scope: Scope, response: _Response, answering: Coroutine[None, None, None], began: float
    ) -> None:
        try:
            await answering
        except Exception as error:  # whatever a request meets is answered, or seen to be cut
            await self._end(scope, response, error)
        finally:
            duration_s = time.perf_counter() - began
            told = (scope["method"], scope["path"], response.function, response.status)
            self._emit(request(*told, duration_s=duration_s, cut=response.cut, refused=response.refused))

    async def _end(self, scope: Scope, response: _Response, error: Exception) -> None:
        """Answer for what went wrong. A response that has begun is left as it is: the server cuts its connection."""
        if isinstance(error, ClientGone):
            response.status = response.status or CLIENT_GONE
            return
        known = _refused(error)
        if known is None:
            self._emit(internal(f"{scope['method']} {scope['path']}", error))
            known = refusal(500, "internal", f"{type(error).__name__}: {error}")
        if response.status:
            response.cut = str(known)
        else:
            if known.status not in SPEAK_FOR_THEMSELVES:
                response.refused = known.what.partition("\n")[0]
            await send_json(response.send, known.status, known.body, known.headers)

    async def _answer(self, scope: Scope, receive: Receive, response: _Response) -> None:
        path, send = scope["path"], response.send
        found = self._served.routes.find(scope["method"], path)
        if found is None:
            # The page shows nothing but what it may read with the key that is typed into it.
            is_open = path in OPEN or await results.is_open(scope, self._served.routes, self._store)
            admit(self._guard, scope, public=is_open, needs=_needs(path))
            await self._own(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and (asked := preflight.asked(scope, found)) is not None:
            await self._preflight(scope, receive, send, found, asked)
            return
        target = found.target
        response.function = target.function.id if target is not None else None
        is_public = target is not None and target.function.public
        admit(self._guard, scope, public=is_public, shared=found.shared)
        if target is not None:
            await self._call(scope, receive, send, found)
        elif scope["method"] == "OPTIONS":
            await preflight.send_options(send, found)
        else:
            raise preflight.wrong_method(scope, found)

    async def _call(self, scope: Scope, receive: Receive, send: Send, found: Found) -> None:
        if isinstance(found.target, JobTarget):
            await self._plain(scope, receive, send, found.target)
        elif isinstance(found.target, HttpTarget):
            call = serve_socket if scope["type"] == "websocket" else self._http
            await call(scope, receive, send, target=found.target, params=found.params, root_path=found.root_path)

    async def _preflight(self, scope: Scope, receive: Receive, send: Send, found: Found, asked: HttpTarget) -> None:
        """A browser asks before it sends the request of a page, and never with a key: middleware alone answers it.

        Only who may call the function is let through to code of it that answers OPTIONS itself.
        """
        if found.target is not None:
            try:
                admit(self._guard, scope, public=found.target.function.public, shared=True)
            except Refused as error:
                if error.status != 401:
                    raise
            else:
                await self._call(scope, receive, send, found)
                return
        admit(self._guard, scope, public=True, shared=True)
        params, root_path = found.params, found.root_path
        await self._http(scope, receive, send, target=asked, params=params, root_path=root_path, preflight=True)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith("/v2/") and scope["type"] == "http":
            await self._job_api(scope, receive, send, self._served.routes)
        elif scope["type"] == "websocket":
            raise _unknown(path, self._served.routes)
        elif (page := self._admin.page(path)) is None:
            if self._administration is None or not path.startswith("/_flashfw/"):
                raise _unknown(path, self._served.routes)
            await self._administration(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            raise refusal(405, "method", f"{path} takes GET, HEAD", headers=[(b"allow", b"GET, HEAD")])
        else:
            await page(scope, receive, send)


class _Response:
    """What was sent of one response: its status, 0 before it began, why it was cut or refused if it was.

    `function` is the id of the function that the request is for, None for the server's own pages. A stream ends
    with the key that it was asked for with: one that was revoked gets no further piece.
    """

    def __init__(self, scope: Scope, send: Send, guard: Guard) -> None:
        self.status = 0
        self.cut: str | None = None
        self.refused: str | None = None
        self.function: str | None = None
        self._scope = scope
        self._send = send
        self._guard = guard
        self._is_socket = scope["type"] == "websocket"

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if message.get("more_body") or kind == "websocket.send":
            principal: Principal | None = self._scope.get(PRINCIPAL)
            if principal is not None and not self._guard.holds(principal):
                raise ResponseCut(f"the key {principal.id} was revoked")
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif kind == "websocket.accept":
            self.status = 101
        if self._is_socket and kind.startswith("http."):
            message = {**message, "type": f"websocket.{kind}"}
        await self._send(message)


def _needs(path: str) -> KeyScope:
    """The scope of a key for one of the server's own pages.

    >>> _needs("/v2/gpu/run"), _needs("/_flashfw/jobs/01a1"), _needs("/_flashfw/jobs")
    ('call', 'call', 'admin')
    """
    is_own = path.startswith("/_flashfw/") and not path.startswith(OF_CALLERS) and path != "/_flashfw/server"
    return "admin" if is_own else "call"


def _refused(error: Exception) -> Refused | None:
    """The answer to an error that may happen; None for one that should not."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, StoreError | StateError):
        return refusal(503, "store", str(error), headers=[(b"retry-after", b"1")])
    if isinstance(error, ResponseCut):
        return refusal(500, "cut", str(error))
    return None


def _unknown(path: str, routes: Routes) -> Refused:
    close = routes.suggestions.closest(path)
    hint = f"; did you mean {close}?" if close else "; GET /docs lists what is served"
    return refusal(404, "not_found", f"nothing is served at {path}{hint}")
