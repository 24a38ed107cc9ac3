"""How much memory a worker holds."""

from __future__ import annotations

import os


def resident_bytes(pid: int) -> int:
    """The resident memory of a process in bytes; 0 where the machine does not tell (no such process, no /proc).

    Linux: the second field of /proc/PID/statm, in pages (proc(5)). Pages that it shares with others count.
    """
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
