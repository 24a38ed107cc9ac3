"""Files beside the JSON: what user code takes and returns as `flashfw.File`, and where the files of a job lie.

A job's files lie in `<files>/<job id>/`, each as NAME with its particulars beside it in `NAME.json`. In JSON a file
is `{"$file": URL, "name", "content_type", "size"}`. Only a job's own files are ever read by such a reference, so that
no caller reaches those of another job by writing one.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import mimetypes
import os
import re
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

BINARY = "application/octet-stream"
MOST_OF_A_NAME = 200
OF_RESULTS = "o"
"""How the names of files begin that jobs answer with; those that came with a job have another letter."""
_URL = re.compile(r"/_flashfw/jobs/([0-9A-Za-z_-]{1,80})/files/([a-z0-9]{1,24})")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
_HOW = "send it as a part of multipart/form-data, or as base64 text"

_root: Path | None = None
"""Where the files of all jobs lie; set once by a worker."""
_is_synced = False


class File:
    """A file that a caller sends or gets, kept on disk and never inside the JSON.

    As a parameter: `def handler(image: flashfw.File)`; `path` is a file that only this call's files stand beside,
    to be read and not to be changed. As a result: from a path, which is copied, or from bytes. `content_type` is
    guessed from the name where it is not given.

    >>> File(b"hello", name="hello.txt")
    File('hello.txt', 'text/plain', 5 bytes)
    """

    __slots__ = ("__weakref__", "_data", "_path", "_saved", "content_type", "name")

    def __init__(
        self, source: str | os.PathLike[str] | bytes | bytearray | memoryview, *, name: str = "", content_type: str = ""
    ) -> None:
        is_data = isinstance(source, (bytes, bytearray, memoryview))
        self._data: bytes | None = bytes(source) if is_data else None  # type: ignore[arg-type]
        self._path: Path | None = None if is_data else Path(source)  # type: ignore[arg-type]
        self.name = base_name(name or (self._path.name if self._path else ""))
        self.content_type = content_type or mimetypes.guess_type(self.name)[0] or BINARY
        self._saved: dict[str, dict[str, Any]] = {}

    @property
    def path(self) -> Path:
        """Where it lies. Bytes are written to a temporary file at first, which goes when this object does."""
        if self._path is None:
            assert self._data is not None
            descriptor, path = tempfile.mkstemp(prefix="flashfw-", suffix=Path(self.name).suffix)
            with open(descriptor, "wb") as file:
                file.write(self._data)
            self._path = Path(path)
            weakref.finalize(self, discard, path)
        return self._path

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._data) if self._data is not None else self.path.stat().st_size

    def open(self) -> BinaryIO:
        """Its content, to be read and closed; nothing of it is in memory yet."""
        return io.BytesIO(self._data) if self._data is not None else self.path.open("rb")

    def read_bytes(self) -> bytes:
        """Its content, whole."""
        return self._data if self._data is not None else self.path.read_bytes()

    def __repr__(self) -> str:
        return f"File({self.name!r}, {self.content_type!r}, {self.size} bytes)"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema as core

        kept = core.plain_serializer_function_ser_schema(reference, when_used="json")
        return core.with_info_plain_validator_function(_validated, serialization=kept)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        if handler.mode == "validation":
            return {"type": "string", "format": "binary"}
        text = {"type": "string"}
        properties = {"$file": text, "name": text, "content_type": text, "size": {"type": "integer"}}
        return {"type": "object", "properties": properties, "required": [*properties]}


@dataclass(frozen=True, slots=True)
class Particulars:
    """What is known of a job's file beside its bytes. `changed_ns` is the time of its last change, as it was kept."""

    name: str
    content_type: str
    size: int
    changed_ns: int = 0


def configure(root: Path, *, is_synced: bool = False) -> None:
    """Tells where the files of jobs lie, and whether they have to outlast a power cut. A worker calls it once, before
    it imports anything of the project.
    """
    global _root, _is_synced
    _root, _is_synced = root, is_synced


def url(job: str, entry: str) -> str:
    """Where the gateway answers with a file of a job.

    >>> url("019a", "i0")
    '/_flashfw/jobs/019a/files/i0'
    """
    return f"/_flashfw/jobs/{job}/files/{entry}"


def parse_url(text: str) -> tuple[str, str] | None:
    """The job and the entry that a `url` names; None for any other text.

    >>> parse_url("/_flashfw/jobs/019a/files/i0"), parse_url("/_flashfw/jobs/019a/files/../i0")
    (('019a', 'i0'), None)
    """
    match = _URL.fullmatch(text)
    return None if match is None else (match[1], match[2])


def base_name(text: str) -> str:
    """The last part of a file's name as a caller wrote it, without what no name may hold; empty if nothing is left.

    >>> [base_name(text) for text in ("cat.png", "../../etc/passwd", "C:\\\\x\\\\dog.png", "..", "a\\x00\\nb")]
    ['cat.png', 'passwd', 'dog.png', '', 'ab']
    """
    last = text.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if char.isprintable())
    if kept in ("", ".", ".."):
        return ""
    stem, dot, end = kept.rpartition(".")
    return kept[:MOST_OF_A_NAME] if len(end) > 20 or not dot else f"{stem[: MOST_OF_A_NAME - len(end) - 1]}.{end}"


def note(folder: Path, entry: str, particulars: Particulars) -> None:
    """Keep the particulars of a file beside it."""
    (folder / f"{entry}.json").write_text(json.dumps(asdict(particulars)), encoding="utf-8")


def sync(folder: Path, entries: Iterable[str]) -> None:
    """Wait until the disk has these files of a job, what was noted of them, and the names that lead to them.

    Raises:
        OSError: the disk does not take them.
    """
    names = [name for entry in entries for name in (entry, f"{entry}.json")]
    for path in [*(folder / name for name in names), folder, folder.parent]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def particulars(folder: Path, entry: str) -> Particulars | None:
    """What was noted of a file, None if there is none (any more)."""
    try:
        return Particulars(**json.loads((folder / f"{entry}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def as_json(job: str, entry: str, found: Particulars) -> dict[str, Any]:
    """What stands in JSON for a file."""
    return {"$file": url(job, entry), "name": found.name, "content_type": found.content_type, "size": found.size}


def reference(file: File) -> dict[str, Any]:
    """Keep a file that the job of this context answers with, and what stands for it in its output.

    Raises:
        TypeError: there is no job: an HTTP function can return a File, and nothing that holds one.
        OSError: it cannot be read, or the disk is full.
    """
    from flashfw.worker.capture import current_job

    job = current_job.get()
    if job is None or _root is None:
        raise TypeError("a File inside a value, which only a job can return; return the File itself")
    if job not in file._saved:
        file._saved[job] = _save(file, job, _root / job)
    return file._saved[job]


def _save(file: File, job: str, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    entry = f"{OF_RESULTS}{secrets.token_hex(6)}"
    place = folder / entry
    try:
        if file._data is not None:
            place.write_bytes(file._data)
        else:
            # A copy: a link would let the handler's next call change what this one answered.
            shutil.copyfile(file.path, place)
        found = Particulars(file.name, file.content_type, place.stat().st_size)
        note(folder, entry, found)
        if _is_synced:  # before the job's end is, which speaks of it
            sync(folder, [entry])
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return as_json(job, entry, found)


def _validated(value: Any, info: Any) -> File:
    from pydantic_core import PydanticCustomError

    try:
        if isinstance(value, File):
            return value
        if isinstance(value, str) and info.mode == "json":
            return _decoded(value)
        if isinstance(value, dict) and isinstance(value.get("$file"), str):
            return _own(value["$file"], (info.context or {}).get("job"))
        raise ValueError(f"Input should be a file: {_HOW}")
    except ValueError as error:
        raise PydanticCustomError("file", "{why}", {"why": str(error)}) from None


def _decoded(text: str) -> File:
    """Base64, plain or as a data URL; Runpod's callers send it so."""
    match = _DATA_URL.match(text)
    media = (match[1] or "") if match else ""
    try:
        return File(base64.b64decode(text[match.end() :] if match else text, validate=True), content_type=media)
    except (binascii.Error, ValueError):
        fetched = "flashfw fetches no URL for a caller; " if text.startswith(("http:", "https:")) else ""
        raise ValueError(f"Input should be a file, and the text is not base64: {fetched}{_HOW}") from None


def _own(reference: str, job: str | None) -> File:
    """The file of this very job that a reference names.

    Raises:
        ValueError: it names another one, or a job that came with no files.
    """
    place = parse_url(reference)
    if place is None or job is None or place[0] != job or _root is None:
        raise ValueError(f"Input should be a file, and '$file' refers to none of this job: {_HOW}")
    folder = _root / job
    found = particulars(folder, place[1])
    if found is None:
        raise ValueError("the file is not on this machine (any more)")
    path = folder / place[1]
    stat = path.stat()
    if found.changed_ns and (stat.st_size, stat.st_mtime_ns) != (found.size, found.changed_ns):
        raise ValueError("the file was changed by an earlier attempt; a handler reads its input and writes elsewhere")
    return File(path, name=found.name, content_type=found.content_type)


def discard(path: str) -> None:
    """Remove a temporary file, if it is there."""
    try:
        os.unlink(path)
    except OSError:
        pass
