"""Uploads as they go, on stderr: one line that moves on a terminal, else one line per layer once it is there."""

from __future__ import annotations

import sys
import threading
import time

from flashfw.build.words import amount
from flashfw.bundle.release import Release
from flashfw.cli import output

_EVERY_S = 0.1


NAMED = 3
"""How many endpoints a layer of packages is named after."""


class Uploads:
    """What was sent so far of each layer; hears it from several threads. A context manager, so that the line ends."""

    def __init__(self, release: Release) -> None:
        self._names = {found.layer.digest: f"packages of {_users(release, found.key)}" for found in release.packages}
        self._names[release.source.digest] = "source"
        self._sent: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._is_live = sys.stderr.isatty()
        self._drawn_at = 0.0

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._is_live and self._sent:
            output.note()

    def progress(self, digest: str, sent: int, total: int) -> None:
        """Hears that so many bytes of a layer are on their way."""
        with self._lock:
            self._sent[digest] = (sent, total)
            if self._is_live:
                self._draw(is_last=sent == total)
            elif sent == total:
                output.note(f"  sent {self._names.get(digest, digest[:12])}, {amount(total)}")

    def _draw(self, *, is_last: bool) -> None:
        now = time.monotonic()
        if not is_last and now - self._drawn_at < _EVERY_S:
            return
        self._drawn_at = now
        sent, total = (sum(part[side] for part in self._sent.values()) for side in (0, 1))
        layers = output.plural(len(self._sent), "layer")
        share = 100 * sent // total if total else 100
        print(f"\r  sending {layers}: {share:3}% of {amount(total)}\x1b[K", end="", file=sys.stderr, flush=True)


def _users(release: Release, key: str) -> str:
    """The endpoints whose packages those of a key are."""
    users = [endpoint.id for endpoint in release.manifest.endpoints if endpoint.environment == key]
    more = f" and {len(users) - NAMED} more" if len(users) > NAMED else ""
    return output.printable(", ".join(users[:NAMED]) + more)
