"""What processes use of the machine, read from /proc: CPU time and memory, of one process and of all below it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class Idle(NamedTuple):
    """What was used over a while, in percent of one core: by the process, and by all below it."""

    own_percent: float
    below_percent: float


def below(pid: int) -> set[int]:
    """The descendants of a process. A zygote's workers are its children, so they count."""
    found: set[int] = set()
    ahead = [pid]
    while ahead:
        for child in _children(ahead.pop()):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return found


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from map(int, task.read_text().split())
        except OSError:  # it has just ended
            continue


def cpu_s(pids: Collection[int]) -> float:
    """CPU time of those that live and of the children that they waited for."""
    return sum(_lived_s(pid) + _outlived_s(pid) for pid in pids)


def _lived_s(pid: int) -> float:
    """Of all its threads, those too that have ended, to the nanosecond: `stat` has ticks of 10 ms."""
    try:
        return time.clock_gettime(_clock_of(pid))
    except OSError:
        return 0.0


def _clock_of(pid: int) -> int:
    """As clock_getcpuclockid(3) makes it: the kernel's number for the CPU time of a process."""
    return ~pid << 3 | 2


def _outlived_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / TICKS


def resident_mb(pid: int) -> float:
    """Memory that a process has in RAM, with what it shares."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def proportional_mb(pids: Collection[int]) -> float:
    """Memory of several processes together, pages that they share counted once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6


def idle(pid: int, seconds: float) -> Idle:
    """What the process and those below it use while nobody asks for anything."""
    others = below(pid)
    own, rest = _lived_s(pid), cpu_s(others) + _outlived_s(pid)
    began = time.perf_counter()
    time.sleep(seconds)
    own, rest = _lived_s(pid) - own, cpu_s(others) + _outlived_s(pid) - rest
    spent = time.perf_counter() - began
    return Idle(100 * own / spent, 100 * rest / spent)


def settled(pid: int, *, quiet_percent: float, most_s: float) -> float:
    """Wait until the process and all below it have used little for a while; how long that took."""
    began = time.perf_counter()
    while time.perf_counter() - began < most_s:
        used = idle(pid, 2.0)
        if used.own_percent + used.below_percent < quiet_percent:
            break
    return time.perf_counter() - began
