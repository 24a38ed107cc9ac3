"""One WebSocket of a client: uvicorn's protocol, which no client keeps busy, and which takes no busy function for a
client that is gone."""

from __future__ import annotations

from asyncio.transports import BaseTransport, Transport
from typing import cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from flashfw.cluster.listening.inlet import Inlet

MOST_FRAGMENTS = 16_384
"""Of one message: a kilobyte each, for the largest there may be. Empty ones would cost time and memory for nothing."""


class SocketProtocol(WebSocketsSansIOProtocol):
    """A client is gone when nothing at all came from it since the ping, and somebody read all that time.

    While a function reads late, the answer waits behind messages that are not read yet, and silence proves nothing.
    """

    _inlet: Inlet
    _silence_proves = True

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._inlet = Inlet(self.transport, self._take)
        self.transport = cast(Transport, self._inlet)

    def data_received(self, data: bytes) -> None:
        self._silence_proves = False  # and reading may pause from here on
        self._inlet.feed(data)

    def _take(self, bite: memoryview) -> int:
        self.conn.receive_data(bite)  # type: ignore[arg-type]  # it appends this to a bytearray
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
            return 0
        frames = len(self.conn.events)
        self.handle_events()
        return frames

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:  # nobody reads what comes until the client has heard of it
            self.frames = []
            return
        super().handle_cont(event)
        if len(self.frames) > MOST_FRAGMENTS:
            self.frames = []
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"a message has at most {MOST_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:  # a client that asks, and does not read the answers, gets no more of them
            self.conn.data_to_send()

    def send_keepalive_ping(self) -> None:
        self._silence_proves = not (self.read_paused or self._inlet.is_holding)
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        if self._silence_proves:
            super().keepalive_timeout()
            return
        self.pong_timer = None
        self.pending_ping_payload = None
        self.schedule_ping()
