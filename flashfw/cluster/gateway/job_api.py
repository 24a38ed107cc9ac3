"""Runpod's job API under `/v2/{id}`, for every job function: the same paths, fields and states.

The contract is Runpod's public serverless API (run, runsync, status, stream, cancel, health); the last
path segments tell the operation, since ids hold slashes. Accepts POST beside GET where the vendor's own
local server does.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from flashfw.cluster.autoscaler import WorkerState
from flashfw.cluster.gateway.answers import refusal, send_json
from flashfw.cluster.gateway.bodies import parse_json, read_body, write_json
from flashfw.cluster.gateway.intake import Intake, JobTarget, Options
from flashfw.cluster.gateway.records import status_record
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.store import JobStore

RUN_LIMIT_BYTES = 10_000_000
RUNSYNC_LIMIT_BYTES = 20_000_000
RUNSYNC_WAIT_MS = (90_000, 1_000, 300_000)
STREAM_WAIT_MS = (10_000, 1_000, 300_000)
STREAM_BYTES = 1_000_000
"""About how much one answer of `stream` holds; the next one goes on."""
KEPT_READINGS = 10_000

Operation = Callable[[Scope, Receive, Send, JobTarget, str], Awaitable[None]]


class JobApi:
    """Answers `/v2/...`; `targets` maps the route of each job function (`/gpu_a100/upscale`) to it."""

    def __init__(self, intake: Intake, store: JobStore) -> None:
        self._intake = intake
        self._clock = intake.clock
        self._store = store
        self._read = _Readings(KEPT_READINGS)
        self._on_function: dict[str, tuple[str, Operation]] = {
            "run": ("POST", self._run),
            "runsync": ("POST", self._runsync),
            "health": ("GET", self._health),
            "purge-queue": ("POST", self._purge),
        }
        self._on_job: dict[str, tuple[str, Operation]] = {
            "status": ("GET", self._status),
            "stream": ("GET", self._stream),
            "cancel": ("POST", self._cancel),
            "retry": ("POST", self._retry),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send, targets: Mapping[str, JobTarget]) -> None:
        path: str = scope["path"].removeprefix("/v2").rstrip("/")
        route, _, last = path.rpartition("/")
        operation, job_id = self._on_function.get(last), ""
        if operation is None:
            job_id = last
            route, _, verb = route.rpartition("/")
            operation = self._on_job.get(verb)
        target = targets.get(route.replace("::", "/"))
        if operation is None or target is None:
            raise refusal(404, "not_found", f"no job function at /v2{path}")
        method, answer = operation
        if scope["method"] not in (method, "POST"):
            raise refusal(405, "method", f"use {method}", headers=[(b"allow", method.encode())])
        await answer(scope, receive, send, target, job_id)

    async def _run(self, scope: Scope, receive: Receive, send: Send, target: JobTarget, _: str) -> None:
        body, options = await _request(scope, receive, RUN_LIMIT_BYTES, target)
        job = await self._intake.accept(target, body, options)
        await send_json(send, 200, {"id": job.id, "status": State.IN_QUEUE.value})

    async def _runsync(self, scope: Scope, receive: Receive, send: Send, target: JobTarget, _: str) -> None:
        body, options = await _request(scope, receive, RUNSYNC_LIMIT_BYTES, target)
        timeout_s = _wait_s(scope, RUNSYNC_WAIT_MS)
        async with self._intake.watched(target, body, options) as (job, seat):
            ended = await seat.end(timeout_s)
        latest = ended or await self._store.get(job.id) or job
        await send_json(send, 200, status_record(latest))

    async def _status(self, scope: Scope, receive: Receive, send: Send, target: JobTarget, job_id: str) -> None:
        await send_json(send, 200, status_record(await self._job(target, job_id)))

    async def _stream(self, scope: Scope, receive: Receive, send: Send, target: JobTarget, job_id: str) -> None:
        """Chunks that no earlier call has returned; waits for the first new one or the end."""
        deadline = self._clock.monotonic() + _wait_s(scope, STREAM_WAIT_MS)
        with self._intake.watch.seat(job_id) as seat:
            while True:
                job = await self._job(target, job_id)
                after = self._read.last(job_id, job.fence)
                chunks = await self._store.chunks(job_id, after=after, up_to_bytes=STREAM_BYTES)
                left = deadline - self._clock.monotonic()
                if chunks or job.state.is_terminal or left <= 0 or not await seat.wait(left):
                    break
        if chunks:
            self._read.note(job_id, job.fence, chunks[-1].index)
        elif job.state.is_terminal:
            self._read.forget(job_id)
        stream = [{"output": json.loads(chunk.data)} for chunk in chunks]
        await send_json(send, 200, {"id": job_id, "status": job.state.value, "stream": stream})

    async def _cancel(self, scope: Scope, receive: Receive, send: Send, target: JobTarget, job_id: str) -> None:
        job = await self._job(target, job_id)
        cancelled = await target.dispatcher.cancel(job_id)
        latest = cancelled or await self._store.get(job_id) or job
        await send_json(send, 200, {"id": job_id, "status": latest.state.value})

    async def _retry(self, scope: Scope, receive: Receive, send: Send, target: JobTarget, job_id: str) -> None:
        job = await self._job(target, job_id)
        # The store would take a cancelled job too; Runpod's API does not.
        if job.state not in (State.FAILED, State.TIMED_OUT) or await self._store.retry(job_id) is None:
            raise refusal(409, "not_ended", f"the job is {job.state.value}; only FAILED and TIMED_OUT jobs are retried")
        target.dispatcher.wake()
        await send_json(send, 200, {"id": job_id, "status": State.IN_QUEUE.value})

    async def _purge(self, scope: Scope, receive: Receive, send: Send, target: JobTarget, _: str) -> None:
        removed = await self._store.purge(target.function.id)
        for job_id in self._intake.watch.watched():
            job = await self._store.get(job_id)
            if job is not None and job.state.is_terminal:
                self._intake.watch.ring(job_id, job)
        await send_json(send, 200, {"removed": removed, "status": "completed"})

    async def _health(self, scope: Scope, receive: Receive, send: Send, target: JobTarget, _: str) -> None:
        counts = self._store.health(target.function.id)
        jobs = {
            "completed": counts.completed,
            "failed": counts.failed,
            "inProgress": counts.running,
            "inQueue": counts.queued,
            "retried": counts.retried,
        }
        await send_json(send, 200, {"jobs": jobs, "workers": worker_counts(target)})

    async def _job(self, target: JobTarget, job_id: str) -> Job:
        job = await self._store.get(job_id)
        if job is None or job.function != target.function.id:
            raise refusal(404, "not_found", f"{target.function.id} has no job {job_id!r}")
        return job


class _Readings:
    """Up to which chunk `stream` has answered, for the `most` jobs that were asked for last; others begin anew."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._read: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def last(self, job_id: str, fence: int) -> int:
        """The last chunk that was read of this claim, -1 for none."""
        claim, index = self._read.get(job_id, (fence, -1))
        return index if claim == fence else -1

    def note(self, job_id: str, fence: int, index: int) -> None:
        self._read[job_id] = (fence, index)
        self._read.move_to_end(job_id)
        if len(self._read) > self._most:
            self._read.popitem(last=False)

    def forget(self, job_id: str) -> None:
        self._read.pop(job_id, None)


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


async def _request(scope: Scope, receive: Receive, limit: int, target: JobTarget) -> tuple[bytes, Options]:
    own = target.dispatcher.endpoint.max_body_bytes
    value = parse_json(await read_body(scope, receive, limit if own is None else min(limit, own)), 400)
    if not isinstance(value, dict) or "input" not in value:
        raise refusal(400, "validation", 'the body must be an object with the key "input"')
    return write_json(value["input"], 400), _options(value.get("policy") or {})


def _options(policy: Any) -> Options:
    if not isinstance(policy, dict):
        raise refusal(400, "validation", "policy must be an object")
    return Options(
        timeout_s=_milliseconds(policy, "executionTimeout", 5_000),
        ttl_s=_milliseconds(policy, "ttl", 10_000),
        low_priority=policy.get("lowPriority") is True,
    )


def _milliseconds(policy: dict[str, Any], key: str, least: int) -> float | None:
    value, most = policy.get(key), 7 * 86_400_000
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise refusal(400, "validation", f"policy.{key} is {value!r}; it takes milliseconds from {least} to {most}")
    return value / 1000


def _wait_s(scope: Scope, bounds_ms: tuple[int, int, int]) -> float:
    default, least, most = bounds_ms
    text = parse_qs(scope["query_string"].decode("latin-1")).get("wait", [""])[-1]
    if not (text.isascii() and text.isdigit()):
        return default / 1000
    return min(max(int(text[:9]), least), most) / 1000  # more digits say no more, and thousands are no int
