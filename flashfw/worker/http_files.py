"""`flashfw.File` in HTTP functions: uploads to files that last as long as their call, and files to responses."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO

import anyio
from starlette.datastructures import UploadFile
from starlette.responses import FileResponse, Response
from starlette.types import Scope

from flashfw.worker.files import BINARY, File, discard

WRITE_BYTES = 1 << 18
_KEY = "flashfw.files"


async def from_upload(upload: UploadFile, scope: Scope) -> File:
    """A part of a form as a file with a path."""

    def copy(target: BinaryIO) -> None:
        upload.file.seek(0)
        shutil.copyfileobj(upload.file, target, WRITE_BYTES)

    return await _spooled(copy, scope, name=upload.filename or "", content_type=upload.content_type or "")


async def from_body(pieces: AsyncIterator[bytes], scope: Scope, *, content_type: str) -> File:
    """The raw body of a request as a file; memory holds a piece of it at a time."""
    file, target = _begin(scope, name="", content_type=content_type)
    with target:
        held: list[bytes] = []
        size = 0
        async for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES:
                await anyio.to_thread.run_sync(target.writelines, held)
                held, size = [], 0
        await anyio.to_thread.run_sync(target.writelines, held)
    return file


def release(scope: Scope) -> None:
    """Remove the files that came with a call, which is over."""
    for remove in scope.pop(_KEY, ()):
        remove()


def as_response(file: File, *, ranges: bool) -> Response:
    """A file as the whole response: streamed from the disk, with ranges, saved by browsers under its name.

    One of bytes is written to the disk where `ranges` says that a part of it is asked for.
    """
    headers = {"content-type": file.content_type}
    if file._data is not None and not ranges:
        response = Response(file.read_bytes(), headers={**headers, "accept-ranges": "bytes"})
        if file.name:
            response.headers["content-disposition"] = FileResponse("", filename=file.name).headers[
                "content-disposition"
            ]
        return response
    return _FromFile(file, filename=file.name or None, headers=headers)


class _FromFile(FileResponse):
    def __init__(self, file: File, **options: Any) -> None:
        super().__init__(file.path, **options)
        self._file = file  # what is temporary goes with it


async def _spooled(fill: Callable[[BinaryIO], Any], scope: Scope, *, name: str, content_type: str) -> File:
    file, target = _begin(scope, name=name, content_type=content_type)
    with target:
        await anyio.to_thread.run_sync(fill, target)
    return file


def _begin(scope: Scope, *, name: str, content_type: str) -> tuple[File, BinaryIO]:
    descriptor, path = tempfile.mkstemp(prefix="flashfw-", suffix=Path(name).suffix[:20])
    file = File(path, name=name, content_type=content_type or ("" if name else BINARY))
    file.name = file.name if name else ""
    # A call that is cut off in the middle of its upload leaves nothing either.
    scope.setdefault(_KEY, []).append(weakref.finalize(file, discard, path))
    return file, os.fdopen(descriptor, "wb")
