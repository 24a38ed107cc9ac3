"""Whether what is locked for a platform runs on this machine."""

from __future__ import annotations

import platform as machine
import re
import sys

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def is_here(platform: str) -> bool:
    """Whether this machine is of that platform: its system, its processor, and a C library that is new enough.

    >>> is_here("sparc-manylinux_2_28")
    False
    """
    architecture, _, system = platform.partition("-")
    here = machine.machine().lower()
    if architecture != _ARCHITECTURES.get(here, here):
        return False
    if system == "apple-darwin":
        return sys.platform == "darwin"
    return sys.platform == "linux" and _least_glibc(system) <= _glibc()


def _least_glibc(system: str) -> tuple[int, int]:
    """What the packages of a Linux may want of glibc; more than there is for a Linux without it."""
    if system.endswith("musl"):
        return (99, 0)
    found = re.fullmatch(r"manylinux_(\d+)_(\d+)", system)
    if found:
        return int(found[1]), int(found[2])
    return (2, 17) if system == "manylinux2014" else (2, 28)


def _glibc() -> tuple[int, int]:
    name, version = machine.libc_ver()
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if name == "glibc" and found else (0, 0)
