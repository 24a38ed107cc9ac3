from __future__ import annotations

import asyncio
import socket

import pytest

from flashfw.cluster.workers.link import Link
from flashfw.worker.frames import Frame, Kind, pack

pytestmark = pytest.mark.anyio


class Ends:
    """A link and the worker's bare end of its socket."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost: list[str] = []

    async def open(self) -> Ends:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self.theirs.setblocking(False)
        self.link = await Link.over(ours, self.frames.append, self.lost.append)
        return self

    async def turn(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)


async def test_frames_come_in_order_however_they_are_cut() -> None:
    ends = await Ends().open()
    data = b"".join(pack(Kind.RESULT, number, {"n": number}, b"x" * number) for number in range(20))
    for start in range(0, len(data), 7):
        ends.theirs.send(data[start : start + 7])
        await ends.turn()

    assert [(frame.call, len(frame.body)) for frame in ends.frames] == [(number, number) for number in range(20)]
    ends.theirs.close()


async def test_the_end_is_told_once_after_all_that_came_before_it() -> None:
    ends = await Ends().open()
    ends.theirs.send(pack(Kind.RESULT, 1, None, b"1"))
    ends.theirs.close()
    await ends.turn()

    assert [frame.kind for frame in ends.frames] == [Kind.RESULT]
    assert ends.lost == ["the link ended"]
    ends.link.send(Kind.DRAIN)  # swallowed
    ends.link.close()
    await ends.turn()
    assert len(ends.lost) == 1


@pytest.mark.parametrize(
    "data", [b"\xff" * 16, pack(Kind.RESULT, 1)[:4] + b"\xff" * 12, b"\x13\0\0\0\0\0\0\1\0\0\0\1\0\0\0\0{"]
)
async def test_what_is_no_frame_ends_the_link_and_says_so(data: bytes) -> None:
    ends = await Ends().open()
    ends.theirs.send(data)
    await ends.turn()

    assert ends.frames == []
    assert "something that is no frame" in ends.lost[0]
    assert ends.theirs.recv(1) == b""
    ends.theirs.close()
