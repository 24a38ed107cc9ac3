"""Notes on disk of the workers that run, for the next server: what a dead one left, and never a stranger."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from flashfw import whole
from flashfw.cluster.placement.tree import start_time


@dataclass(frozen=True, slots=True)
class Identity:
    """One process and no other: its id may be used again, but not with the same start time."""

    pid: int
    started: str

    @property
    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started


def identity(pid: int) -> Identity:
    """Who `pid` is now. One that has already ended is nobody: it is never alive."""
    return Identity(pid, start_time(pid) or "")


@dataclass(frozen=True, slots=True)
class Record:
    """A worker and the server that it belongs to."""

    worker: Identity
    server: Identity

    @property
    def is_orphan(self) -> bool:
        """Whether the worker runs and its server does not."""
        return self.worker.is_alive and not self.server.is_alive

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to find by it."""
        return not self.worker.is_alive


class Records:
    """The notes in one folder, one file per worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = identity(os.getpid())

    def write(self, worker: str, pid: int) -> Path:
        """Note that a worker runs.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{worker}.json"
        whole.write(path, json.dumps(asdict(Record(identity(pid), self._server))))
        return path

    def read(self) -> Iterator[tuple[Path, Record | None]]:
        """Every note, None for one that cannot be understood."""
        for path in sorted(self._folder.glob("*.json")):
            yield path, _parsed(path)


def _parsed(path: Path) -> Record | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return Record(
            *(Identity(int(value[side]["pid"]), str(value[side]["started"])) for side in ("worker", "server"))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
