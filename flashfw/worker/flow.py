"""How much one call may have under way: the sender takes from a window, CREDIT gives back."""

from __future__ import annotations

import asyncio
import threading

from flashfw.worker.frames import WINDOW_BYTES


class WindowClosed(Exception):
    """The call ended while its sender waited."""


class Window:
    """Counts the bytes under way of one call; works from threads and from the loop at once.

    A piece larger than the whole window passes when nothing else is under way.
    """

    def __init__(self, size: int = WINDOW_BYTES) -> None:
        self._size = size
        self._used = 0
        self._closed = False
        self._changed = threading.Condition()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def take(self, count: int) -> None:
        """Waits in this thread until `count` bytes may go.

        Raises:
            WindowClosed: the call was cancelled.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._fits(count))
            self._used += count

    async def take_async(self, count: int) -> None:
        """The same on the loop."""
        while True:
            with self._changed:
                if self._fits(count):
                    self._used += count
                    return
                turned = asyncio.Event()
                self._waiting.append((asyncio.get_running_loop(), turned))
            await turned.wait()

    def credit(self, count: int) -> None:
        """The receiver has used up `count` bytes. From any thread."""
        with self._changed:
            self._used = max(0, self._used - count)
            self._turn()

    def close(self) -> None:
        """Ends all waiting. From any thread."""
        with self._changed:
            self._closed = True
            self._turn()

    def _fits(self, count: int) -> bool:
        if self._closed:
            raise WindowClosed
        return self._used == 0 or self._used + count <= self._size

    def _turn(self) -> None:
        self._changed.notify_all()
        waiting, self._waiting = self._waiting, []
        for loop, turned in waiting:
            loop.call_soon_threadsafe(turned.set)
