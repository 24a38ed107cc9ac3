"""A server that only holds one worker: `python server.py HOW STATE FOLDER SCRIPT`, to be killed by a test."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.placement.fork import ForkPlacement
from flashfw.cluster.placement.process import ProcessPlacement
from tests.cluster.placement.workers import spec


async def main(how: str, state: Path, folder: Path, script: str) -> None:
    placement = ForkPlacement(state, SystemClock()) if how == "fork" else ProcessPlacement(state)
    process = await placement.start(spec(folder, script))
    assert process.origin == {"fork": "forked", "process": "spawned"}[how], process.origin
    await anyio.wait_readable(process.sock)
    print(process.sock.recv(1000).decode().strip(), flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
