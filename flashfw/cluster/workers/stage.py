"""Workers of a release that is to take over, while another one serves."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import anyio

from flashfw.manifest import Endpoint
from flashfw.worker.frames import Failure

LAST_LINES = 40


class Stage:
    """Workers that are brought up and take no calls yet. Lives until its pool switches to it or abandons it.

    `settled` is set once `wanted` workers are ready, or one of them failed: then `failure` says why, and `output` holds
    the last lines that the workers wrote.
    """

    def __init__(self, endpoint: Endpoint, root: Path, generation: int, wanted: int) -> None:
        self.endpoint = endpoint
        self.root = root
        self.generation = generation
        self.wanted = wanted
        self.ready = 0
        self.failure: Failure | None = None
        self.settled = anyio.Event()
        self.failed = anyio.Event()
        self.is_over = False
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        if not wanted:
            self.settled.set()

    @property
    def output(self) -> tuple[str, ...]:
        """The last lines that its workers wrote."""
        return tuple(self._lines)

    def hear(self, text: str) -> None:
        """A worker of it wrote something."""
        self._lines.extend(text.splitlines())

    def became_ready(self) -> None:
        """One of its workers could take calls now."""
        self.ready += 1
        if self.ready >= self.wanted:
            self.settled.set()

    def fail(self, failure: Failure) -> None:
        """One of its workers failed, at its start or after it; the first reason counts."""
        if not self.is_over and self.failure is None:
            self.failure = failure
            self.failed.set()
            self.settled.set()

    def end(self) -> None:
        """It took over, or was abandoned: what happens to its workers from now on is no failure of it."""
        self.is_over = True
