"""The gateway: one ASGI callable in front of a cluster; parses nothing twice and keeps no framework in the way."""

from __future__ import annotations

import difflib
import time

from starlette.types import Message, Receive, Scope, Send

from flashfw.cluster.events import Emit, Event, internal
from flashfw.cluster.gateway.admin import Admin, Served
from flashfw.cluster.gateway.answers import Refused, ResponseCut, refusal, send_json
from flashfw.cluster.gateway.bodies import ClientGone
from flashfw.cluster.gateway.guard import Guard
from flashfw.cluster.gateway.http_calls import HttpCalls, HttpTarget
from flashfw.cluster.gateway.intake import Intake, JobTarget
from flashfw.cluster.gateway.job_api import JobApi
from flashfw.cluster.gateway.plain import PlainCalls
from flashfw.cluster.gateway.routes import Found, Routes
from flashfw.cluster.jobs.store import JobStore, StoreError

CLIENT_GONE = 499
"""What is noted, since nothing was answered."""


class Gateway:
    """Answers every HTTP request of a server."""

    def __init__(self, served: Served, *, intake: Intake, store: JobStore, guard: Guard, emit: Emit) -> None:
        self._served = served
        self._guard = guard
        self._emit = emit
        self._plain = PlainCalls(intake, store)
        self._job_api = JobApi(intake, store, served.cancel)
        self._admin = Admin(served, store=store, watch=intake.watch)
        self._http = HttpCalls()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        response = _Response(send)
        began = time.perf_counter()
        try:
            await self._answer(scope, receive, response.send)
        except Exception as error:  # whatever a request meets is answered, or seen to be cut
            await self._end(scope, response, error)
        finally:
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "status": response.status,
                "duration_s": time.perf_counter() - began,
            }
            self._emit(Event("request", None, fields if response.cut is None else {**fields, "cut": response.cut}))

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
            await send_json(response.send, known.status, known.body, known.headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        found = self._served.routes.find(scope["method"], path)
        if found is None:
            # The page shows nothing but what it may read with the key that is typed into it.
            self._guard.check(scope, public=path == "/docs")
            await self._own(scope, receive, send)
            return
        target = found.target
        if target is None:
            self._guard.check(scope, public=False)
            allow = ", ".join(found.allow)
            raise refusal(405, "method", f"{path} takes {allow}", headers=[(b"allow", allow.encode())])
        self._guard.check(scope, public=target.function.public)
        await self._call(scope, receive, send, found)

    async def _call(self, scope: Scope, receive: Receive, send: Send, found: Found) -> None:
        if isinstance(found.target, JobTarget):
            await self._plain(scope, receive, send, found.target)
        elif isinstance(found.target, HttpTarget):
            await self._http(scope, receive, send, target=found.target, params=found.params, root_path=found.root_path)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith("/v2/"):
            await self._job_api(scope, receive, send, self._served.routes.jobs)
        elif (page := self._admin.page(path)) is None:
            raise _unknown(path, self._served.routes)
        elif scope["method"] not in ("GET", "HEAD"):
            raise refusal(405, "method", f"{path} takes GET, HEAD", headers=[(b"allow", b"GET, HEAD")])
        else:
            await page(scope, receive, send)


class _Response:
    """What was sent of one response: its status, 0 before it began, and why it was cut if it was."""

    def __init__(self, send: Send) -> None:
        self.status = 0
        self.cut: str | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _refused(error: Exception) -> Refused | None:
    """The answer to an error that may happen; None for one that should not."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, StoreError):
        return refusal(503, "store", str(error), headers=[(b"retry-after", b"1")])
    if isinstance(error, ResponseCut):
        return refusal(500, "cut", str(error))
    return None


def _unknown(path: str, routes: Routes) -> Refused:
    close = difflib.get_close_matches(path, routes.paths(), n=1)
    hint = f"; did you mean {close[0]}?" if close else "; GET /docs lists what is served"
    return refusal(404, "not_found", f"nothing is served at {path}{hint}")
