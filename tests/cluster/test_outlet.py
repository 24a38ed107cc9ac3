"""What is written in one turn of the loop leaves in one piece, in order, and none of it is lost at the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from flashfw.cluster.outlet import FULL_BYTES, Outlet

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Outlet, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, sock=ours)
    with theirs:
        yield Outlet(transport), theirs
        transport.abort()
        await asyncio.sleep(0)


async def test_what_goes_at_once_goes_after_what_was_written(ends: tuple[Outlet, socket.socket]) -> None:
    outlet, theirs = ends
    outlet.write_now(b"alone")
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"alone"
    outlet.write(b"one ")
    outlet.write_now(b"two")
    outlet.write(b" three")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert theirs.recv(100) == b"one two three"


async def test_pieces_of_one_turn_go_together(ends: tuple[Outlet, socket.socket]) -> None:
    outlet, theirs = ends
    outlet.write(b"head ")
    outlet.write(b"body")

    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"head body"

    outlet.write(b"more")
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"more"


async def test_a_piece_without_content_holds_up_no_end(ends: tuple[Outlet, socket.socket]) -> None:
    outlet, theirs = ends
    outlet.write(b"head")
    outlet.write(b"")
    outlet.close()
    for _ in range(3):
        await asyncio.sleep(0)

    assert (theirs.recv(100), theirs.recv(100)) == (b"head", b"")


async def test_much_is_not_collected(ends: tuple[Outlet, socket.socket]) -> None:
    outlet, theirs = ends
    outlet.write(b"x" * FULL_BYTES)

    assert theirs.recv(10) == b"x" * 10


async def test_what_was_written_before_the_end_is_sent(ends: tuple[Outlet, socket.socket]) -> None:
    outlet, theirs = ends
    outlet.write(b"last words")
    outlet.close()
    outlet.write(b"too late")
    await asyncio.sleep(0)

    assert theirs.recv(100) == b"last words"
    assert outlet.is_closing()
