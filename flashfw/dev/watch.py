"""Which project files were saved: watchfiles, less what no endpoint could depend on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from watchfiles import Change, DefaultFilter, awatch

DEBOUNCE_MS = 50
STEP_MS = 10


class ProjectFilter(DefaultFilter):
    """Leaves out state, version control, caches, environments and editors' temporary files."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, ".flashfw", ".ruff_cache")

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __call__(self, change: Change, path: str) -> bool:
        """Only what lies below the root counts: a project may itself lie in a folder that is ignored elsewhere."""
        try:
            relative = Path(path).relative_to(self._root)
        except ValueError:
            return False
        return super().__call__(change, str(relative))


async def changes(root: Path, *, stop: anyio.Event) -> AsyncIterator[frozenset[str]]:
    """Sets of saved, added or deleted files, as POSIX paths below `root`, until `stop`.

    A file that came and went within a set is left out: editors write beside a file before they replace it.
    """
    real = root.resolve()
    watcher = awatch(real, watch_filter=ProjectFilter(real), debounce=DEBOUNCE_MS, step=STEP_MS, stop_event=stop)
    async for batch in watcher:
        came = {path for change, path in batch if change is Change.added}
        saved = {path for _, path in batch if path not in came or os.path.lexists(path)}
        if saved:
            yield frozenset(Path(path).relative_to(real).as_posix() for path in saved)
