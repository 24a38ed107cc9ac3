"""A job's story as server-sent events, read from its record and chunks whenever they change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from flashfw.cluster.gateway.answers import ResponseCut, to_json
from flashfw.cluster.gateway.bodies import header
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.records import error_object, status_record
from flashfw.cluster.jobs.store import JobStore
from flashfw.cluster.watch import Seat

KEEPALIVE_S = 15.0
BITE_BYTES = 250_000
_CLAIM = 1_000_000
"""Event ids grow by claim, then by chunk; a job keeps fewer chunks than this per claim."""

_END = {
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.TIMED_OUT: "timed_out",
}


class Story:
    """What one reader has heard of one job. Reading again only yields what is new to it."""

    def __init__(self, store: JobStore, job_id: str, *, after: int = -1) -> None:
        self._store = store
        self._job_id = job_id
        self._after = after
        self._fence = 0
        self._chunk = -1
        self._progress: bytes | None = None
        self.is_over = False

    async def news(self) -> AsyncIterator[bytes]:
        """Each event that happened since the last call, as bytes of the stream."""
        job = await self._store.peek(self._job_id)
        if job is None:
            self.is_over = True
            return
        if self._fence == 0 and (event := self._event("queued", 0, {"id": job.id, "function": job.function})):
            yield event
        is_claimed = job.fence != self._fence and job.state is not State.IN_QUEUE
        if is_claimed and (event := self._started(job)):
            yield event
        async for event in self._chunks(job):
            yield event
        if job.progress is not None and job.progress != self._progress:
            self._progress = job.progress
            yield _sse("progress", None, {"value": json.loads(job.progress)})
        if job.state.is_terminal:
            self.is_over = True
            yield _sse(_END[job.state], (job.fence + 1) * _CLAIM - 1, end_data(job))

    def _started(self, job: Job) -> bytes | None:
        """A claim began; a second one is a restart even if it repeats the attempt, since its chunks are new ones."""
        name = "started" if job.fence == 1 else "restart"
        self._fence, self._chunk = job.fence, -1
        return self._event(name, job.fence * _CLAIM, {"attempt": job.attempt, "worker": job.worker})

    async def _chunks(self, job: Job) -> AsyncIterator[bytes]:
        # In bites, so that many slow readers of a long story do not each hold all of it.
        while chunks := await self._store.chunks(job.id, after=self._chunk, up_to_bytes=BITE_BYTES):
            for chunk in chunks:
                self._chunk = chunk.index
                data = {"index": chunk.index, "output": json.loads(chunk.data)}
                if event := self._event("chunk", self._fence * _CLAIM + 1 + chunk.index, data):
                    yield event

    def _event(self, name: str, number: int, data: dict[str, Any]) -> bytes | None:
        if number <= self._after:
            return None
        self._after = number
        return _sse(name, number, data)


def end_data(job: Job) -> dict[str, Any]:
    """The data of a terminal event."""
    record = status_record(job)
    if job.state is not State.COMPLETED:
        record["error"] = error_object(job)
    return record


async def send_story(scope: Scope, receive: Receive, send: Send, *, store: JobStore, job_id: str, seat: Seat) -> None:
    """Answer with the job's story until it ends or the reader leaves."""
    last = header(scope, b"last-event-id") or b""
    story = Story(store, job_id, after=int(last[:18]) if last.isdigit() else -1)
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    with anyio.CancelScope() as telling:
        leaving = asyncio.ensure_future(_leave(receive, telling))
        try:
            await _tell(story, send, seat)
        finally:
            leaving.cancel()


async def _tell(story: Story, send: Send, seat: Seat) -> None:
    while True:
        async for event in story.news():
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if story.is_over:
            break
        if seat.is_dismissed:
            raise ResponseCut("the server ends, and the next one tells the rest")
        if not await seat.wait(KEEPALIVE_S):
            await send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _leave(receive: Receive, telling: anyio.CancelScope) -> None:
    """Tell no more to a reader that is gone; the job may go on for days."""
    while (await receive())["type"] != "http.disconnect":
        pass
    telling.cancel()


def _sse(name: str, number: int | None, data: dict[str, Any]) -> bytes:
    identity = "" if number is None else f"id: {number}\n"
    return b"".join((f"{identity}event: {name}\ndata: ".encode(), to_json(data), b"\n\n"))
