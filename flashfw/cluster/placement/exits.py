"""Hears that a child process ended, without polling and without taking its exit code away."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from collections.abc import Callable


def on_exit(pid: int, heard: Callable[[], None]) -> None:
    """Call `heard` once on the running loop when the child `pid` has ended.

    The child stays a zombie until it is waited for, so its id is nobody else's meanwhile.
    """
    descriptor = pidfd(pid)
    if descriptor is not None:
        on_readable(descriptor, heard)
        return
    loop = asyncio.get_running_loop()
    threading.Thread(target=_wait, args=(pid, loop, heard), name="flashfw-exit", daemon=True).start()


def on_readable(descriptor: int, heard: Callable[[], None]) -> None:
    """Call `heard` once on the running loop when the descriptor is readable, and close it then."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        heard()

    loop.add_reader(descriptor, ended)


def pidfd(pid: int) -> int | None:
    """A descriptor that is readable once the process has ended; None where the kernel has none."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # Linux before 5.3, or a sandbox that forbids it
        return None


def _wait(pid: int, loop: asyncio.AbstractEventLoop, heard: Callable[[], None]) -> None:
    until_ended(pid)
    try:
        loop.call_soon_threadsafe(heard)
    except RuntimeError:
        pass  # the loop is closed: nobody waits any more


def until_ended(pid: int) -> None:
    """Block until the child has ended; it stays a zombie."""
    if sys.platform == "linux":
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    queue = select.kqueue()
    event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT)
    try:
        queue.control([event], 1)
    except ProcessLookupError:
        pass  # it has ended before
    finally:
        queue.close()
