"""Where workers run: the protocol that every placement keeps."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """A worker to start. `environ` is its whole environment; nothing of the server's leaks into it."""

    worker: str
    endpoint: str
    python: Path
    overlay: Path
    root: Path
    environ: Mapping[str, str]


class Process(Protocol):
    """A started worker and all that it starts."""

    @property
    def pid(self) -> int:
        """The process id, for people."""
        ...

    @property
    def sock(self) -> socket.socket:
        """The gateway's end of the link: connected, non-blocking."""
        ...

    @property
    def last_output(self) -> str:
        """The last of what it wrote outside of the link, such as why the interpreter did not start."""
        ...

    async def wait(self) -> int:
        """Its exit code, negative for a signal. May be called more than once."""
        ...

    def kill(self) -> None:
        """End it and everything in its group at once."""
        ...


class Placement(Protocol):
    """Starts workers somewhere."""

    async def start(self, spec: WorkerSpec) -> Process:
        """Start a worker.

        Raises:
            PlacementError: it could not be started at all.
        """
        ...

    async def sweep(self) -> list[int]:
        """Kill what a dead server left behind; the process ids."""
        ...

    async def close(self) -> None:
        """Kill what still runs."""
        ...
