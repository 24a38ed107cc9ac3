"""The server's own pages under `/_flashfw`, and its documents: reads for people and tools, one table of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from starlette.types import Receive, Scope, Send

from flashfw.cluster import docs_page
from flashfw.cluster.gateway.answers import Refused, refusal, send_bytes, send_json
from flashfw.cluster.gateway.routes import Routes
from flashfw.cluster.gateway.stories import send_story
from flashfw.cluster.jobs.store import JobStore
from flashfw.cluster.watch import Watch

JOBS = "/_flashfw/jobs"

Page = Callable[[Scope, Receive, Send], Awaitable[None]]


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


class Admin:
    """Answers reads of what the server holds. `page` finds who answers a path."""

    def __init__(self, served: Served, *, store: JobStore, watch: Watch) -> None:
        self._served = served
        self._store = store
        self._watch = watch
        self._pages: dict[str, Page] = {
            "/openapi.json": self._openapi,
            "/docs": self._docs,
            "/_flashfw/live": self._live,
            "/_flashfw/ready": self._live,
            "/_flashfw/status": self._status,
        }
        self._of_a_job: dict[str, Callable[[str, Scope, Receive, Send], Awaitable[None]]] = {
            "events": self._events,
        }

    def page(self, path: str) -> Page | None:
        """Who answers this path, or None. All of them are reads."""
        if (page := self._pages.get(path)) is not None:
            return page
        prefix, _, rest = path.partition(JOBS + "/")
        job_id, _, verb = rest.partition("/")
        answer = self._of_a_job.get(verb)
        return None if prefix or not job_id or answer is None else partial(answer, job_id)

    async def _openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, self._served.openapi())

    async def _docs(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = docs_page.page(self._served.title)
        await send_bytes(send, 200, page, [(b"content-type", b"text/html; charset=utf-8")])

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"status": "ok"})

    async def _status(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, self._served.status())

    async def _events(self, job_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        with self._watch.seat(job_id) as seat:
            if await self._store.get(job_id) is None:
                raise _unknown_job(job_id)
            await send_story(scope, receive, send, store=self._store, job_id=job_id, seat=seat)


def _unknown_job(job_id: str) -> Refused:
    return refusal(404, "not_found", f"no job {job_id!r}: it was never here, or its result_ttl is over")
