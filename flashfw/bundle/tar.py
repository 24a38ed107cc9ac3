"""The part of the tar format that archives use: regular files and folders, with names in UTF-8, and nothing else.

A reader of our own, since it has to take an archive in pieces as they arrive, and because what it does not know it
cannot do: there is no code here for links, devices, owners, or names that lead elsewhere.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from flashfw.bundle.paths import PATH_BYTES, ArchiveError

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_FILE_BYTES = 8**11 - 1
"""8 GiB: what eleven octal digits can say."""

_MAGIC = b"ustar\x0000"
_PAX_BYTES = 2 * PATH_BYTES
_OTHERS = {b"1": "a hard link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe"}


class Head(NamedTuple):
    """What stands before the bytes of one file; a folder has a `kind` of 5."""

    kind: bytes
    path: str
    size_bytes: int
    executable: bool


class Visitor(Protocol):
    """Who is told what lies in an archive, in its order: `file`, its `data` in pieces, `file_end`, and `folder`."""

    def file(self, path: str, size_bytes: int, executable: bool) -> None: ...

    def data(self, piece: memoryview) -> None: ...

    def file_end(self) -> None: ...

    def folder(self, path: str) -> None: ...


def padding(size_bytes: int) -> int:
    """How many bytes follow a file of that size to fill its last block.

    >>> padding(0), padding(1), padding(512)
    (0, 511, 0)
    """
    return -size_bytes % BLOCK


def head(path: str, size_bytes: int, *, executable: bool = False) -> bytes:
    """The blocks before a file's bytes: the same for the same arguments, whoever and whenever.

    >>> len(head("lib/model.py", 10)), len(head("x" * 101, 10))
    (512, 1536)
    """
    name = path.encode("utf-8")
    if len(name) <= 100 and path.isascii():
        return _block(name, size_bytes, b"0", executable)
    record = _record(b"path", name)
    long_name = _block(b"././@PaxHeader", len(record), b"x", False) + record + bytes(padding(len(record)))
    short = name[:100].decode("ascii", "replace").replace("\ufffd", "_").encode()  # for readers that know no other
    return long_name + _block(short, size_bytes, b"0", executable)


def _block(name: bytes, size_bytes: int, kind: bytes, executable: bool) -> bytes:
    fields = [
        name.ljust(100, b"\0"),
        b"0000755\0" if executable else b"0000644\0",
        b"0000000\0" * 2,
        b"%011o\0" % size_bytes,
        b"00000000000\0",
        b" " * 8,
        kind,
        bytes(100),
        _MAGIC,
    ]
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """A line of an extended header, which begins with its own length."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


class Reader:
    """Takes a tar in pieces of any size and tells a visitor what is in it.

    Raises ArchiveError from `write` at the first byte that is not of this format. `ended` is true after its end.
    """

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._head = bytearray()
        self._left = 0
        """Bytes of the file that are still to come."""
        self._skip = 0
        self._pax: bytearray | None = None
        self._path: str | None = None
        """What an extended header said of the entry after it."""
        self._zeros = 0

    @property
    def ended(self) -> bool:
        """Whether the two empty blocks were there, and nothing is half told."""
        return self._zeros >= 2 and not self._head

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while rest:
            if self._left:
                rest = self._take(rest)
            elif self._skip:
                skipped = min(self._skip, len(rest))
                self._skip -= skipped
                rest = rest[skipped:]
            else:
                wanted = BLOCK - len(self._head)
                self._head += rest[:wanted]
                rest = rest[wanted:]
                if len(self._head) == BLOCK:
                    block, self._head = bytes(self._head), bytearray()
                    self._read(block)
        return len(data)

    def _take(self, rest: memoryview) -> memoryview:
        piece = rest[: self._left]
        self._left -= len(piece)
        if self._pax is None:
            self._visitor.data(piece)
        else:
            self._pax += piece
        if not self._left:
            self._end()
        return rest[len(piece) :]

    def _end(self) -> None:
        if self._pax is None:
            self._visitor.file_end()
        else:
            self._path, self._pax = _path(bytes(self._pax)), None

    def _read(self, block: bytes) -> None:
        if not any(block):
            if self._path is not None:
                raise ArchiveError("the archive ends in the middle of an entry")
            self._zeros += 1
            return
        if self._zeros:
            raise ArchiveError("the archive goes on after its end")
        found = _parse(block)
        if found.kind == b"x":
            if self._path is not None or not 0 < found.size_bytes <= _PAX_BYTES:
                raise ArchiveError("the archive has an extended header that flashfw does not write")
            self._pax = bytearray()
            self._begin(found.size_bytes)
            return
        path, self._path = self._path or found.path, None
        if found.kind == b"5":
            if found.size_bytes:
                raise ArchiveError(f"the folder {path!r} has bytes")
            self._visitor.folder(path.removesuffix("/"))
            return
        self._visitor.file(path, found.size_bytes, found.executable)
        self._begin(found.size_bytes)
        if not found.size_bytes:
            self._end()

    def _begin(self, size_bytes: int) -> None:
        self._left, self._skip = size_bytes, padding(size_bytes)


def _parse(block: bytes) -> Head:
    if block[257:262] != b"ustar":
        raise ArchiveError("this is no archive of flashfw: the head of an entry is damaged")
    told = _octal(block[148:156], "checksum")
    if told != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise ArchiveError("the archive is damaged: the checksum of an entry does not match")
    kind = block[156:157].replace(b"\0", b"0")
    name, prefix = _text(block[:100]), _text(block[345:500])
    path = f"{prefix}/{name}" if prefix else name
    if kind not in (b"0", b"5", b"x"):
        what = _OTHERS.get(kind, f"an entry of kind {kind!r}")
        raise ArchiveError(f"{path!r} is {what}: archives hold regular files and folders only")
    return Head(kind, path, _octal(block[124:136], "size"), bool(_octal(block[100:108], "mode") & 0o111))


def _octal(field: bytes, what: str) -> int:
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]+", digits):
        raise ArchiveError(f"the archive is damaged: {field!r} is no {what}")
    return int(digits, 8)


def _text(field: bytes) -> str:
    name = field.partition(b"\0")[0]
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise ArchiveError(f"the name {name!r} is not UTF-8") from None


def _path(records: bytes) -> str:
    found = re.fullmatch(rb"(\d{1,6}) path=(.*)\n", records, re.DOTALL)
    if not found or int(found[1]) != len(records) or b"\0" in found[2] or not found[2]:
        raise ArchiveError("the archive has an extended header that flashfw does not write")
    return _text(found[2])
