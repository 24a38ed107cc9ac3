"""The writing side of a transport: what one turn of the loop has for it goes out in one system call."""

from __future__ import annotations

import asyncio

FULL_BYTES = 1 << 16
"""So much goes out at once, so that whoever writes much is told in time to wait."""


class Outlet:
    """Collects what is written until the loop's turn is over. uvloop itself would write each piece at once."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Send this, after all that was written before; nothing happens once the transport closes."""
        if not data:  # an empty body, which asyncio of 3.12 and 3.13 would try to send for ever
            return
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= FULL_BYTES:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Send this at once, with what was written before: for what is likely to be alone in its turn, which is then
        spared the next one.
        """
        if self._pieces:
            self._pieces.append(data)
            self.flush()
        elif not self._transport.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Hand over what was collected, now."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self._transport.is_closing():
            self._transport.writelines(pieces)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the transport once all is sent."""
        self.flush()
        self._transport.close()
