"""One WebSocket of a client: uvicorn's protocol, which does not take a busy function for a client that is gone."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class SocketProtocol(WebSocketsSansIOProtocol):
    """A client is gone when nothing at all came from it since the ping, and somebody read all that time.

    While a function reads late, the answer waits behind messages that are not read yet, and silence proves nothing.
    """

    _silence_proves = True

    def data_received(self, data: bytes) -> None:
        self._silence_proves = False  # and reading may pause from here on
        super().data_received(data)

    def send_keepalive_ping(self) -> None:
        self._silence_proves = not self.read_paused
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        if self._silence_proves:
            super().keepalive_timeout()
            return
        self.pong_timer = None
        self.pending_ping_payload = None
        self.schedule_ping()
