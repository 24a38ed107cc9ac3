"""The reading side of a WebSocket's transport: what comes at once is taken in bites, others have turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

BITE_BYTES = 2048
"""So much is parsed at a time: some 340 frames at most, which is a few milliseconds."""
FRAMES_PER_TURN = 200
"""After so many frames the rest waits for the loop's next turn. Large frames are few, and wait for nobody."""


class Inlet:
    """Stands for the transport of a protocol. `take` gets each bite, and says how many frames were in it.

    uvloop reads 256 kB at once, which may be 40,000 frames without content. Nothing further is read, and nothing of
    what was read is taken, while the protocol pauses reading.
    """

    def __init__(self, transport: asyncio.Transport, take: Callable[[memoryview], int]) -> None:
        self._transport = transport
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")
        self._is_paused = False
        self._is_due = False
        self.is_holding = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def feed(self, data: bytes) -> None:
        """Take what has come, or as much of it as this turn has room for."""
        self._rest = memoryview(bytes(self._rest) + data if self._rest else data)
        if not self._is_due:
            self._go_on()

    def pause_reading(self) -> None:
        self._is_paused = True
        self._hold()

    def resume_reading(self) -> None:
        self._is_paused = False
        self._soon()

    def _go_on(self) -> None:
        self._is_due = False
        frames = 0
        while self._rest and not self._is_paused and not self._transport.is_closing():
            if frames >= FRAMES_PER_TURN:
                self._hold()
                self._soon()
                return
            bite, self._rest = self._rest[:BITE_BYTES], self._rest[BITE_BYTES:]
            frames += self._take(bite)
        if self.is_holding and not self._is_paused and not self._transport.is_closing():
            self.is_holding = False
            self._transport.resume_reading()

    def _soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._go_on)

    def _hold(self) -> None:
        if not self.is_holding and not self._transport.is_closing():
            self.is_holding = True
            self._transport.pause_reading()
