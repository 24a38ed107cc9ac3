"""The files of jobs on this server's disk: spooled while they arrive, kept while their job is known, then swept.

Whether a folder stays is decided by the job store alone: what has no job there is removed, unless it is arriving.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import anyio

from flashfw.cluster.jobs.store import StoreError
from flashfw.errors import FlashfwError
from flashfw.worker import files
from flashfw.worker.files import Particulars

WRITE_BYTES = 1 << 18
"""So much of a file is held in memory before it is written, in a thread."""
RESERVE_BYTES = 100_000_000
"""What files leave free on the disk, so that the job store can still write."""
LOOK_EVERY_BYTES = 16_000_000
Sync = Callable[[Path, Iterable[str]], None]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(FlashfwError):
    """There is no room for a file; nothing of its request is kept."""


class Jobs(Protocol):
    """What is asked of a job store."""

    async def get(self, job_id: str) -> Any:
        """The job, or None if it is unknown or its result has expired."""
        ...


def free_bytes(folder: Path) -> int:
    """What may still be written to the disk of a folder."""
    return shutil.disk_usage(folder).free


def home_of(folder: Path) -> str:
    """What names this folder of files, made at the first time: servers that share it know it by one name."""
    place = folder / "home"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"home-{uuid.uuid4().hex}"
        with new.open("w") as file:
            file.write(new.name)
            file.flush()
            os.fsync(file.fileno())  # jobs name it; one that is empty after a power cut would be nobody's folder
        try:
            os.link(new, place)
        except FileExistsError:  # another server was first
            pass
        except OSError:  # a file system without links
            new.replace(place)
        new.unlink(missing_ok=True)
        files.sync(folder, ())
    return place.read_text()


class JobFiles:
    """All files of one server's jobs, in `folder`; `free` tells how much room there is.

    With `is_synced` files that came with a job outlast a power cut as the job does: `sync` waits for the disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        is_synced: bool = False,
        free: Callable[[Path], int] = free_bytes,
        sync: Sync = files.sync,
    ) -> None:
        self.folder = folder
        self._free = free
        self.is_synced = is_synced
        self._sync = sync if is_synced else None
        self._arriving: set[str] = set()

    def find(self, job_id: str, entry: str) -> tuple[Path, Particulars] | None:
        """A file of a job and what is known of it; both names come from `files.parse_url`."""
        found = files.particulars(self.folder / job_id, entry)
        return None if found is None else (self.folder / job_id / entry, found)

    @asynccontextmanager
    async def arriving(self, job_id: str, store: Jobs) -> AsyncIterator[Spool]:
        """Where the files of a job are put that is not kept yet; gone after the block unless the job is kept then."""
        self._arriving.add(job_id)
        spool = Spool(self.folder / job_id, job_id, self._free, self._sync)
        try:
            yield spool
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    spool.close()
                    if await store.get(job_id) is None:
                        await anyio.to_thread.run_sync(_remove, self.folder / job_id)
                except StoreError:
                    pass  # its caller is told by whoever kept the job; the next sweep decides
                finally:
                    self._arriving.discard(job_id)

    async def sweep(self, store: Jobs) -> int:
        """Remove the files of jobs that the store does not know (any more); of how many jobs."""
        removed = 0
        for job_id in await anyio.to_thread.run_sync(_names, self.folder):
            if job_id not in self._arriving and await store.get(job_id) is None:
                await anyio.to_thread.run_sync(_remove, self.folder / job_id)
                removed += 1
        return removed


class Spool:
    """The files of one request while they arrive. Each is whole and read-only once it is `finish`ed."""

    def __init__(self, folder: Path, job_id: str, free: Callable[[Path], int], sync: Sync | None) -> None:
        self.written = 0
        self._folder = folder
        self._job_id = job_id
        self._free = free
        self._sync = sync
        self._count = 0
        self._open: Part | None = None
        self._looked_at = -LOOK_EVERY_BYTES
        self._digests: dict[str, str] = {}

    def expect(self, size: int) -> None:
        """Refuse at once what has no room.

        Raises:
            DiskFull: there is less left than `size` bytes and what files leave free.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._free(self._folder) < size + RESERVE_BYTES:
            raise DiskFull(f"there is no room on the server's disk for {size} bytes")

    def begin(self, name: str, content_type: str) -> Part:
        """A further file; `name` is what its sender calls it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        entry = f"i{self._count}"
        self._count += 1
        self._open = Part(self._folder / entry, entry, files.base_name(name), content_type or files.BINARY)
        return self._open

    async def write(self, part: Part, data: bytes) -> None:
        """Append to a file. Memory holds `WRITE_BYTES` of it at most, and the loop goes on while the disk works.

        Raises:
            DiskFull: there is no room.
        """
        part.pieces.append(data)
        part.held += len(data)
        if part.held >= WRITE_BYTES:
            await self._flush(part)

    async def finish(self, part: Part) -> dict[str, Any]:
        """What stands in the job's input for this file.

        Raises:
            DiskFull: there is no room for the rest of it.
        """
        await self._flush(part)
        self.close()
        # Attempts come and go, their input stays: nobody writes to it by accident, and its time tells if somebody did.
        part.path.chmod(0o444)
        stat = part.path.stat()
        found = Particulars(part.name, part.content_type, stat.st_size, stat.st_mtime_ns)
        try:
            files.note(self._folder, part.entry, found)
        except OSError as error:
            raise _full(error) from error
        self._digests[files.url(self._job_id, part.entry)] = part.digest.hexdigest()
        return files.as_json(self._job_id, part.entry, found)

    async def settle(self) -> None:
        """Have on the disk what has arrived, where the job that it is for will be, too.

        Raises:
            DiskFull: there is no room.
        """
        if self._sync is None or not self._count:
            return
        try:
            await anyio.to_thread.run_sync(self._sync, self._folder, [f"i{number}" for number in range(self._count)])
        except OSError as error:
            raise _full(error) from error

    def anonymous(self, body: bytes) -> bytes:
        """An input that refers to these files, by their digests and not their URLs: the same for the same files."""
        for reference, digest in self._digests.items():
            body = body.replace(reference.encode(), digest.encode())
        return body

    def close(self) -> None:
        """Write nothing more to the file that is open, if one is."""
        if self._open is not None:
            self._open.file.close()
            self._open = None

    async def _flush(self, part: Part) -> None:
        data, part.pieces, part.held = part.pieces, [], 0
        self.written += sum(map(len, data))
        if self.written - self._looked_at >= LOOK_EVERY_BYTES:
            self._looked_at = self.written
            self.expect(0)
        try:
            await anyio.to_thread.run_sync(part.append, data)
        except OSError as error:
            raise _full(error) from error


class Part:
    """One file while it arrives."""

    def __init__(self, path: Path, entry: str, name: str, content_type: str) -> None:
        self.path = path
        self.entry = entry
        self.name = name
        self.content_type = content_type
        self.pieces: list[bytes] = []
        self.held = 0
        self.digest = hashlib.sha256()
        self.file: BinaryIO = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by its spool

    def append(self, data: list[bytes]) -> None:
        """Write pieces. In a thread; hashing leaves the others their turn."""
        for piece in data:
            view = memoryview(piece)
            while view:
                view = view[self.file.write(view) :]
            self.digest.update(piece)


def _full(error: OSError) -> Exception:
    if error.errno not in _FULL:
        return error
    return DiskFull(f"the server's disk is full: {error.strerror}")


def _names(folder: Path) -> list[str]:
    """The jobs that have a folder; what is not named like a job is none of ours."""
    try:
        return [entry.name for entry in os.scandir(folder) if _is_job_id(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_job_id(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
