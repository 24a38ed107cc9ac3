"""The HTTP server around a gateway: uvicorn on a socket that is bound before, and an orderly end."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

from flashfw.cluster.listening.asked import Answerer
from flashfw.cluster.listening.binding import BACKLOG
from flashfw.cluster.listening.connections import Connection, Limits
from flashfw.cluster.listening.pings import SocketProtocol
from flashfw.worker.sockets import MAX_MESSAGE_BYTES

DEFAULT_LIMITS = Limits()
TICK_S = 0.05
DATE_S = 1.0
"""How often the date of answers is made anew."""


@asynccontextmanager
async def serving(
    app: ASGIApp,
    sock: socket.socket,
    *,
    grace_s: float,
    limits: Limits = DEFAULT_LIMITS,
    tls: ssl.SSLContext | None = None,
    answerer: Answerer | None = None,
) -> AsyncIterator[None]:
    """Serve `app` on the socket while the block runs; then take no more and let open calls end within `grace_s`.

    Plain requests that came whole are offered to `answerer` first.

    The socket is closed then, for this process: where another one holds it too, clients wait for that one.
    """
    limited = type("Limited", (Connection,), {"limits": limits, "answerer": answerer})
    config = uvicorn.Config(
        app,
        http=limited,
        ws=SocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a large message would hold up every other call while it is packed
        proxy_headers=False,  # anybody could send X-Forwarded-For: who calls is who connects
        lifespan="off",
        log_config=None,
        log_level="critical",  # what goes wrong with a request is an event; a cut response is no error of the server's
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )
    config.load()
    config.ssl = tls
    server = _Server(config, limited)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [sock])
        await server.up.wait()
        try:
            yield
        finally:
            server.leave()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: whoever runs the server decides what a signal means."""

    def __init__(self, config: uvicorn.Config, limited: type[Connection]) -> None:
        super().__init__(config)
        self.up = anyio.Event()
        self._leaving = anyio.Event()
        self._limited = limited

    def leave(self) -> None:
        """Take no more, and end."""
        self.should_exit = True
        self._leaving.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """uvicorn's own asks ten times a second whether to end, which was half of what an idle server did."""
        while not await self.on_tick(0):
            with anyio.move_on_after(DATE_S):
                await self._leaving.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        self._limited.is_last = True
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.end_after_answer()
        await self._answer_last()
        await super().shutdown(sockets)

    async def _answer_last(self) -> None:
        """Give those who have just connected the time to ask; who is in a TLS handshake is not a connection yet."""
        until = anyio.current_time() + self._limited.limits.last_s
        while (left := until - anyio.current_time()) > 0:
            await anyio.sleep(
                min(left, TICK_S)
            )  # at first in any case: one that was accepted just now is not in the set
            if not self.server_state.connections and self.config.ssl is None:
                return
