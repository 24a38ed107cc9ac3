"""A server that does nothing but hold one worker: `python server.py STATE FOLDER SCRIPT`, to be killed by a test."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from flashfw.cluster.placement.process import ProcessPlacement
from tests.cluster.placement.workers import spec


async def main(state: Path, folder: Path, script: str) -> None:
    process = await ProcessPlacement(state).start(spec(folder, script))
    await anyio.wait_readable(process.sock)
    print(process.sock.recv(1000).decode().strip(), flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
