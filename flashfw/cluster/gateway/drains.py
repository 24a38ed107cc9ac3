"""What `stream` of Runpod's job API answers: chunks that no earlier call has taken, and a state that tells no lie."""

from __future__ import annotations

import json
from typing import Any

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.records import status_record
from flashfw.cluster.jobs.store import Chunk, JobStore
from flashfw.cluster.watch import Seat

STREAM_BYTES = 1_000_000
"""About how much one answer of `stream` holds; the next one goes on."""


async def drain(store: JobStore, clock: Clock, job: Job, seat: Seat, wait_s: float) -> dict[str, Any]:
    """The next answer of `stream` for a job, once there is a new chunk, the end, or nothing for `wait_s`.

    Clients stop reading at a terminal state, and raise at a failed one before they look at the chunks. So the
    state is the job's own only where no chunk is left; a failure comes by itself, with its error.
    """
    deadline = clock.monotonic() + wait_s
    latest: Job | None = job
    while True:
        latest = await store.peek(job.id) or latest or job
        after = await _read_up_to(store, latest)
        chunks = await store.chunks(latest.id, after=after, up_to_bytes=STREAM_BYTES)
        left = deadline - clock.monotonic()
        if chunks or latest.state.is_terminal or left <= 0 or not await seat.wait(left):
            break
    answer = await _answer(store, latest, chunks)
    if chunks:
        await store.set_read_position(latest.id, latest.fence, chunks[-1].index)
    return answer


async def _read_up_to(store: JobStore, job: Job) -> int:
    """The last chunk that was read of this claim, -1 for none: another claim's chunks are others."""
    fence, index = await store.read_position(job.id)
    return index if fence == job.fence else -1


async def _answer(store: JobStore, job: Job, chunks: list[Chunk]) -> dict[str, Any]:
    stream = [{"output": json.loads(chunk.data)} for chunk in chunks]
    state = job.state
    if chunks and state.is_terminal:
        is_all = not await store.chunks(job.id, after=chunks[-1].index, up_to_bytes=0)
        state = state if is_all and state is State.COMPLETED else State.IN_PROGRESS
    answer = {"id": job.id, "status": state.value, "stream": stream}
    if state in (State.FAILED, State.TIMED_OUT):
        answer["error"] = status_record(job)["error"]
    return answer
