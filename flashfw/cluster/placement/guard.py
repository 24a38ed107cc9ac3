"""Kills the workers of a server that was killed. Run as a script of its own: it imports nothing of flashfw.

It reads `+PID` (a worker was started, leading a group of that id) and `-PID` (it ended) from stdin.
The end of stdin is the end of the server: every group that is left gets SIGKILL.

A worker notices the end of its link by itself, but not while C code holds its interpreter's lock. A parent
death signal (Linux) would end such a worker, and leave what that worker had started; hence this process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable


def left(lines: Iterable[bytes]) -> set[int]:
    """The groups that were started and have not ended, once the lines are over.

    >>> left([b"+12", b"+13", b"-12"])
    {13}
    """
    groups: set[int] = set()
    for line in lines:
        pid = int(line[1:])
        if line[:1] == b"+":
            groups.add(pid)
        else:
            groups.discard(pid)
    return groups


def main() -> None:
    """Wait for the end of stdin, then kill."""
    for group in left(sys.stdin.buffer):
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            pass


if __name__ == "__main__":
    main()
