"""What a zygote is made of: workers whose recipes are equal can be forked off one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flashfw.cluster.placement.base import WorkerSpec

LAUNCHER = "run_zygote.py"

READ_ONCE = frozenset(("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR")) | frozenset(
    ("HF_HOME", "HF_HUB_OFFLINE", "TORCH_HOME")
)
READ_ONCE_PREFIXES = ("LC_", "LD_", "PYTHON", "PYDANTIC_", "MALLOC_", "GLIBC_", "XDG_", "OMP_", "MKL_", "OPENBLAS_")
"""Variables that the linker, the C library, Python, or modules while they are imported read once. A worker forked off a
process that has them otherwise would not be what a fresh one is."""


@dataclass(frozen=True)
class Recipe:
    """An interpreter in an environment as it is now, what it imports, and under which variables.

    `state` changes when packages of the environment do.
    """

    python: Path
    overlay: Path
    preload: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    state: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, spec: WorkerSpec) -> Recipe:
        """The zygote that a worker can be forked off. It imports no module of the project: those change."""
        own = names_in(spec.root, with_plain_folders=True)
        return cls(
            python=spec.python,
            overlay=spec.overlay,
            preload=tuple(name for name in spec.preload if name.partition(".")[0] not in own),
            environ=tuple(sorted((name, spec.environ[name]) for name in spec.environ if is_read_once(name))),
            state=tuple(_state(spec.python)),
        )


def is_read_once(name: str) -> bool:
    """Whether a variable may have been read by the time that a worker is forked.

    >>> [is_read_once(name) for name in ("LD_LIBRARY_PATH", "TZ", "CUDA_VISIBLE_DEVICES", "API_KEY")]
    [True, True, False, False]
    """
    return name in READ_ONCE or name.startswith(READ_ONCE_PREFIXES)


def names_in(root: Path, *, with_plain_folders: bool) -> frozenset[str]:
    """The top-level modules and packages that a project has; empty if it cannot be read.

    A folder without `__init__.py` is a package only where no other place has one of that name.
    """
    try:
        with os.scandir(root) as found:
            return frozenset(_names(found, with_plain_folders)) | {"endpoints"}
    except OSError:
        return frozenset()


def _names(found: Iterator[os.DirEntry[str]], with_plain_folders: bool) -> Iterator[str]:
    for entry in found:
        if entry.name.endswith((".py", ".so")):
            yield entry.name.partition(".")[0]
        elif entry.name.isidentifier() and _is_package(entry.path, with_plain_folders):
            yield entry.name


def _is_package(path: str, with_plain_folders: bool) -> bool:
    return os.path.isdir(path) if with_plain_folders else os.path.isfile(f"{path}/__init__.py")


def _state(python: Path) -> Iterator[tuple[str, int]]:
    """What lies in an environment. A package that is installed anew lies in a new folder, under the same name too."""
    environment = python.parent.parent
    for folder in (environment, *sorted(environment.glob("lib/python*/site-packages"))):
        with os.scandir(folder) as found:
            # Python itself makes `__pycache__` when it first imports something.
            yield from sorted((entry.name, entry.inode()) for entry in found if entry.name != "__pycache__")
