"""The layers of releases on a server's disk: unpacked while they are received, whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio

from flashfw.bundle.archive import ASIDE, Unpacker, sweep
from flashfw.bundle.release import Layer

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the disk says when nothing more fits on it."""
UNUSED_S = 24 * 3600.0
"""For how long a layer that no release needs stays: somebody may be about to ship the release that does."""


Result = TypeVar("Result")


class Layers:
    """The folder `layers/` of a data directory: one folder per layer, by its digest. Lives as long as its server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._receiving = anyio.CapacityLimiter(4)

    def open(self) -> None:
        """Make the folder, and remove what a killed server was receiving.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)

    def path(self, digest: str) -> Path:
        """Where the files of a layer lie, once it is there."""
        return self.folder / digest

    def missing(self, digests: Collection[str]) -> list[str]:
        """Those of the layers that are not there; the others stay for a while from now on."""
        lacking = []
        for digest in dict.fromkeys(digests):
            try:
                os.utime(self.path(digest))
            except OSError:
                lacking.append(digest)
        return lacking

    async def receive(self, layer: Layer, pieces: AsyncIterator[bytes]) -> None:
        """Unpack an archive while it arrives; nothing to do for a layer that is there.

        Raises:
            ArchiveError: it is damaged, unsafe, or not that layer.
            OSError: the disk is full, or cannot be written. In either case nothing is left behind.
        """
        unpacker = await self._run(lambda: Unpacker(self.path(layer.digest), layer=layer, durable=True))
        try:
            async for piece in pieces:
                if piece:
                    await self._run(partial(unpacker.feed, piece))
            await self._run(unpacker.finish)
            await self._run(partial(os.utime, self.path(layer.digest)))
        finally:
            with anyio.CancelScope(shield=True):
                await self._run(unpacker.abort)

    def remove_unused(self, used: Collection[str], *, now: float) -> list[str]:
        """Remove the layers that are not `used`, unless somebody asked for them lately; their digests."""
        gone = []
        for path in self.folder.iterdir():
            if path.name in used or path.name.startswith(ASIDE) or now - path.stat().st_mtime < UNUSED_S:
                continue
            self.remove(path.name)
            gone.append(path.name)
        return gone

    def remove(self, digest: str) -> None:
        """Remove a layer; one that is being removed when the server is killed is swept by the next."""
        aside = self.folder / f"{ASIDE}{secrets.token_hex(8)}"
        try:
            os.rename(self.path(digest), aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    async def _run(self, do: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(do, limiter=self._receiving)
