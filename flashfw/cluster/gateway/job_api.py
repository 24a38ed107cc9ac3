"""Runpod's job API under `/v2/{id}`, for every job function: the same paths, fields and states.

The contract is Runpod's public serverless API (run, runsync, status, stream, cancel, health); the last
path segments tell the operation, since ids hold slashes. Accepts POST beside GET where the vendor's own
local server does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from flashfw.cluster.gateway.answers import no_job, refusal, send_json
from flashfw.cluster.gateway.bodies import check_plain, header, parse_json, read_body, write_json
from flashfw.cluster.gateway.drains import drain
from flashfw.cluster.gateway.intake import Intake, JobTarget, identity
from flashfw.cluster.gateway.options import of_request
from flashfw.cluster.gateway.routes import Routes, route_of
from flashfw.cluster.jobs.making import Options
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.records import status_record
from flashfw.cluster.jobs.store import JobStore
from flashfw.cluster.workers.autoscaler import WorkerState

RUN_LIMIT_BYTES = 10_000_000
RUNSYNC_LIMIT_BYTES = 20_000_000
WAIT_MS = (90_000, 1_000, 300_000)
STREAM_WAIT_MS = (10_000, 1_000, 300_000)
SENTINEL = "/flash"
"""A name that stands for the function in `X-Flash-Endpoint`: the handles of Runpod's SDK 2.0 call that."""

Cancel = Callable[[Job], Awaitable["Job | None"]]


@dataclass(frozen=True, slots=True)
class _Place:
    """A job function in a path. `target` is None where it is not served (any more); its jobs may still be there."""

    route: str
    target: JobTarget | None

    def has(self, job: Job) -> bool:
        """Whether a job is one of this function's."""
        return route_of(job.function) == self.route


Operation = Callable[[Scope, Receive, Send, JobTarget], Awaitable[None]]
OnJob = Callable[[Scope, Send, _Place, Job], Awaitable[None]]


class JobApi:
    """Answers `/v2/...`; `targets` maps the route of each job function (`/gpu_a100/upscale`) to it."""

    def __init__(self, intake: Intake, store: JobStore, cancel: Cancel) -> None:
        self._intake = intake
        self._store = store
        self._cancel_job = cancel
        self._on_function: dict[str, tuple[str, Operation]] = {
            "run": ("POST", self._run),
            "runsync": ("POST", self._runsync),
            "health": ("GET", self._health),
            "purge-queue": ("POST", self._purge),
        }
        self._on_job: dict[str, tuple[str, OnJob]] = {
            "status": ("GET", self._status),
            "status-sync": ("GET", self._status_sync),
            "stream": ("GET", self._stream),
            "cancel": ("POST", self._cancel),
            "retry": ("POST", self._retry),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send, routes: Routes) -> None:
        path: str = scope["path"].removeprefix("/v2").rstrip("/")
        route, _, last = path.rpartition("/")
        if on_function := self._on_function.get(last):
            method, submit = on_function
            place = _place(scope, route, routes.jobs)
            if place.target is None:
                raise _unknown(path, place.route, routes)
            _check_method(scope, method)
            await submit(scope, receive, send, place.target)
            return
        route, _, verb = route.rpartition("/")
        if (on_job := self._on_job.get(verb)) is None:
            raise self._no_operation(path, routes)
        method, answer = on_job
        place = _place(scope, route, routes.jobs)
        job = await self._job(place, last)
        if job is None:
            raise _unknown(path, place.route, routes)
        _check_method(scope, method)
        await answer(scope, send, place, job)

    async def _run(self, scope: Scope, receive: Receive, send: Send, target: JobTarget) -> None:
        body, options = await self._request(scope, receive, RUN_LIMIT_BYTES, target)
        kept = await self._intake.accept(target, body, options)
        state = State.IN_QUEUE if kept.is_new else kept.job.state
        await send_json(send, 200, {"id": kept.job.id, "status": state.value}, identity(kept))

    async def _runsync(self, scope: Scope, receive: Receive, send: Send, target: JobTarget) -> None:
        body, options = await self._request(scope, receive, RUNSYNC_LIMIT_BYTES, target)
        timeout_s = _wait_s(scope, WAIT_MS)
        async with self._intake.watched(target, body, options) as (kept, seat):
            ended = await seat.end(timeout_s)
        latest = ended or await self._store.peek(kept.job.id) or kept.job
        await send_json(send, 200, status_record(latest), identity(kept))

    async def _status(self, scope: Scope, send: Send, place: _Place, job: Job) -> None:
        await send_json(send, 200, status_record(job))

    async def _status_sync(self, scope: Scope, send: Send, place: _Place, job: Job) -> None:
        """The record as soon as the job has ended."""
        with self._intake.watch.seat(job.id) as seat:
            latest = await self._store.peek(job.id) or job
            if not latest.state.is_terminal:
                await seat.end(_wait_s(scope, WAIT_MS))
                latest = await self._store.peek(job.id) or latest
        await send_json(send, 200, status_record(latest))

    async def _stream(self, scope: Scope, send: Send, place: _Place, job: Job) -> None:
        """Chunks that no earlier call has returned; waits for the first new one or the end."""
        with self._intake.watch.seat(job.id) as seat:
            body = await drain(self._store, self._intake.clock, job, seat, _wait_s(scope, STREAM_WAIT_MS))
        await send_json(send, 200, body)

    async def _cancel(self, scope: Scope, send: Send, place: _Place, job: Job) -> None:
        latest = await self._cancel_job(job) or await self._store.peek(job.id) or job
        await send_json(send, 200, {"id": job.id, "status": latest.state.value})

    async def _retry(self, scope: Scope, send: Send, place: _Place, job: Job) -> None:
        if place.target is None:
            raise refusal(409, "function_gone", f"{job.function} is not served any more; retry the job once it is back")
        # The store would take a cancelled job too; Runpod's API does not.
        if job.state not in (State.FAILED, State.TIMED_OUT) or await self._store.retry(job.id) is None:
            raise refusal(409, "not_ended", f"the job is {job.state.value}; only FAILED and TIMED_OUT jobs are retried")
        place.target.dispatcher.on_again(job)
        await send_json(send, 200, {"id": job.id, "status": State.IN_QUEUE.value})

    async def _purge(self, scope: Scope, receive: Receive, send: Send, target: JobTarget) -> None:
        removed = await self._store.purge(target.function.id)
        await self._intake.watch.look(self._store)
        await send_json(send, 200, {"removed": removed, "status": "completed"})

    async def _health(self, scope: Scope, receive: Receive, send: Send, target: JobTarget) -> None:
        counts = self._store.health(target.function.id)
        jobs = {
            "completed": counts.completed,
            "failed": counts.failed,
            "inProgress": counts.running,
            "inQueue": counts.queued,
            "retried": counts.retried,
        }
        await send_json(send, 200, {"jobs": jobs, "workers": worker_counts(target)})

    async def _job(self, place: _Place, job_id: str) -> Job | None:
        """The job of a function; None where there is neither."""
        job = await self._store.peek(job_id)
        if job is not None and place.has(job):
            return job
        if place.target is None:
            return None
        raise no_job(job_id, f"{place.target.function.id} has")

    async def _request(self, scope: Scope, receive: Receive, limit: int, target: JobTarget) -> tuple[bytes, Options]:
        """The input and the options of `run` and `runsync`.

        Their limits are Runpod's, which let `runsync` take twice as much; an endpoint's own `max_body` holds for both.
        """
        check_plain(scope)
        own = target.dispatcher.endpoint.max_body_bytes
        value = parse_json(await read_body(scope, receive, limit if own in (None, RUN_LIMIT_BYTES) else own), 400)
        if not isinstance(value, dict) or "input" not in value:
            raise refusal(400, "validation", 'the body must be an object with the key "input"')
        options = of_request(scope, value, local_webhooks=self._intake.local_webhooks)
        return write_json(value["input"], 400), options

    def _no_operation(self, path: str, routes: Routes) -> Exception:
        """The path of a function, and then nothing that could be asked of it."""
        for route in sorted(routes.jobs, key=len, reverse=True):
            if path == route or path.startswith(route + "/"):
                of_jobs = [f"{name}/JOB" for name in self._on_job]
                operations = ", ".join([*self._on_function, *of_jobs])
                return refusal(404, "not_found", f"no operation of a job function at /v2{path}; there is {operations}")
        return _unknown(path, path, routes)


def worker_counts(target: JobTarget) -> dict[str, int]:
    """`health.workers` of an endpoint; an idle worker also counts as ready, one that does not start as unhealthy."""
    pool = target.dispatcher.pool
    states = [worker.state for worker in pool.workers]
    return {
        "idle": states.count(WorkerState.IDLE),
        "initializing": states.count(WorkerState.INITIALIZING),
        "ready": states.count(WorkerState.IDLE) + states.count(WorkerState.RUNNING),
        "running": states.count(WorkerState.RUNNING),
        "throttled": states.count(WorkerState.THROTTLED),
        "unhealthy": max(states.count(WorkerState.UNHEALTHY), 0 if pool.refusal is None else 1),
    }


def _place(scope: Scope, route: str, targets: Mapping[str, JobTarget]) -> _Place:
    """The function of a path, by its id or its URL, or the one that the SDK's headers name."""
    named = header(scope, b"x-flash-endpoint")
    if route == SENTINEL and named is not None and SENTINEL not in targets:
        route = "/" + named.decode("latin-1").strip("/ ")
    route = route_of(route)
    return _Place(route, targets.get(route))


def _check_method(scope: Scope, method: str) -> None:
    if scope["method"] not in (method, "POST"):
        allowed = method if method == "POST" else f"{method}, POST"
        raise refusal(405, "method", f"use {method}", headers=[(b"allow", allowed.encode())])


def _unknown(path: str, route: str, routes: Routes) -> Exception:
    if (found := routes.find("GET", route)) is not None:
        takes = f" takes {found.takes}" if found.takes else " is called"
        return refusal(404, "not_found", f"{route.removeprefix('/')} is HTTP, which has no jobs: {route}{takes} itself")
    close = routes.job_suggestions.closest(route)
    hint = f"did you mean /v2{close}?" if close else "GET /docs lists what is served"
    named = "" if path.startswith(route) else f", which X-Flash-Endpoint names {route.removeprefix('/')!r}"
    return refusal(404, "not_found", f"no job function at /v2{path}{named}; {hint}")


def _wait_s(scope: Scope, bounds_ms: tuple[int, int, int]) -> float:
    default, least, most = bounds_ms
    text = parse_qs(scope["query_string"].decode("latin-1")).get("wait", [""])[-1]
    if not (text.isascii() and text.isdigit()):
        return default / 1000
    return min(max(int(text[:9]), least), most) / 1000  # more digits say no more, and thousands are no int
