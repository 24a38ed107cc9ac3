"""The gateway: one ASGI callable in front of a cluster; parses nothing twice and keeps no framework in the way."""

from __future__ import annotations

import difflib
import time
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from flashfw.cluster import docs_page
from flashfw.cluster.events import Emit, Event, internal
from flashfw.cluster.gateway.answers import Refused, ResponseCut, refusal, send_bytes, send_json
from flashfw.cluster.gateway.bodies import ClientGone
from flashfw.cluster.gateway.guard import Guard
from flashfw.cluster.gateway.http_calls import HttpCalls, HttpTarget
from flashfw.cluster.gateway.intake import Intake, JobTarget
from flashfw.cluster.gateway.job_api import JobApi
from flashfw.cluster.gateway.plain import PlainCalls
from flashfw.cluster.gateway.routes import Found, Routes
from flashfw.cluster.gateway.stories import send_story
from flashfw.cluster.jobs.store import JobStore, StoreError

EVENTS = "/_flashfw/jobs/"
PAGES = ("/openapi.json", "/docs", "/_flashfw/live", "/_flashfw/ready", "/_flashfw/status")
CLIENT_GONE = 499
"""What is noted, since nothing was answered."""


class Served(Protocol):
    """What the gateway shows of a cluster: its present routes and documents."""

    title: str
    routes: Routes

    def openapi(self) -> dict[str, object]:
        """The OpenAPI document of what is served now."""
        ...

    def status(self) -> dict[str, object]:
        """Endpoints and workers, for people."""
        ...


class Gateway:
    """Answers every HTTP request of a server."""

    def __init__(self, served: Served, *, intake: Intake, store: JobStore, guard: Guard, emit: Emit) -> None:
        self._served = served
        self._intake = intake
        self._store = store
        self._guard = guard
        self._emit = emit
        self._plain = PlainCalls(intake, store)
        self._job_api = JobApi(intake, store)
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
        elif not (path in PAGES or (path.startswith(EVENTS) and path.endswith("/events"))):
            raise _unknown(path, self._served.routes)
        elif scope["method"] not in ("GET", "HEAD"):
            raise refusal(405, "method", f"{path} takes GET, HEAD", headers=[(b"allow", b"GET, HEAD")])
        elif path == "/openapi.json":
            await send_json(send, 200, self._served.openapi())
        elif path == "/docs":
            page = docs_page.page(self._served.title)
            await send_bytes(send, 200, page, [(b"content-type", b"text/html; charset=utf-8")])
        elif path in ("/_flashfw/live", "/_flashfw/ready"):
            await send_json(send, 200, {"status": "ok"})
        elif path == "/_flashfw/status":
            await send_json(send, 200, self._served.status())
        else:
            await self._events(scope, receive, send, path.removeprefix(EVENTS).removesuffix("/events"))

    async def _events(self, scope: Scope, receive: Receive, send: Send, job_id: str) -> None:
        with self._intake.watch.seat(job_id) as seat:
            if await self._store.get(job_id) is None:
                raise refusal(404, "not_found", f"no job {job_id!r}")
            await send_story(scope, receive, send, store=self._store, job_id=job_id, seat=seat)


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
