"""The HTTP server around a gateway: a socket that is bound first, uvicorn on it, and an orderly end."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

from flashfw.cluster.listening.connections import Connection, Limits
from flashfw.cluster.listening.pings import SocketProtocol
from flashfw.errors import TargetError, UsageError
from flashfw.worker.sockets import MAX_MESSAGE_BYTES

BACKLOG = 2048
DEFAULT_LIMITS = Limits()
TICK_S = 0.05


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any free one.

    Raises:
        TargetError: the address is taken, not this machine's, or not allowed.
        UsageError: there is no such port.
    """
    if not 0 <= port <= 65_535:
        raise UsageError(f"{port} is no port", hint="choose one from 1 to 65535, or 0 for any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise _refused(host, port, error) from error
    return sock


def url_of(sock: socket.socket, *, scheme: str = "http") -> str:
    """The URL of a bound socket, as a person on this machine opens it."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@asynccontextmanager
async def serving(
    app: ASGIApp,
    sock: socket.socket,
    *,
    grace_s: float,
    limits: Limits = DEFAULT_LIMITS,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    """Serve `app` on the socket while the block runs; then take no more and let open calls end within `grace_s`.

    The socket is closed then, for this process: where another one holds it too, clients wait for that one.
    """
    limited = type("Limited", (Connection,), {"limits": limits})
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
            server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: whoever runs the server decides what a signal means."""

    def __init__(self, config: uvicorn.Config, limited: type[Connection]) -> None:
        super().__init__(config)
        self.up = anyio.Event()
        self._limited = limited

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

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


def _refused(host: str, port: int, error: OSError) -> TargetError:
    if error.errno == errno.EADDRINUSE:
        return TargetError(
            f"port {port} on {host} is in use", hint=f"stop what runs there, or choose another: --port {port + 1}"
        )
    if error.errno == errno.EACCES:
        return TargetError(f"port {port} may not be used by this user", hint="choose one above 1023: --port 8888")
    return TargetError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint="check --host and --port")
