"""The files of logs: which one is an endpoint's, how it grows, when it is put aside for a new one."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

SUFFIX = ".jsonl"
_NAME_BYTES = 230
"""So much is left of the 255 of a file system after `.jsonl` and the number of a file that was put aside."""
_CUT = "~"


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is full, and how many of an endpoint are kept, the one that grows included."""

    max_bytes: int = 10_000_000
    files: int = 5


def file_name(endpoint: str) -> str:
    """The file of an endpoint's log; another one for each id, whatever it holds, and never outside of its folder.

    Of an id that is too long for a name it has the beginning and a hash.

    >>> file_name("api/users"), file_name("a.b"), file_name("..")
    ('api.users.jsonl', 'a%2Eb.jsonl', '%2E%2E.jsonl')
    """
    name = _quoted(endpoint)
    if len(name) > _NAME_BYTES:
        digest = hashlib.sha256(endpoint.encode()).hexdigest()[:16]
        room = _NAME_BYTES - len(_CUT) - len(digest)
        begin = endpoint[: room // (3 if endpoint.isascii() else 12)]  # of which each letter may come to so many
        name = f"{_quoted(begin)}{_CUT}{digest}"
    return name + SUFFIX


def _quoted(endpoint: str) -> str:
    return quote(endpoint, safe="/").replace(".", "%2E").replace("/", ".")


def endpoint_of(name: str) -> str | None:
    """The endpoint whose log a file is; None for any other file, and for those that were put aside.

    Where the name was cut, it is a text that has the same file.

    >>> endpoint_of("api.users.jsonl"), endpoint_of("api.users.jsonl.1")
    ('api/users', None)
    """
    stem = name.removesuffix(SUFFIX)
    return None if stem == name else unquote(stem.replace(".", "/"))


def endpoints(folder: Path) -> list[str]:
    """The endpoints that have a log, whether they are served or not."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(found for name in names if (found := endpoint_of(name)) is not None)


class Appended(NamedTuple):
    """How many lines are in the file, and why no more of them."""

    lines: int
    error: OSError | None


class LogFile:
    """The log of one endpoint: appended to, and put aside when it is full."""

    def __init__(self, folder: Path, endpoint: str, rotation: Rotation) -> None:
        self.path = folder / file_name(endpoint)
        self._rotation = rotation

    def append(self, lines: Iterable[bytes]) -> Appended:
        """Add whole lines, as many as the disk takes."""
        count = 0
        try:
            for written in self._written(deque(lines)):
                count += written
        except OSError as error:
            return Appended(count, error)
        return Appended(count, None)

    def open_all(self) -> list[Segment]:
        """What is in the log at this moment, the newest file first, whatever becomes of the files afterwards."""
        found = []
        for path in (self.path, *(self._aside(number) for number in range(1, self._rotation.files + 1))):
            with suppress(OSError):
                found.append(Segment.open(path))
        return found

    def _written(self, rest: deque[bytes]) -> Iterator[int]:
        """Write the lines, of each file as many as fit at once; how many those were."""
        while rest:
            descriptor, size = self._open()
            try:
                chunk: list[bytes] = []
                while rest and (not size or size + len(rest[0]) <= self._rotation.max_bytes):
                    chunk.append(rest.popleft())
                    size += len(chunk[-1])
                if chunk:
                    _write(descriptor, b"".join(chunk))
                    yield len(chunk)
            finally:
                os.close(descriptor)
            if rest:
                self._rotate()

    def _open(self) -> tuple[int, int]:
        """The file for appending, and its size. The last line of a server that was killed may lack its end."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            with suppress(OSError):
                size += os.write(descriptor, b"\n")
        return descriptor, size

    def _rotate(self) -> None:
        kept = self._rotation.files - 1
        with suppress(FileNotFoundError):
            (self._aside(kept) if kept > 0 else self.path).unlink()
        for number in range(kept - 1, -1, -1):
            with suppress(FileNotFoundError):
                (self._aside(number) if number else self.path).rename(self._aside(number + 1))

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file as it was when it was opened: bytes that follow are not part of it. Close it."""

    descriptor: int
    size: int

    @classmethod
    def open(cls, path: Path) -> Segment:
        """The file as it is now.

        Raises:
            OSError: there is none, or it cannot be read.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return cls(descriptor, os.fstat(descriptor).st_size)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)

    def backwards(self, block_bytes: int = 1 << 16) -> Iterator[bytes]:
        """Its lines, the last one first, without their ends."""
        end, rest = self.size, b""
        while end > 0:
            begin = max(0, end - block_bytes)
            first, *whole = (os.pread(self.descriptor, end - begin, begin) + rest).split(b"\n")
            yield from (line for line in reversed(whole) if line)
            end, rest = begin, first
        if rest:
            yield rest


def _write(descriptor: int, data: bytes) -> None:
    """All of it or nothing: what a full disk took of it is cut off again."""
    if not data:
        return
    size = os.fstat(descriptor).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
