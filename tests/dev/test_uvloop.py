"""How a loop of uvloop ends, on which `flashfw dev` and `flashfw serve` run."""

from __future__ import annotations

import subprocess
import sys

LEFT_OPEN = """
import asyncio
import socket
import uvloop

kept = []

async def leaves_open():
    ours, theirs = socket.socketpair()
    kept.append((theirs, await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)))

loop = uvloop.new_event_loop()
loop.run_until_complete(leaves_open())
loop.close()
"""


def test_a_process_ends_whatever_was_left_open() -> None:
    """`close` closes what is open, and tells of it by a ResourceWarning.

    Where that is an error, as in tests, it stops before it has closed it, and waits for ever: see the filter in
    pyproject.toml.
    """
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], timeout=60, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_left_open_does_not_hang_a_test_but_is_told() -> None:
    code = f"import warnings\nwarnings.simplefilter('error')\nwarnings.filterwarnings({FILTER})\n{LEFT_OPEN}"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)

    assert done.returncode == 0
    assert "ResourceWarning: unclosed resource <UnixTransport" in done.stderr


FILTER = "'always', 'unclosed resource <', ResourceWarning"
"""As in pyproject.toml."""
