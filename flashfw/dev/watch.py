"""Which project files were saved: watchfiles, less what no endpoint could depend on.

Each folder of the project is watched by itself: watched as one tree, the system would tell of every write to the job
store in `.flashfw`, and of environments and version control. A folder that comes has all of them watched anew, and
what happened meanwhile is found by comparing what lies there.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from watchfiles import Change, DefaultFilter, awatch

DEBOUNCE_MS = 50
STEP_MS = 25
"""Between looks at what came, and without news before it is told: an idle `dev` does little else than to look."""

Batch = set[tuple[Change, str]]
Mark = tuple[int, int, int]
"""When a file changed, its size, and which one it is."""


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


@dataclass
class Seen:
    """What lies in a project: its folders, and its files as they were when they were last told of."""

    folders: set[str]
    files: dict[str, Mark]

    def take(self, paths: set[str]) -> None:
        """These are told of as they are now."""
        for path in paths:
            self.files.pop(path, None)
            if (mark := _mark(path)) is not None:
                self.files[path] = mark

    def unlike(self, now: Seen) -> set[str]:
        """The files that came, changed or went until `now`."""
        return {path for path, _ in self.files.items() ^ now.files.items()}


async def changes(root: Path, *, since: Seen, stop: anyio.Event) -> AsyncIterator[frozenset[str]]:
    """Sets of files saved, added or deleted `since` they were seen, as POSIX paths below `root`, until `stop`.

    A file that came and went within a set is left out: editors write beside a file before they replace it.
    """
    real = root.resolve()
    wanted = ProjectFilter(real)
    seen, saved = since, set[str]()
    while not stop.is_set():
        async with _watching(seen.folders, wanted, stop) as following:
            now = await anyio.to_thread.run_sync(look, root)
            saved |= seen.unlike(now)
            seen, is_whole = now, now.folders == seen.folders
            while is_whole:
                if saved:
                    yield frozenset(Path(path).relative_to(real).as_posix() for path in saved)
                    saved = set()
                if (batch := await following()) is None:
                    break
                came = {path for change, path in batch if change is Change.added}
                saved = {path for _, path in batch if path not in came or os.path.lexists(path)}
                seen.take(saved)
                is_whole = not any(path in seen.folders or os.path.isdir(path) for _, path in batch)


@asynccontextmanager
async def _watching(
    folders: set[str], wanted: ProjectFilter, stop: anyio.Event
) -> AsyncIterator[Callable[[], Awaitable[Batch | None]]]:
    """Have folders watched from when the block begins; what comes of them, or None at the end, or where one is gone."""
    end = _End(stop)
    watch = awatch(
        *folders,
        watch_filter=wanted,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        stop_event=end,  # as much of an event as it needs
        recursive=False,
        ignore_permission_denied=True,
    )
    waiting = asyncio.ensure_future(_next(watch))
    await asyncio.sleep(0)  # it begins, and waits for nothing before it has the folders watched

    async def following() -> Batch | None:
        nonlocal waiting
        batch = await waiting
        waiting = asyncio.ensure_future(_next(watch))
        return batch

    try:
        yield following
    finally:
        end.set()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(waiting, return_exceptions=True)  # whatever became of what nobody waits for
            await watch.aclose()


async def _next(watch: AsyncGenerator[Batch, None]) -> Batch | None:
    try:
        return await anext(watch, None)
    except FileNotFoundError:  # a folder went before it was watched
        await asyncio.sleep(STEP_MS / 1000)
        return None


class _End:
    """The end of one watch, which is also that of all."""

    def __init__(self, stop: anyio.Event) -> None:
        self._stop = stop
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set or self._stop.is_set()


def look(root: Path) -> Seen:
    """What lies in a project now. Links to folders are followed, but to one that they lie in."""
    seen, real = Seen(set(), {}), root.resolve()
    wanted = ProjectFilter(real)
    left: list[tuple[str, tuple[str, ...]]] = [(str(real), (str(real),))]
    while left:
        folder, within = left.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:  # it went, or may not be read
            continue
        seen.folders.add(folder)
        for entry in entries:
            if not wanted(Change.added, entry.path) or not _is_text(entry.name):
                continue
            if entry.is_dir():
                lies = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(within[-1], entry.name)
                if lies not in within:
                    left.append((entry.path, (*within, lies)))
            elif (mark := _mark(entry.path)) is not None:
                seen.files[entry.path] = mark
    return seen


def _mark(path: str) -> Mark | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return None if stat.S_ISDIR(found.st_mode) else (found.st_mtime_ns, found.st_size, found.st_ino)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # watchfiles takes none that is not
        return False
    return True
