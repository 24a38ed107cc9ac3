"""The last of what a process writes, read from a pipe without ever stopping it."""

from __future__ import annotations

import asyncio
import os

LAST_OUTPUT_BYTES = 64 * 1024


class LastOutput:
    """Reads a pipe on the loop and keeps its end. Owns the descriptor until `close`."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._loop = loop
        self._kept = bytearray()
        loop.add_reader(descriptor, self._read)

    @property
    def text(self) -> str:
        """What is kept so far."""
        return self._kept.decode(errors="replace")

    def close(self) -> None:
        """Take what is still in the pipe, and no more than that: something else may go on writing."""
        if self._descriptor is not None:
            self._read()
        self._stop()

    def _read(self) -> None:
        assert self._descriptor is not None
        try:
            data = os.read(self._descriptor, LAST_OUTPUT_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._stop()
            return
        self._kept += data
        del self._kept[:-LAST_OUTPUT_BYTES]

    def _stop(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
