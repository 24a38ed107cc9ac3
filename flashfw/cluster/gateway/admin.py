"""The server's own pages under `/_flashfw`, and its documents: reads for people and tools, one table of them."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from flashfw.cluster.documents import docs_page
from flashfw.cluster.gateway.answers import JSON_TYPE, Refused, no_job, refusal, send_bytes, send_json
from flashfw.cluster.gateway.downloads import send_file
from flashfw.cluster.gateway.job_documents import details, summary
from flashfw.cluster.gateway.readiness import Readiness
from flashfw.cluster.gateway.routes import Routes
from flashfw.cluster.gateway.stories import send_story
from flashfw.cluster.job_files import JobFiles
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.store import JobStore
from flashfw.cluster.watch import Watch

JOBS = "/_flashfw/jobs"
LIMIT, MOST = 100, 1000
LEAST_PART = 6
FILTERS = ("function", "state", "dead", "limit", "before", "part")

Page = Callable[[Scope, Receive, Send], Awaitable[None]]


class Served(Protocol):
    """What the gateway shows of a cluster: its present routes and documents."""

    title: str
    job_files: JobFiles
    routes: Routes

    def openapi(self) -> bytes:
        """The OpenAPI document of what is served now, as JSON."""
        ...

    def status(self) -> dict[str, object]:
        """Endpoints and workers, for people."""
        ...

    async def cancel(self, job: Job) -> Job | None:
        """Cancel a job of any function; None if it has ended already."""
        ...

    async def why(self, job_id: str) -> dict[str, Any] | None:
        """The story of a job with its reasons, or None if there is no such job."""
        ...


class Admin:
    """Answers reads of what the server holds. `page` finds who answers a path."""

    def __init__(self, served: Served, *, store: JobStore, watch: Watch, readiness: Readiness | None = None) -> None:
        self._served = served
        self._readiness = readiness
        self._store = store
        self._watch = watch
        self._pages: dict[str, Page] = {
            "/openapi.json": self._openapi,
            "/docs": self._docs,
            "/_flashfw/live": self._live,
            "/_flashfw/ready": self._ready,
            "/_flashfw/status": self._status,
            JOBS: self._jobs,
        }
        self._of_a_job: dict[str, Callable[[str, Scope, Receive, Send], Awaitable[None]]] = {
            "": self._job,
            "why": self._why,
            "events": self._events,
        }

    def page(self, path: str) -> Page | None:
        """Who answers this path, or None. All of them are reads."""
        if (page := self._pages.get(path)) is not None:
            return page
        prefix, _, rest = path.partition(JOBS + "/")
        job_id, _, verb = rest.partition("/")
        if verb.startswith("files/") and not prefix:
            return partial(self._file, job_id, verb.removeprefix("files/"))
        answer = self._of_a_job.get(verb)
        return None if prefix or not job_id or answer is None else partial(answer, job_id)

    async def _openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_bytes(send, 200, self._served.openapi(), [JSON_TYPE])

    async def _docs(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = docs_page.page(self._served.title)
        await send_bytes(send, 200, page, [(b"content-type", docs_page.CONTENT_TYPE.encode())])

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"status": "ok"})

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = await self._readiness.reason(self._store) if self._readiness is not None else None
        if why is not None:
            raise refusal(503, "not_ready", why, headers=[(b"retry-after", b"1")])
        await send_json(send, 200, {"status": "ok"})

    async def _status(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, self._served.status())

    async def _jobs(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _filters(scope)
        limit = _limit(asked.get("limit"))
        if (part := asked.get("part")) is not None:
            for name in asked.keys() - {"part", "limit"}:
                raise _bad(f"{name} does not go with part", name, ("part", "limit"))
            await self._parts(part, limit, send)
            return
        function = asked.get("function")
        found = await self._store.list(
            function=function,
            state=_state(asked.get("state")),
            dead=_flag("dead", asked.get("dead")),
            before=asked.get("before"),
            limit=limit,
        )
        known = self._served.routes.jobs.values()
        if not found and function and function not in (names := [target.function.id for target in known]):
            raise _bad(f"function {function!r} is not served and has no jobs here", function, names)
        following = found[-1].id if len(found) == limit else None
        await send_json(send, 200, {"jobs": [summary(job) for job in found], "before": following})

    async def _parts(self, part: str, limit: int, send: Send) -> None:
        """Jobs by a part of their id: people paste the end of one, since jobs of one minute begin alike."""
        if len(part) < LEAST_PART:
            raise refusal(400, "validation", f"part is {part!r}; it takes at least {LEAST_PART} characters of an id")
        found = [await self._store.peek(job_id) for job_id in await self._store.find(part, limit=limit)]
        await send_json(send, 200, {"jobs": [summary(job) for job in found if job is not None], "before": None})

    async def _job(self, job_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        job = await self._store.get(job_id)
        if job is None:
            raise no_job(job_id)
        await send_json(send, 200, details(job))

    async def _why(self, job_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        story = await self._served.why(job_id)
        if story is None:
            raise no_job(job_id)
        await send_json(send, 200, story)

    async def _file(self, job_id: str, entry: str, scope: Scope, receive: Receive, send: Send) -> None:
        job = await self._store.get(job_id)
        if job is None:
            raise no_job(job_id)
        await send_file(scope, receive, send, job_files=self._served.job_files, job=job, entry=entry)

    async def _events(self, job_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        with self._watch.seat(job_id, follows=True) as seat:
            if await self._store.get(job_id) is None:
                raise no_job(job_id)
            await send_story(scope, receive, send, store=self._store, job_id=job_id, seat=seat)


def _filters(scope: Scope) -> dict[str, str]:
    given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    for name in given.keys() - set(FILTERS):
        raise _bad(f"there is no filter {name!r}", name, FILTERS)
    return given


def _state(value: str | None) -> State | None:
    if value is None:
        return None
    try:
        return State(value.upper())
    except ValueError:
        raise _bad(f"state {value!r} is none", value.upper(), [state.value for state in State]) from None


def _flag(name: str, value: str | None) -> bool:
    if value in (None, "0", "false"):
        return False
    if value in ("", "1", "true"):
        return True
    raise _bad(f"{name} is {value!r}", str(value), ("1", "0"))


def _limit(value: str | None) -> int:
    if value is None:
        return LIMIT
    if value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MOST:
        return int(value[:9])
    raise refusal(400, "validation", f"limit is {value!r}; it takes a number from 1 to {MOST}")


def _bad(what: str, given: str, allowed: Iterable[str]) -> Refused:
    names = list(allowed)
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return refusal(400, "validation", f"{what}; {hint}it can be {', '.join(names) or 'nothing yet'}")
