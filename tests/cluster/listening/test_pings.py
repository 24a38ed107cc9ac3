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

PING_S = 0.1


async def served(app: Any, talk: Any) -> None:
    """Runs `talk(url)` against the app, which pings every tenth of a second."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            ws=SocketProtocol,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
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
                with anyio.fail_after(20):
                    await talk(f"ws://127.0.0.1:{sock.getsockname()[1]}")
            finally:
                server.should_exit = True


async def test_a_function_that_reads_late_loses_no_client() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await anyio.sleep(10 * PING_S)
        size = 0
        while size < 10_000_000:
            size += len((await receive())["bytes"])
        await send({"type": "websocket.send", "text": str(size)})
        await receive()

    async def talk(url: str) -> None:
        async with connect(url, proxy=None, ping_interval=None) as ws:
            for _ in range(100):
                await ws.send(b"x" * 100_000)
            assert await ws.recv() == "10000000"

    await served(app, talk)


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

    await served(app, talk)
    assert left[0]["type"] == "websocket.disconnect"
