"""A job called by a plain POST: wait for the output, go away with a job id, or read its story."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from flashfw.cluster.gateway.accepts import weight
from flashfw.cluster.gateway.answers import JSON_TYPE, send_bytes, send_json, to_json
from flashfw.cluster.gateway.bodies import check_json_type, check_plain, header, parse_json, read_body
from flashfw.cluster.gateway.downloads import send_output
from flashfw.cluster.gateway.intake import BegunJob, Intake, JobTarget, Kept, identity
from flashfw.cluster.gateway.options import of_headers
from flashfw.cluster.gateway.stories import send_story
from flashfw.cluster.gateway.uploads import Uploads, brings_files
from flashfw.cluster.job_files import JobFiles
from flashfw.cluster.jobs.making import Options
from flashfw.cluster.jobs.model import Job, Reason, State
from flashfw.cluster.jobs.records import error_object
from flashfw.cluster.jobs.store import JobStore

PLAIN_STATUS = {
    Reason.VALIDATION: 422,
    Reason.HANDLER_ERROR: 500,
    Reason.ENCODE: 500,
    Reason.TOO_LARGE: 500,
    Reason.FUNCTION_GONE: 500,
    Reason.WORKER_LOST: 502,
    Reason.OOM: 502,
    Reason.STARTUP: 503,
    Reason.TIMEOUT: 504,
    Reason.EXPIRED: 504,
    Reason.CANCELLED: 409,
}
"""How a plain POST answers for a job that did not complete; design section 3, "Calling"."""

WAIT_S = 90.0
MAX_WAIT_S = 300.0
EVENTS = "text/event-stream"
_WAIT = re.compile(r"\bwait\s*=\s*(\d+)(?![\w.])", re.ASCII)
_ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])")


class PlainCalls:
    """`POST /gpu_a100` with the input as body; design section 3, "Calling"."""

    def __init__(self, intake: Intake, store: JobStore, files: JobFiles) -> None:
        self._intake = intake
        self._store = store
        self._files = files
        self._uploads = Uploads(files, store, intake.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, target: JobTarget) -> None:
        options = of_headers(scope, local_webhooks=self._intake.local_webhooks)
        if brings_files(scope, target.function):
            async with self._uploads.received(scope, receive, target) as (body, upload):
                await self._answer(scope, receive, send, target, body, replace(options, upload=upload))
            return
        check_json_type(scope)
        check_plain(scope)
        body = await read_body(scope, receive, target.dispatcher.endpoint.max_body_bytes)
        if body:
            parse_json(body)
        await self._answer(scope, receive, send, target, body, options)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, target: JobTarget, body: bytes, options: Options
    ) -> None:
        prefer = (header(scope, b"prefer") or b"").decode("latin-1").lower()
        if _ASYNC.search(prefer):
            await self._accepted(send, target, await self._intake.accept(target, body, options))
        elif wants_events((header(scope, b"accept") or b"").decode("latin-1").lower()):
            async with self._intake.watched(target, body, options) as (kept, seat):
                await send_story(scope, receive, send, store=self._store, job_id=kept.job.id, seat=seat)
        else:
            async with self._intake.watched(target, body, options) as (kept, seat):
                ended = await seat.end(wait_s(prefer))
            await self._send(scope, receive, send, target, kept, ended)

    async def wait_on(self, scope: Scope, receive: Receive, send: Send, begun: BegunJob) -> None:
        """Answer for a job that was submitted already."""
        with begun.seated:
            kept = Kept(await self._intake.kept(begun.target, asyncio.shield(begun.kept)), is_new=True)
            waited_s = time.perf_counter() - begun.began
            ended = None
            if not begun.is_async:
                begun.target.dispatcher.refuse_in_vain()
                ended = await begun.seat.end(WAIT_S - waited_s)
        await self._send(scope, receive, send, begun.target, kept, ended)

    async def _send(
        self, scope: Scope, receive: Receive, send: Send, target: JobTarget, kept: Kept, ended: Job | None
    ) -> None:
        """What a job came to, or its id where it has not ended."""
        if ended is None:
            await self._accepted(send, target, kept)
        else:
            await self._send_end(scope, receive, send, Kept(ended, kept.is_new))

    async def _send_end(self, scope: Scope, receive: Receive, send: Send, kept: Kept) -> None:
        if not await send_output(scope, receive, send, job_files=self._files, kept=kept):
            await _send_end(send, kept)

    async def _accepted(self, send: Send, target: JobTarget, kept: Kept) -> None:
        location, body = accepted(target, kept.job)
        await send_bytes(send, 202, body, [JSON_TYPE, (b"location", location), *identity(kept)])


def accepted(target: JobTarget, job: Job) -> tuple[bytes, bytes]:
    """Where to ask for a job that has not ended, and the body of the 202 that says so."""
    return f"/v2{target.function.route}/status/{job.id}".encode(), to_json({"id": job.id, "status": job.state.value})


def wait_s(prefer: str) -> float:
    """How long a `Prefer` header wants to wait (RFC 7240), within our limits.

    >>> wait_s("wait=10"), wait_s(""), wait_s("wait=9999")
    (10.0, 90.0, 300.0)
    """
    match = _WAIT.search(prefer)
    return WAIT_S if match is None else min(float(match[1][:9]), MAX_WAIT_S)


def wants_events(accept: str) -> bool:
    """Whether an `Accept` header, in lower case, asks for the story and not rather for JSON (RFC 9110, 12.5.1).

    >>> wants_events("text/event-stream"), wants_events("application/json, text/event-stream")
    (True, True)
    >>> wants_events("text/event-stream;q=0"), wants_events("text/event-stream;q=0.5, application/json")
    (False, False)
    """
    wanted = weight(accept, EVENTS) if EVENTS in accept else 0.0
    return wanted > 0 and wanted >= weight(accept, "application/json")


async def _send_end(send: Send, kept: Kept) -> None:
    job = kept.job
    if job.state is State.COMPLETED:
        await send_bytes(send, 200, job.output or b"null", [JSON_TYPE, *identity(kept)])
        return
    error = error_object(job)
    status = PLAIN_STATUS[job.reason or Reason.HANDLER_ERROR]
    if job.reason is Reason.HANDLER_ERROR and 400 <= error.get("status", 0) <= 599:
        status = error["status"]
    await send_json(send, status, {"error": error, "id": job.id}, identity(kept))
