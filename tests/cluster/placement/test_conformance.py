"""What every placement promises, over the one that serves and the one that tests play with."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

import flashfw
from flashfw.cluster.clock import SystemClock
from flashfw.cluster.placement.base import Placement, PlacementError, Process, WorkerSpec
from flashfw.cluster.placement.fork import ForkPlacement
from flashfw.cluster.placement.process import ProcessPlacement
from flashfw.worker.frames import Frame, Frames, Kind, pack
from tests.cluster.placement.workers import spec
from tests.cluster.scripted import ScriptedPlacement

pytestmark = pytest.mark.anyio

ANSWERING = f"""
import socket, sys
sys.path.insert(0, {str(Path(flashfw.__file__).parent.parent)!r})
from flashfw.worker.frames import Frames, Kind, pack
link, frames = socket.socket(fileno=int(sys.argv[1])), Frames()
while data := link.recv(65536):
    for frame in frames.feed(data):
        if frame.kind is Kind.START:
            link.sendall(pack(Kind.READY, 0, {{"pid": 1, "import_s": 0.1, "fixtures_s": {{}}, "files": []}}))
        elif frame.kind is Kind.DRAIN:
            sys.exit(0)
sys.exit(1)
"""
"""As much of a worker as this suite asks of one."""

PLACEMENTS: dict[str, Callable[[Path], Placement]] = {
    "process": ProcessPlacement,
    "fork": lambda state: ForkPlacement(state, SystemClock()),
    "scripted": lambda state: ScriptedPlacement(),
}


@pytest.fixture(params=PLACEMENTS)
async def placement(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Placement]:
    made = PLACEMENTS[request.param](tmp_path / "state")
    yield made
    with anyio.CancelScope(shield=True):
        await made.close()


def a_worker(folder: Path, name: str = "w-1") -> WorkerSpec:
    return spec(folder, ANSWERING, worker=name)


async def exchange(process: Process, kind: Kind) -> list[Frame]:
    """Say one thing, and what came until there was an answer or the end."""
    loop, frames = asyncio.get_running_loop(), Frames()
    await loop.sock_sendall(process.sock, pack(kind, 0, {"describe": False}))
    while data := await loop.sock_recv(process.sock, 65536):
        if found := list(frames.feed(data)):
            return found
    return []


async def test_a_worker_answers_over_its_link_and_ends_when_it_is_drained(placement: Placement, tmp_path: Path) -> None:
    process = await placement.start(a_worker(tmp_path))
    with process.sock:
        assert not process.sock.getblocking()
        assert [frame.kind for frame in await exchange(process, Kind.START)] == [Kind.READY]
        assert await exchange(process, Kind.DRAIN) == []
        assert await process.wait() == 0


async def test_a_kill_is_told_to_all_who_wait_and_ends_the_link(placement: Placement, tmp_path: Path) -> None:
    process = await placement.start(a_worker(tmp_path))
    with process.sock:
        await exchange(process, Kind.START)
        waiting = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        process.kill()

        assert await asyncio.gather(*waiting) == [-signal.SIGKILL] * 3
        assert await asyncio.get_running_loop().sock_recv(process.sock, 1) == b""
        process.kill()
        assert await process.wait() == -signal.SIGKILL


async def test_a_worker_that_loses_its_gateway_ends(placement: Placement, tmp_path: Path) -> None:
    process = await placement.start(a_worker(tmp_path))
    process.sock.close()

    assert await process.wait() != 0


async def test_workers_are_apart(placement: Placement, tmp_path: Path) -> None:
    first, second = [await placement.start(a_worker(tmp_path, name)) for name in ("w-1", "w-2")]
    with first.sock, second.sock:
        first.kill()
        await first.wait()

        assert first.pid != second.pid
        assert [frame.kind for frame in await exchange(second, Kind.START)] == [Kind.READY]


async def test_a_cancelled_start_loses_no_worker(placement: Placement, tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        process = await placement.start(a_worker(tmp_path))
    with process.sock:
        assert await exchange(process, Kind.START)


async def test_close_ends_all_and_refuses_more(placement: Placement, tmp_path: Path) -> None:
    processes = [await placement.start(a_worker(tmp_path, name)) for name in ("w-1", "w-2")]
    await placement.close()

    assert [await process.wait() for process in processes] == [-signal.SIGKILL] * 2
    with pytest.raises(PlacementError, match="a worker of a: the server is stopping"):
        await placement.start(a_worker(tmp_path, "w-3"))
    for process in processes:
        process.sock.close()


async def test_there_is_nothing_to_sweep_where_nothing_was_left(placement: Placement) -> None:
    assert await placement.sweep() == []
