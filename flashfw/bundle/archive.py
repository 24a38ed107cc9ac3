"""Files to one compressed archive and back: the same bytes for the same files, and safe to read whoever made it.

An archive is a tar (regular files, names sorted, no dates, no owners) compressed by zstd. It is unpacked beside its
place and renamed when all of it was there and had the SHA-256 that its layer says, so that a folder is whole or is not
there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from flashfw.bundle import tar
from flashfw.bundle.paths import ArchiveError, Names
from flashfw.bundle.release import Layer
from flashfw.whole import ASIDE, sync

__all__ = ["ASIDE", "ArchiveError", "Entry", "Unpacker", "pack", "sweep", "unpack"]

_LEVEL = 3
_THREADS_FROM_BYTES = 32 << 20
"""Below, starting threads takes longer than compressing. What comes out does not depend on their number."""
_WINDOW_BYTES = 8 << 20
"""The memory that whoever made an archive can ask of whoever reads it."""
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its path there, and its bytes or where they are; they have `sha256` if that is given."""

    path: str
    data: bytes | Path
    executable: bool = False
    sha256: str = ""


def pack(entries: Iterable[Entry], to: Path, *, durable: bool = False) -> Layer:
    """Writes the archive of these files to `to`, whole or not at all, and says which layer it is.

    The order in which they come does not matter. `durable` waits for the disk.

    >>> pack([Entry("lib/a.py", b"x = 1")], Path("/tmp/source.tar.zst"))  # doctest: +SKIP
    Layer(digest='...', size_bytes=2048)

    Raises:
        ArchiveError: two have the same name, a name cannot be in an archive, or a file changes while it is read.
        OSError: a file cannot be read, or `to` cannot be written.
    """
    ordered = sorted(entries, key=lambda entry: entry.path)
    names = Names()
    for entry in ordered:
        names.add_file(entry.path)
    sizes = [len(entry.data) if isinstance(entry.data, bytes) else entry.data.stat().st_size for entry in ordered]
    handle, aside = tempfile.mkstemp(prefix=ASIDE, dir=to.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            layer = _write(zip(ordered, sizes, strict=True), file, threads=sum(sizes) >= _THREADS_FROM_BYTES)
            os.fchmod(handle, 0o644)
            if durable:
                file.flush()
                os.fsync(handle)
        os.replace(aside, to)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return layer


def unpack(stream: BinaryIO | Iterable[bytes], into: Path, *, layer: Layer, durable: bool = False) -> None:
    """Makes the folder `into` of an archive, whole or not at all; one that is there already stays as it is.

    Raises:
        ArchiveError: it is damaged, unsafe, or another one than `layer` says. Nothing is left behind.
        OSError: the disk is full, or cannot be written. Nothing is left behind.
    """
    with Unpacker(into, layer=layer, durable=durable) as unpacker:
        for piece in _pieces(stream):
            unpacker.feed(piece)
        unpacker.finish()


def sweep(folder: Path, *, before: float | None = None) -> None:
    """Removes what processes that were killed left unfinished in a folder of archives or layers.

    Only what was last touched before that time (seconds since the epoch), if one is given: others may be at work.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not path.name.startswith(ASIDE) or (before is not None and path.lstat().st_mtime >= before):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class Unpacker:
    """As `unpack`, for an archive that arrives in pieces: `feed` each, then `finish`; `abort` leaves nothing behind.

    Whatever `feed` or `finish` raise, they abort first; leaving the context does so too unless it was finished. Calls
    may come from different threads, one at a time.
    """

    def __init__(self, into: Path, *, layer: Layer, durable: bool = False) -> None:
        from zstandard import ZstdDecompressor  # most processes unpack nothing

        self._into = into
        self._layer = layer
        self._durable = durable
        self._fed_bytes = 0
        self._aside: Path | None = Path(tempfile.mkdtemp(prefix=ASIDE, dir=into.parent))
        self._files = _Files(self._aside, limit_bytes=layer.size_bytes)
        self._tar = _Checked(tar.Reader(self._files), layer)
        # It hands on what it decompresses in pieces of 128 KiB: a bomb never lies in memory.
        decompressor = ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        self._zstd = decompressor.stream_writer(cast("IO[bytes]", self._tar), closefd=False)

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def feed(self, piece: bytes) -> None:
        """Takes the next bytes of the compressed archive.

        Raises:
            ArchiveError: it is damaged, unsafe, or larger than the layer says.
            OSError: the disk is full, or cannot be written.
        """
        from zstandard import ZstdError

        if self._aside is None:
            raise ArchiveError("the archive was given up already")
        try:
            self._fed_bytes += len(piece)
            # No compressor makes it larger than that: what does is no archive, but something to keep a server busy.
            if self._fed_bytes > self._layer.size_bytes + self._layer.size_bytes // 64 + _PIECE_BYTES:
                raise _too_large(self._layer)
            self._zstd.write(piece)
        except ZstdError as error:
            self.abort()
            raise ArchiveError(f"the archive is damaged: {error}") from error
        except BaseException:
            self.abort()
            raise

    def finish(self) -> None:
        """Puts the folder in its place, now that all of it was fed.

        Raises:
            ArchiveError: a part is missing, or it is not the layer that it should be.
            OSError: the disk is full, or cannot be written.
        """
        if self._aside is None:
            raise ArchiveError("the archive was given up already")
        try:
            self._tar.check()
            if self._durable:
                os.sync()  # one wait for thousands of files; to ask for each takes minutes on a slow disk
            _put(self._aside, self._into, durable=self._durable)
        finally:
            self.abort()

    def abort(self) -> None:
        """Removes what was unpacked so far; nothing to do after `finish`."""
        self._files.close()
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            self._aside = None


class _Checked:
    """The file that the decompressor writes to: a tar reader that holds a layer to its size and its SHA-256."""

    def __init__(self, reader: tar.Reader, layer: Layer) -> None:
        self._reader = reader
        self._layer = layer
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def write(self, piece: bytes) -> int:
        self._size_bytes += len(piece)
        if self._size_bytes > self._layer.size_bytes:
            raise _too_large(self._layer)
        self._hash.update(piece)
        return self._reader.write(piece)

    def check(self) -> None:
        if not self._reader.ended or self._size_bytes != self._layer.size_bytes:
            what = f"the archive is cut off: {self._size_bytes} of {self._layer.size_bytes} bytes"
            raise ArchiveError(what, hint="send it again")
        if (digest := self._hash.hexdigest()) != self._layer.digest:
            what = f"the archive is damaged: its SHA-256 is {digest}, it should be {self._layer.digest}"
            raise ArchiveError(what, hint="send it again")


class _Files:
    """Writes what a tar holds below one new folder of ours. There is no link in it, so that no path leads out of it."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._names = Names()
        self._file: BinaryIO | None = None

    def file(self, path: str, size_bytes: int, executable: bool) -> None:
        if size_bytes > self._limit_bytes:
            raise ArchiveError(f"{path!r} is larger than the whole archive should be")
        self._make(self._names.add_file(path))
        # O_EXCL: a file system that takes two names for one must not let the second write into the first.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._folder / path, flags, 0o644)
        self._file = os.fdopen(handle, "wb", buffering=0)
        os.fchmod(handle, 0o755 if executable else 0o644)  # whatever the umask says

    def data(self, piece: memoryview) -> None:
        while piece and self._file is not None:
            piece = piece[self._file.write(piece) :]

    def file_end(self) -> None:
        self.close()

    def folder(self, path: str) -> None:
        self._make(self._names.add_folder(path))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _make(self, folders: Iterable[str]) -> None:
        for path in folders:
            os.mkdir(self._folder / path, 0o755)


def _too_large(layer: Layer) -> ArchiveError:
    return ArchiveError(f"the archive is larger than the {layer.size_bytes} bytes that it was said to have")


def _write(entries: Iterable[tuple[Entry, int]], file: BinaryIO, *, threads: bool) -> Layer:
    from zstandard import ZstdCompressor

    digest = hashlib.sha256()
    size_bytes = 0
    compressor = ZstdCompressor(level=_LEVEL, write_checksum=True, threads=-1 if threads else 0)
    with compressor.stream_writer(file, closefd=False) as stream:
        for piece in _tar(entries):
            digest.update(piece)
            size_bytes += len(piece)
            stream.write(piece)
    return Layer(digest=digest.hexdigest(), size_bytes=size_bytes)


def _tar(entries: Iterable[tuple[Entry, int]]) -> Iterator[bytes]:
    for entry, size_bytes in entries:
        if size_bytes > tar.MAX_FILE_BYTES:
            raise ArchiveError(f"{entry.path!r} has more than 8 GiB", hint="keep such data on a volume")
        yield tar.head(entry.path, size_bytes, executable=entry.executable)
        yield from _content(entry, size_bytes)
        if padding := tar.padding(size_bytes):
            yield bytes(padding)
    yield tar.END


def _content(entry: Entry, size_bytes: int) -> Iterator[bytes]:
    if isinstance(entry.data, bytes):
        yield entry.data
        return
    left = size_bytes
    digest = hashlib.sha256()
    with entry.data.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                break
            digest.update(piece)
            yield piece
    if left or (entry.sha256 and digest.hexdigest() != entry.sha256):
        raise ArchiveError(f"{entry.path!r} changed while it was read", hint="build again")


def _pieces(stream: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    if not hasattr(stream, "read"):
        yield from stream
        return
    while piece := stream.read(_PIECE_BYTES):
        yield piece


def _put(aside: Path, into: Path, *, durable: bool) -> None:
    os.chmod(aside, 0o755)
    try:
        os.rename(aside, into)
    except OSError:
        if not into.is_dir():
            raise
        return  # somebody else unpacked the same layer meanwhile
    if durable:
        sync(into.parent)
