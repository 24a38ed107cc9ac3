"""A second implementation of the wire, small and in memory: what a client may count on, whoever serves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flashfw.cluster.documents.openapi import document
from flashfw.manifest import Endpoint, Function, Kind, Manifest
from flashfw.worker.frames import Description


class Refused(Exception):
    """A job's failure as the wire has it."""

    def __init__(self, reason: str, **error: Any) -> None:
        self.error = {"reason": reason, **error}


class Job:
    """One job: its state and its story so far."""

    def __init__(self, job_id: str, function: str) -> None:
        self.id = job_id
        self.function = function
        self.status = "IN_QUEUE"
        self.headers: dict[str, str] = {}
        self.output: Any = None
        self.error: dict[str, Any] | None = None
        self.story: list[tuple[str, dict[str, Any]]] = []
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def tell(self, name: str, **data: Any) -> None:
        self.story.append((name, data))
        self.news.set()
        self.news = asyncio.Event()

    def listed(self) -> dict[str, Any]:
        """Its record as the server's own pages list it."""
        return {"id": self.id, "function": self.function, "state": self.status, "dead": False, "attempt": 1}

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.status == "IN_QUEUE":
            return record
        record |= {"workerId": "w1", "delayTime": 1}
        if self.status == "IN_PROGRESS":
            return record | ({"output": self.output} if self.output is not None else {})
        record["executionTime"] = 2
        if self.error is None:
            return record | {"output": self.output}
        inner = {f"error_{key}": self.error.get(key, "") for key in ("type", "message", "traceback")}
        return record | {"error": json.dumps(inner), "reason": self.error["reason"]}


def _typed(value: Any, name: str, kind: type) -> Any:
    if not isinstance(value.get(name), kind):
        errors = [{"loc": [name], "msg": f"should be a valid {kind.__name__}", "type": "type"}]
        raise Refused("validation", message="the input does not fit", errors=errors)
    return value[name]


async def _run(job: Job, value: Any) -> Any:
    """What the functions of the project under `shop/` do."""
    if job.function == "echo":
        return value
    if job.function == "tools::shout":
        return _typed(value, "text", str).upper()
    if job.function == "strict":
        return _typed(value, "n", int)
    if job.function == "fail":
        trace = "Traceback (most recent call last):\n  endpoints/fail/handler.py:7\nValueError: no luck"
        if value["number"] == 404:
            told = {"status": 404, "detail": "no such order", "message": "404: no such order"}
            raise Refused("handler_error", type="HTTPError", traceback=trace, **told)
        message = f"no luck with {value['number']}"
        raise Refused("handler_error", type="ValueError", message=message, traceback=trace)
    if job.function == "count":
        for index in range(_typed(value, "n", int)):
            job.tell("chunk", index=index, output=index)
        return list(range(value["n"]))
    while not Path(value["file"]).exists():
        job.output = f"no {Path(value['file']).name} yet"
        job.tell("progress", value=job.output)
        await asyncio.sleep(0.02)
    return "open"


async def _live(job: Job, value: Any) -> None:
    job.tell("queued", id=job.id, position=0)
    job.status = "IN_PROGRESS"
    job.tell("started", attempt=1, worker="w1")
    try:
        job.output = await _run(job, value)
        job.status = "COMPLETED"
        job.tell("completed", **job.record())
    except Refused as refused:
        _end(job, "FAILED", refused.error)


def _end(job: Job, status: str, error: dict[str, Any]) -> None:
    job.status, job.error, job.output = status, error, None
    job.tell(status.lower(), **{**job.record(), "error": error})


FUNCTIONS = {
    "echo": "/echo",
    "tools::shout": "/tools/shout",
    "count": "/count",
    "fail": "/fail",
    "gate": "/gate",
    "strict": "/strict",
}
HTTP = {
    "api/users/_id_::get": ("GET", "/api/users/{id}"),
    "api/users/_id_::put": ("PUT", "/api/users/{id}"),
    "api/notes::post": ("POST", "/api/notes"),
}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
_NAME = {"name": "name", "in": "query", "required": True, "schema": {"type": "string"}}
_Q = {"name": "q", "in": "query", "required": False, "schema": {"type": "string"}}
DESCRIPTIONS: dict[str, Description] = {
    "count": {"stream": True, "input": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
    "api/users/_id_::get": {"parameters": [_ID, _Q], "output": {}},
    "api/users/_id_::put": {"parameters": [_ID, _NAME], "input": {"type": "array", "items": {"type": "string"}}},
    "api/notes::post": {"input": {"type": "string", "format": "binary"}, "media": "application/octet-stream"},
}


class Wire:
    """The application. Lives as long as its server."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.cut_after: int | None = None
        """Break each connection to a story off after that many events."""
        self.refused = 0
        """How many connections to come are told that the server is not back yet."""
        self.connections = 0

    def app(self) -> Starlette:
        routes = [Route(route, self.plain, methods=["POST"]) for route in FUNCTIONS.values()]
        routes += [
            Route("/api/users/{id:int}", self.user, methods=["GET", "PUT"]),
            Route("/api/notes", self.notes, methods=["POST"]),
            Route("/openapi.json", self.openapi),
            Route("/_flashfw/jobs", self.list),
            Route("/_flashfw/jobs/{job}/why", self.why),
            Route("/_flashfw/jobs/{job}/events", self.events),
            Route("/v2/{function:path}/retry/{job}", self.retry, methods=["POST"]),
            Route("/v2/{function:path}/health", self.health),
            Route("/v2/{function:path}/status/{job}", self.status),
            Route("/v2/{function:path}/cancel/{job}", self.cancel, methods=["POST"]),
            Route("/busy", _busy, methods=["POST"]),
            Route("/broken", _broken, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def plain(self, request: Request) -> Response:
        function = next(name for name, route in FUNCTIONS.items() if route == request.url.path)
        job = Job(f"0-job-{len(self.jobs) + 1}", function)
        job.headers = dict(request.headers)
        self.jobs[job.id] = job
        job.task = asyncio.create_task(_live(job, await request.json()))
        if request.headers.get("accept") == "text/event-stream":
            return StreamingResponse(self._story(job, 0), media_type="text/event-stream")
        prefer = request.headers.get("prefer", "wait=90")
        wait_s = 0 if prefer == "respond-async" else int(prefer.removeprefix("wait="))
        await asyncio.wait([job.task], timeout=wait_s)
        if job.status == "COMPLETED" and prefer != "respond-async":
            return JSONResponse(job.output)
        if job.error is not None and prefer != "respond-async":
            status = 422 if job.error["reason"] == "validation" else 500
            return JSONResponse({"error": job.error, "id": job.id}, status)
        location = f"/v2{FUNCTIONS[function]}/status/{job.id}"
        return JSONResponse({"id": job.id, "status": job.status}, 202, {"location": location})

    async def events(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["job"])
        if job is None:
            return JSONResponse({"error": {"reason": "not_found", "message": "no such job"}}, 404)
        if self.connections and self.refused:
            self.refused -= 1
            return JSONResponse({"error": {"reason": "store", "message": "starting anew"}}, 503)
        self.connections += 1
        after = int(request.headers.get("last-event-id", "-1"))
        return StreamingResponse(self._story(job, after + 1), media_type="text/event-stream")

    async def _story(self, job: Job, start: int) -> AsyncIterator[str]:
        sent = 0
        while True:
            news = job.news
            for number in range(start, len(job.story)):
                if sent == self.cut_after:
                    return
                name, data = job.story[number]
                yield f": lives\n\nid: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
                sent, start = sent + 1, number + 1
                if name in ("completed", "failed", "cancelled", "timed_out"):
                    return
            await news.wait()

    async def status(self, request: Request) -> Response:
        return self._of(request, lambda job: job.record())

    async def list(self, request: Request) -> Response:
        asked = request.query_params
        kept = [job for job in reversed(list(self.jobs.values())) if asked.get("part", "") in job.id]
        kept = [job for job in kept if asked.get("function", job.function) == job.function]
        before, limit = asked.get("before"), int(asked.get("limit", 100))
        kept = kept[1 + [job.id for job in kept].index(before) :] if before else kept
        page = [job.listed() for job in kept[:limit]]
        return JSONResponse({"jobs": page, "before": page[-1]["id"] if len(kept) > limit else None})

    async def why(self, request: Request) -> Response:
        job = self.jobs[request.path_params["job"]]
        moment = {"at": 1.0, "offset_s": 0.0, "what": "queued", "text": "queued", "took_s": None, "details": {}}
        return JSONResponse({"id": job.id, "summary": job.status, "moments": [moment]})

    async def retry(self, request: Request) -> Response:
        job = self.jobs[request.path_params["job"]]
        if job.status not in ("FAILED", "TIMED_OUT"):
            return JSONResponse({"error": {"reason": "not_ended", "message": f"the job is {job.status}"}}, 409)
        return JSONResponse({"id": job.id, "status": "IN_QUEUE"})

    async def cancel(self, request: Request) -> Response:
        def stop(job: Job) -> dict[str, Any]:
            if job.task is not None and not job.task.done():
                job.task.cancel()
                _end(job, "CANCELLED", {"reason": "cancelled", "message": "the job was cancelled"})
            return {"id": job.id, "status": job.status}

        return self._of(request, stop)

    def _of(self, request: Request, answer: Any) -> Response:
        job = self.jobs.get(request.path_params["job"])
        if job is None or FUNCTIONS[job.function] != f"/{request.path_params['function']}":
            return JSONResponse({"error": {"reason": "not_found", "message": "no such job"}}, 404)
        return JSONResponse(answer(job))

    async def health(self, request: Request) -> Response:
        if f"/{request.path_params['function']}" not in FUNCTIONS.values():
            return JSONResponse({"error": {"reason": "not_found", "message": "no such function"}}, 404)
        jobs = {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}
        workers = {"idle": 1, "initializing": 0, "ready": 1, "running": 0, "throttled": 0, "unhealthy": 0}
        return JSONResponse({"jobs": jobs, "workers": workers})

    async def user(self, request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse({"id": request.path_params["id"], "q": request.query_params.get("q", "")})
        name = request.query_params["name"]
        return JSONResponse({"id": request.path_params["id"], "name": name, "tags": await request.json()})

    async def notes(self, request: Request) -> Response:
        return JSONResponse({"size": len(await request.body())})

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(document(manifest(), DESCRIPTIONS, title="shop"))


async def _busy(request: Request) -> Response:
    error = {"reason": "queue_full", "message": "10000 jobs wait already"}
    return JSONResponse({"error": error}, 429, {"retry-after": "7"})


async def _broken(request: Request) -> Response:
    error = {"reason": "startup", "message": "no such file", "type": "OSError", "traceback": "Traceback ..."}
    return JSONResponse({"error": error}, 503)


def manifest() -> Manifest:
    """The manifest of the project under `shop/`."""
    functions = [_function(name, "job", "", route) for name, route in FUNCTIONS.items()]
    functions += [_function(name, "http", method, route) for name, (method, route) in HTTP.items()]
    endpoints = tuple(
        Endpoint(id=f.id.partition("::")[0], kind=f.kind, directory="", functions=(f,), python="3.11", fingerprint="")
        for f in functions
    )
    return Manifest(project="shop", environment="dev", endpoints=endpoints)


def _function(function_id: str, kind: Kind, method: str, route: str) -> Function:
    return Function(id=function_id, kind=kind, module="", attribute="", file="", line=1, route=route, method=method)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """An application on uvicorn in a thread of its own; its URL."""
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    sock.listen()  # whoever connects before the thread has begun waits, and is not refused
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
