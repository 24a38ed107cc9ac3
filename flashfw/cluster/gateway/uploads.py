"""A plain POST that brings files: a multipart form, or one file as the raw body, to the input of a job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import anyio.to_thread
from python_multipart.multipart import parse_options_header
from starlette.types import Receive, Scope

from flashfw.cluster.clock import Clock
from flashfw.cluster.gateway.answers import Refused, refusal
from flashfw.cluster.gateway.bodies import ClientGone, check_length, header, is_json, too_large, write_json
from flashfw.cluster.gateway.forms import Form, FormInvalid
from flashfw.cluster.gateway.intake import JobTarget
from flashfw.cluster.job_files import DiskFull, JobFiles, Spool, home_of
from flashfw.cluster.jobs.making import TooDeep, Upload, input_digest, job_id
from flashfw.cluster.jobs.store import JobStore
from flashfw.manifest import Function

MULTIPART = "multipart/form-data"
FORM = "application/x-www-form-urlencoded"


class Uploads:
    """Receives the files of jobs before the jobs are kept."""

    def __init__(self, files: JobFiles, store: JobStore, clock: Clock) -> None:
        self._files = files
        self._store = store
        self._clock = clock

    @asynccontextmanager
    async def received(self, scope: Scope, receive: Receive, target: JobTarget) -> AsyncIterator[tuple[bytes, Upload]]:
        """The input of a job as JSON, and the id that the job must get; the files stay if the block keeps that job.

        Raises:
            Refused: 413, 415, 422 for what does not fit, 507 where the disk has no room.
            ClientGone: the client went away; nothing is kept.
        """
        limit = target.dispatcher.endpoint.max_upload_bytes
        check_length(scope, limit)
        identity = job_id(self._clock.now())
        async with self._files.arriving(identity, self._store) as spool:
            try:
                length = header(scope, b"content-length") or b"0"
                spool.expect(int(length) if length.isdigit() else 0)
                body = await _input(scope, _chunks(receive, limit), target, spool)
                digest = input_digest(spool.anonymous(body))
                home = await anyio.to_thread.run_sync(home_of, self._files.folder)
                await spool.settle()
            except (FormInvalid, TooDeep) as error:
                raise refusal(
                    422, "validation", f"the body is no form that {target.function.id} takes: {error}"
                ) from error
            except DiskFull as error:
                raise refusal(507, "disk_full", str(error)) from error
            yield body, Upload(identity, digest, home)


def brings_files(scope: Scope, function: Function) -> bool:
    """Whether the body of this request is no JSON, for a function that takes files."""
    return bool(function.files) and not is_json(header(scope, b"content-type"))


async def _input(scope: Scope, chunks: AsyncIterator[bytes], target: JobTarget, spool: Spool) -> bytes:
    content_type = (header(scope, b"content-type") or b"").decode("latin-1")
    names = target.function.files
    if content_type.partition(";")[0].strip().lower() == MULTIPART:
        most = target.dispatcher.endpoint.max_body_bytes
        form = Form(spool, names, most if most is not None else 1 << 30)
        return write_json(await form.read(content_type, chunks))
    if len(names) != 1:
        raise _not_one(target.function, content_type)
    sent: dict[str, list[str]] = {}
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        sent.setdefault(name, []).append(value)
    part = spool.begin(_file_name(scope), "" if content_type == FORM else content_type)  # curl says so of anything
    async for chunk in chunks:
        await spool.write(part, chunk)
    kept = await spool.finish(part)
    fields = {name: values[0] if len(values) == 1 else values for name, values in sent.items()}
    if names[0] in fields:
        raise FormInvalid(f"'{names[0]}' is the body, and in the query too")
    return write_json({**fields, names[0]: kept})


async def _chunks(receive: Receive, limit: int | None) -> AsyncIterator[bytes]:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if limit is not None and size > limit:
            raise too_large(limit)
        more = message.get("more_body", False)
        if piece:
            yield piece


def _file_name(scope: Scope) -> str:
    disposition = (header(scope, b"content-disposition") or b"").decode("latin-1")
    return parse_options_header(disposition)[1].get(b"filename", b"").decode("utf-8", "replace")


def _not_one(function: Function, content_type: str) -> Refused:
    names = " and ".join(f"'{name}'" for name in function.files)
    media = content_type.partition(";")[0]
    what = f"{function.id} takes the files {names}, so send {MULTIPART}; {media} would be one of them"
    return refusal(415, "media_type", what)
