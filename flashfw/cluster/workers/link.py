"""The gateway's end of the link to one worker: frames in, frames out, and nothing about what they mean."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from flashfw.cluster.outlet import FULL_BYTES, Outlet
from flashfw.worker.frames import Frame, FrameError, Frames, Kind, pack, pack_before


class Link(asyncio.Protocol):
    """A connected link. `on_frame` is called for each frame in order, `on_lost` once when it ends."""

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[str], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._frames = Frames()
        self._outlet: Outlet | None = None
        self._lost = ""

    @classmethod
    async def over(cls, sock: socket.socket, on_frame: Callable[[Frame], None], on_lost: Callable[[str], None]) -> Link:
        """A link over a connected stream socket, which it owns from now on."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(on_frame, on_lost), sock=sock)
        return link

    def send(
        self, kind: Kind, call: int = 0, meta: Any = None, body: bytes | memoryview = b"", head: bytes = b""
    ) -> None:
        """Queue one frame; a link that has ended swallows it, since `on_lost` tells what follows."""
        if self._outlet is None:
            return
        if len(body) > FULL_BYTES and isinstance(body, bytes):
            self._outlet.write(pack_before(body, kind, call, meta, head))
            self._outlet.write(body)
        else:
            self._outlet.write(pack(kind, call, meta, body, head))

    def send_now(self, kind: Kind, call: int, body: bytes, head: bytes) -> None:
        """The same for a frame that nobody else writes beside."""
        if self._outlet is None:
            return
        if len(body) > FULL_BYTES:
            self.send(kind, call, None, body, head)
        else:
            self._outlet.write_now(pack(kind, call, None, body, head))

    def close(self) -> None:
        """End the link; the worker takes that as an order to die."""
        if self._outlet is not None:
            self._outlet.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._outlet = Outlet(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._on_frame(frame)
        except FrameError as error:
            self._lost = f"the worker sent something that is no frame: {error}"
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._outlet = None
        self._on_lost(self._lost or (str(exc) if exc else "the link ended"))
