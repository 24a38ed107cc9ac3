"""Whether what was locked for one platform runs on another: names of platforms as uv writes them, compared."""

from __future__ import annotations

import platform as machines
import re
import sys

_MANYLINUX = re.compile(r"(?P<machine>.+)-manylinux_?(?P<glibc>2_\d+|2014)")
_OLD = {"2014": (2, 17)}
_LINUX = {"unknown-linux-gnu", "linux"}
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}


def platform_name() -> str:
    """This machine as uv names targets: `x86_64-manylinux_2_36`, `aarch64-apple-darwin`."""
    machine = _machine(machines.machine().lower())
    if sys.platform == "darwin":
        return f"{machine}-apple-darwin"
    library, version = machines.libc_ver()
    return f"{machine}-manylinux_{version.replace('.', '_')}" if library == "glibc" else f"{machine}-unknown-linux-musl"


def runs_on(built: str, host: str) -> bool:
    """Whether packages for the platform `built` run on `host`, as far as the names tell.

    >>> runs_on("x86_64-manylinux_2_28", "x86_64-manylinux_2_39")
    True
    >>> runs_on("x86_64-manylinux_2_28", "x86_64-manylinux_2_17")
    False
    >>> runs_on("aarch64-apple-darwin", "x86_64-manylinux_2_39")
    False
    """
    built_machine, built_system, built_glibc = _parts(built)
    machine, system, glibc = _parts(host)
    return (built_machine, built_system) == (machine, system) and built_glibc <= glibc


def _parts(platform: str) -> tuple[str, str, tuple[int, ...]]:
    """Machine, system, and the least glibc, which is () where the name does not tell."""
    if found := _MANYLINUX.fullmatch(platform):
        glibc = found["glibc"]
        return _machine(found["machine"]), "linux", _OLD.get(glibc) or tuple(map(int, glibc.split("_")))
    machine, _, system = platform.partition("-")
    if platform in _LINUX:
        return "x86_64", "linux", ()
    return _machine(machine), "linux" if system in _LINUX else system, ()


def _machine(name: str) -> str:
    return _MACHINES.get(name, name)
