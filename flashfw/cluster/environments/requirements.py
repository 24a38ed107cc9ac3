"""What an environment shall hold: requirements as people write them and the worker's own, to one key."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flashfw.bundle.needs import WORKER, WORKER_NEEDS, Requirement, read
from flashfw.bundle.uv import uv_settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """An environment as asked for: `requirements` with the worker's own, the Python version, the key."""

    requirements: tuple[Requirement, ...]
    python: str
    root: Path
    key: str

    @property
    def asked(self) -> int:
        """How many requirements are not the worker's own."""
        return sum(requirement.asker != WORKER for requirement in self.requirements)

    @property
    def has_paths(self) -> bool:
        """Whether a part of the project itself is installed."""
        return any(requirement.path is not None for requirement in self.requirements)


def want(
    requirements: Sequence[str], *, python: str, root: Path, askers: Mapping[str, str], variables: Mapping[str, str]
) -> Wanted:
    """The environment for these requirements; equal keys mean that one environment does for both.

    `askers` names the place of each requirement by its text. `variables` is the machine's environment.

    Raises:
        EnvironmentFailed: a requirement is none, or names a path that is not there.
    """
    read_ones = [read(text, askers.get(text, "the project"), root) for text in requirements]
    own = [read(text, WORKER, root) for text in WORKER_NEEDS]
    parts = [
        *sorted({requirement.identity for requirement in read_ones}),
        *WORKER_NEEDS,
        python,
        sysconfig.get_platform(),
        *platform.libc_ver(),
        *uv_settings(root, variables),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return Wanted((*read_ones, *own), python, root, key)
