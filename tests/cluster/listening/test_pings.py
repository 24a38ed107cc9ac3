"""Pings of a WebSocket: a client that is gone is found, a function that is busy is let be."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import anyio
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from flashfw.cluster.listening.pings import MOST_FRAGMENTS, SocketProtocol

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


FRAGMENT, LAST, PONG = b"\x00\x80\0\0\0\0", b"\x80\x80\0\0\0\0", b"\x8a\x80\0\0\0\0"
"""Frames without content, as a client sends them."""


@pytest.mark.parametrize(
    "flood", [PONG * 100_000, b"\x01\x80\0\0\0\0" + FRAGMENT * 16_000 + LAST], ids=["pongs", "fragments"]
)
async def test_a_flood_of_frames_leaves_others_their_turns(flood: bytes) -> None:
    turn, taken, ended = 0, {0: 0}, anyio.Event()

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        taken[turn] = 0
        if not ended.is_set():
            asyncio.get_running_loop().call_soon(next_turn)

    class Counted(SocketProtocol):
        def _take(self, bite: memoryview) -> int:
            frames = super()._take(bite)
            taken[turn] += frames
            return frames

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "last":
                await send({"type": "websocket.send", "text": "done"})

    async def talk(url: str) -> None:
        async with connect(url, proxy=None, ping_interval=None) as ws:
            next_turn()
            ws.transport.write(flood)
            await ws.send("last")
            assert await ws.recv() == "done"
            ended.set()

    await served(app, talk, protocol=Counted, timeout_s=60.0)
    assert sum(taken.values()) > len(flood) // 6
    assert max(taken.values()) <= 1200  # of some 40,000 that uvloop reads at once


async def test_a_message_of_too_many_fragments_is_closed() -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        left.append(await receive())

    async def talk(url: str) -> None:
        async with connect(url, proxy=None, ping_interval=None) as ws:
            ws.transport.write(b"\x01\x80\0\0\0\0" + FRAGMENT * MOST_FRAGMENTS)
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (1009, "a message has at most 16384 fragments")

    await served(app, talk, timeout_s=60.0)
    assert [message["code"] for message in left] == [1009]


async def test_a_client_that_reads_no_answers_gets_no_more_of_them() -> None:
    protocols: list[SocketProtocol] = []
    taken = 0

    class Kept(SocketProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            protocols.append(self)

        def _take(self, bite: memoryview) -> int:
            nonlocal taken
            taken += len(bite)
            return super()._take(bite)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass

    async def talk(url: str) -> None:
        async with connect(url, proxy=None, ping_interval=None, close_timeout=0.1) as ws:
            ws.transport.pause_reading()
            ping = b"\x89\xfd\0\0\0\0" + b"x" * 125
            while protocols[0].writable.is_set():
                ws.transport.write(ping * 1000)
                await anyio.sleep(0.001)
            held, until = protocols[0].transport.get_write_buffer_size(), taken + len(ping) * 30_000
            ws.transport.write(ping * 40_000)
            while taken < until:  # noqa: ASYNC110
                await anyio.sleep(0.001)
            assert protocols[0].transport.get_write_buffer_size() <= held + 1_000_000

    await served(app, talk, protocol=Kept, timeout_s=60.0)


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
