"""Where workers run: the protocol that every placement keeps."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flashfw.errors import FlashfwError


class PlacementError(FlashfwError):
    """A worker could not be started at all."""


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """A worker to start. `environ` is its whole environment; nothing of the server's leaks into it.

    `worker` is unique among the workers of a server and fit for a file name; `python` runs
    `run_worker.py` of `overlay` in the directory `root`. `secrets` are the names of those variables that nobody
    but the worker may see; `preload` are modules that it will import whatever it is asked.
    """

    worker: str
    endpoint: str
    python: Path
    overlay: Path
    root: Path
    environ: Mapping[str, str]
    secrets: frozenset[str] = frozenset()
    preload: tuple[str, ...] = ()


class Process(Protocol):
    """A started worker and all that it starts."""

    @property
    def pid(self) -> int:
        """The process id, for people."""
        ...

    @property
    def sock(self) -> socket.socket:
        """The gateway's end of the link: connected, non-blocking. Whoever takes it closes it."""
        ...

    @property
    def origin(self) -> str:
        """How it came to be, for people: `"forked"`, `"spawned"`, or `"spawned: "` and why it was not forked."""
        ...

    @property
    def last_output(self) -> str:
        """The last of what it wrote outside of the link, such as why the interpreter did not start.

        Whole once `wait` has returned.
        """
        ...

    async def wait(self) -> int:
        """Its exit code, negative for a signal. Any number of callers; whatever it started is gone as well."""
        ...

    def kill(self) -> None:
        """End it and everything that it started, at once; nothing happens once it has ended."""
        ...


class Placement(Protocol):
    """Starts workers somewhere. Lives as long as its server."""

    async def start(self, spec: WorkerSpec) -> Process:
        """Start a worker. A cancellation arrives after the start, so that no worker is lost between.

        Raises:
            PlacementError: it could not be started at all.
        """
        ...

    async def prepare(self, spec: WorkerSpec) -> None:
        """Do ahead what the start of such a worker would wait for, if there is something; never raises."""
        ...

    async def sweep(self) -> list[int]:
        """Kill what a dead server left behind; the process ids."""
        ...

    async def close(self) -> None:
        """Kill what still runs, and start nothing more."""
        ...
