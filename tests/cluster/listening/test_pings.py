"""Pings of a WebSocket: a client that is gone is found, a function that is busy is let be."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest
import uvicorn
from websockets.asyncio.client import connect

from flashfw.cluster.listening.pings import SocketProtocol

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0


async def served(app: Any, talk: Any, *, protocol: type[SocketProtocol] = SocketProtocol, timeout_s: float) -> None:
    """Runs `talk(url)` against the app, which pings every tenth of a second and waits so long for an answer."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            ws=protocol,
            ws_ping_interval=0.1,
            ws_ping_timeout=timeout_s,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        sock.listen()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server._serve, [sock])
            try:
                with anyio.fail_after(DEADLINE_S):
                    await talk(f"ws://127.0.0.1:{sock.getsockname()[1]}")
            finally:
                server.should_exit = True


async def test_a_function_that_reads_late_loses_no_client() -> None:
    overdue, protocols = anyio.Event(), []

    class Watched(SocketProtocol):
        def keepalive_timeout(self) -> None:
            super().keepalive_timeout()
            protocols.append(self)
            overdue.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await overdue.wait()
        while protocols[0].pong_timer is None:  # noqa: ASYNC110 - the server's loop sends the next ping
            await anyio.sleep(0.01)
        size = len((await receive())["bytes"])
        protocols[0].pong_timer.cancel()
        protocols[0].keepalive_timeout()  # as if time were up just now: reading goes on, and nothing has come yet
        while size < 10_000_000:
            size += len((await receive())["bytes"])
        await send({"type": "websocket.send", "text": str(size)})
        await receive()

    async def talk(url: str) -> None:
        async with connect(url, proxy=None, ping_interval=None) as ws:
            for _ in range(100):
                await ws.send(b"x" * 100_000)
            assert await ws.recv() == "10000000"

    # Long enough for a machine that has much else to do: the client must be heard of within it.
    await served(app, talk, protocol=Watched, timeout_s=3.0)


async def test_a_client_that_is_gone_is_found() -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        left.append(await receive())

    async def talk(url: str) -> None:
        async with connect(url, proxy=None, ping_interval=None, close_timeout=0.1) as ws:
            ws.transport.pause_reading()  # it answers nothing any more
            while not left:  # noqa: ASYNC110 - the server's task changes it
                await anyio.sleep(0.01)

    await served(app, talk, timeout_s=0.1)
    assert left[0]["type"] == "websocket.disconnect"
