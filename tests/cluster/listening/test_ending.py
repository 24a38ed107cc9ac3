"""How a server stops listening while another one goes on with its socket: nobody who could connect is refused."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import anyio
import pytest

from flashfw.cluster.listening import server
from flashfw.cluster.listening.binding import bind
from flashfw.cluster.listening.connections import Limits

pytestmark = pytest.mark.anyio

DEADLINE_S = 30.0
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LAST = Limits(last_s=DEADLINE_S)


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    with anyio.fail_after(DEADLINE_S):
        return await reader.readuntil(end)


async def test_who_has_connected_is_answered_and_told_that_it_was_the_last_time() -> None:
    """Two connections when the server ends: one that has not said a word, one that was answered before."""
    sock = bind("127.0.0.1", 0)
    address = sock.getsockname()
    up, stop = anyio.Event(), anyio.Event()

    async def serve() -> None:
        async with server.serving(app, sock, grace_s=1.0, limits=LAST):
            up.set()
            await stop.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await up.wait()
        used = await asyncio.open_connection(*address)
        used[1].write(GET)
        assert b"connection: close" not in await until(used[0], b"ok")
        fresh = await asyncio.open_connection(*address)
        fresh[1].write(b"GET / HT")  # the server has it: it answers a request that came after it
        used[1].write(GET)
        await until(used[0], b"ok")
        stop.set()
        while await listens(address):  # noqa: ASYNC110 - nobody tells from outside
            await anyio.sleep(0.01)

        for reader, writer, request in ((*used, GET), (*fresh, GET[8:])):
            writer.write(request)
            with anyio.fail_after(DEADLINE_S):
                answer = await reader.read()  # to the end of the connection
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection: close" in answer
            writer.close()


async def listens(address: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address)
    except ConnectionError:  # refused, or reset with the queue that nobody accepts from any more
        return False
    writer.close()
    return True


async def test_a_socket_that_another_one_holds_outlives_the_server() -> None:
    """What a restart relies on: connections that nobody accepts yet wait in it."""
    kept = bind("127.0.0.1", 0)
    kept.listen()
    for _ in range(3):
        async with server.serving(app, socket.socket(fileno=dup(kept)), grace_s=1.0, limits=Limits(last_s=0.1)):
            pass
        reader, writer = await asyncio.open_connection(*kept.getsockname())
        writer.write(GET)
        async with server.serving(app, socket.socket(fileno=dup(kept)), grace_s=1.0, limits=Limits(last_s=0.1)):
            assert (await until(reader, b"ok")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
    kept.close()


def dup(sock: socket.socket) -> int:
    return sock.dup().detach()
