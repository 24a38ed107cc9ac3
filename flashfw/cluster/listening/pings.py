"""One WebSocket of a client: uvicorn's protocol, which does not take a busy function for a client that is gone."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class SocketProtocol(WebSocketsSansIOProtocol):
    """While nobody reads, the answer to a ping waits behind messages that are not read yet, and proves nothing."""

    def keepalive_timeout(self) -> None:
        if not self.read_paused:
            super().keepalive_timeout()
            return
        self.pong_timer = None
        self.pending_ping_payload = None
        self.schedule_ping()
