"""Files that go with a call, and those that it answers with."""

from __future__ import annotations

import json
import mimetypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from flashfw.errors import UsageError

Json = Any
Paths = str | os.PathLike[str]
Files = Mapping[str, Paths | Sequence[Paths]]
"""By parameter: the path of a file, or of several for one that takes a list."""

_OF_JOBS = "/_flashfw/jobs/"
"""Where a server has the files of its jobs. An output may hold any URL, and whoever is asked for it gets the key."""

Part = tuple[str, tuple[str | None, str | BinaryIO, str]]


@contextmanager
def body_of(input: Json, files: Files | None) -> Iterator[dict[str, Any]]:
    """The body of a call as httpx has it: JSON, or a form of the files and the input, read as they are sent.

    Raises:
        UsageError: a file cannot be read.
    """
    if not files:
        yield {"json": {} if input is None else input}
        return
    found: list[Part] = []
    with ExitStack() as opened:
        for name, given in files.items():
            for path in [given] if isinstance(given, str | os.PathLike) else given:
                try:
                    file = opened.enter_context(open(path, "rb"))
                except OSError as error:
                    raise UsageError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from error
                media = mimetypes.guess_type(str(path))[0] or "application/octet-stream"
                found.append((name, (Path(path).name, file, media)))
        if input not in (None, {}):
            found.append(("input", (None, json.dumps(input), "application/json")))
        yield {"files": found}


def save(response: httpx.Response, reference: Mapping[str, Json], to: Paths) -> Path:
    """Write a response as it comes; where `to` is a folder, under the name that the reference says."""
    target = Path(to)
    if target.is_dir():
        target = target / (Path(str(reference.get("name") or "")).name or "file")
    with open(target, "wb") as file:
        for piece in response.iter_bytes():
            file.write(piece)
    return target


def is_reference(value: Json) -> bool:
    """Whether an output stands for a file of its server's.

    >>> is_reference({"$file": "/_flashfw/jobs/1/files/o1", "name": "a", "content_type": "text/plain", "size": 1})
    True
    >>> is_reference({"$file": "https://elsewhere.example/_flashfw/jobs/1/files/o1"})
    False
    """
    return isinstance(value, dict) and str(value.get("$file", "")).startswith(_OF_JOBS)
