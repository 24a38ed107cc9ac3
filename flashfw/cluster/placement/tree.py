"""Processes of this machine by id: when they started, what they started, and how to end all of that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def start_time(pid: int) -> str | None:
    """When a process started, in a form that only compares; None if it does not run.

    Process ids are used again; the pair of id and start time is not. On Linux the time is in clock
    ticks since boot (proc(5), field 22 of stat), hence the boot's id with it; elsewhere what ps says.
    """
    if sys.platform != "linux":
        shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return shown.stdout.strip() or None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The name may hold spaces and brackets; what follows the last one is state, parent, group, ...
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, also those that left its group. Linux; empty elsewhere."""
    found: list[int] = []
    ahead = [pid]
    while ahead:
        children = _children(ahead.pop())
        found += children
        ahead += children
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL to the group that `pid` leads and to all processes below it; nothing happens if they are gone.

    The list is taken first: once a parent is dead, nothing tells whose children its orphans were.
    """
    below = descendants(pid)
    kill_group(pid)
    for other in below:
        _kill(other)


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that `pid` leads; nothing happens if it is gone."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS refuses a group of zombies with the latter
        pass


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
            found += map(int, text.split())
    except OSError:
        pass  # it ended meanwhile, or this machine does not tell
    return found
