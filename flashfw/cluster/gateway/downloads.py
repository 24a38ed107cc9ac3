"""A file of a job as an HTTP response: streamed from the disk, with ranges, never shown as a page of this server."""

from __future__ import annotations

import json
import re
from pathlib import Path

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from flashfw.cluster.gateway.accepts import weight
from flashfw.cluster.gateway.answers import refusal
from flashfw.cluster.gateway.bodies import header
from flashfw.cluster.gateway.intake import Kept, identity
from flashfw.cluster.job_files import JobFiles
from flashfw.cluster.jobs.model import Job
from flashfw.worker import files
from flashfw.worker.files import Particulars

_MEDIA = re.compile(r"[\w.+-]+/[\w.+-]+(?:\s*;\s*[\w.+-]+=[\w.+\"-]+)*", re.ASCII)


class _FromDisk(FileResponse):
    chunk_size = 1 << 18


async def send_file(scope: Scope, receive: Receive, send: Send, *, job_files: JobFiles, job: Job, entry: str) -> None:
    """Answer a GET or HEAD with a file of the job.

    Raises:
        Refused: 404, the job has no such file.
    """
    found = job_files.find(job.id, entry) if files.parse_url(files.url(job.id, entry)) else None
    if found is None:
        raise refusal(404, "not_found", f"job {job.id} has no file {entry!r}" + _elsewhere(job, entry))
    await _send(scope, receive, send, *found, headers={})


def _elsewhere(job: Job, entry: str) -> str:
    """Where a file is that the job has and this server has not."""
    if f'"{files.url(job.id, entry)}"'.encode() not in job.input + (job.output or b""):
        return ""
    who = "received it" if entry.startswith("i") else "ran the job"
    return f" on this server: if it is still there, it lies in the folder of the one that {who}"


async def send_output(scope: Scope, receive: Receive, send: Send, *, job_files: JobFiles, kept: Kept) -> bool:
    """Answer with the file that is the whole output of a job, if it is one and its caller rather has it than JSON."""
    job = kept.job
    accept = (header(scope, b"accept") or b"").decode("latin-1")
    entry = output_file(job)
    found = None if entry is None else job_files.find(job.id, entry)
    if found is None:
        return False
    raw, plain = weight(accept, found[1].content_type), weight(accept, "application/json")
    if raw == 0 or raw < plain:
        return False
    # The request was a POST, of which there are no ranges.
    scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in (b"range", b"if-range")]}
    await _send(scope, receive, send, *found, headers={key.decode(): value.decode() for key, value in identity(kept)})
    return True


def output_file(job: Job) -> str | None:
    """The name of the file that a job's output is, None where it is anything else."""
    if job.output is None or len(job.output) > 4096 or b'"$file"' not in job.output:
        return None
    output = json.loads(job.output)
    place = (
        files.parse_url(output["$file"]) if isinstance(output, dict) and isinstance(output.get("$file"), str) else None
    )
    return place[1] if place is not None and place[0] == job.id else None


async def _send(
    scope: Scope, receive: Receive, send: Send, path: Path, found: Particulars, *, headers: dict[str, str]
) -> None:
    media = found.content_type if _MEDIA.fullmatch(found.content_type) else files.BINARY
    # What a caller sent is no page of this server: browsers save it, and do not guess that it is HTML.
    fixed = {"content-type": media, "x-content-type-options": "nosniff", **headers}
    response = _FromDisk(path, filename=found.name or None, headers=fixed)
    if not found.name:
        response.headers["content-disposition"] = "attachment"
    await response(scope, receive, send)
