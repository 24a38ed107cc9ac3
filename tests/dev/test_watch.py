"""What counts as saved, over a real folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream

from flashfw.dev.watch import changes, look

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[MemoryObjectReceiveStream[frozenset[str]]]:
    """The sets of changes of a folder, from when its watcher has proved that it sees them."""
    stop = anyio.Event()
    send, receive = anyio.create_memory_object_stream[frozenset[str]](100)

    async def watch() -> None:
        with send:
            async for batch in changes(folder, since=look(folder), stop=stop):
                await send.send(batch)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with anyio.fail_after(60):
            await _is_seen(folder, receive)
            with receive:
                yield receive
        stop.set()


async def _is_seen(folder: Path, receive: MemoryObjectReceiveStream[frozenset[str]]) -> None:
    number = 0
    while True:
        number += 1
        (folder / "probe.txt").write_text(str(number))
        with anyio.move_on_after(0.5):
            await receive.receive()
            break
    await _after(folder, receive)


async def _after(folder: Path, receive: MemoryObjectReceiveStream[frozenset[str]]) -> set[str]:
    """All that was seen until a file that is saved now is seen too."""
    (folder / "end.txt").write_text("x")
    seen: set[str] = set()
    while "end.txt" not in seen:
        seen |= await receive.receive()
    (folder / "end.txt").unlink()
    while "end.txt" not in await receive.receive():
        pass
    return seen - {"end.txt", "probe.txt"}


async def test_files_are_seen_as_they_come_change_and_go(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("1")
    (tmp_path / "gone.py").write_text("1")
    async with watching(tmp_path) as receive:
        (tmp_path / "lib").mkdir()
        (tmp_path / "new.py").write_text("1")
        (tmp_path / "old.py").write_text("2")
        (tmp_path / "gone.py").unlink()

        assert await _after(tmp_path, receive) == {"lib", "new.py", "old.py", "gone.py"}


async def test_a_file_that_editors_write_beside_another_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("1")
    async with watching(tmp_path) as receive:
        (tmp_path / "sedI0mqKu").write_text("2")
        (tmp_path / "sedI0mqKu").replace(tmp_path / "handler.py")

        assert await _after(tmp_path, receive) == {"handler.py"}


async def test_state_caches_and_version_control_are_not_seen(tmp_path: Path) -> None:
    for name in (".flashfw", ".git", "__pycache__", ".venv", "node_modules", ".mypy_cache"):
        (tmp_path / name).mkdir()
    async with watching(tmp_path) as receive:
        for name in (".flashfw/jobs.sqlite", ".git/HEAD", "__pycache__/a.pyc", ".venv/x.py", "node_modules/x.js"):
            (tmp_path / name).write_text("1")

        assert await _after(tmp_path, receive) == set()


async def test_what_was_saved_before_anybody_watched_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("1")
    seen, stop = look(tmp_path), anyio.Event()
    (tmp_path / "old.py").write_text("22")
    (tmp_path / "endpoints" / "new").mkdir(parents=True)
    (tmp_path / "endpoints" / "new" / "handler.py").write_text("1")
    with anyio.fail_after(60):
        async for batch in changes(tmp_path, since=seen, stop=stop):
            assert batch == {"old.py", "endpoints/new/handler.py"}
            stop.set()


async def test_what_is_not_of_the_project_is_not_even_heard_of(tmp_path: Path) -> None:
    for name in (".flashfw", "endpoints/a", "endpoints/a/__pycache__", ".venv/lib", "web/node_modules/x"):
        (tmp_path / name).mkdir(parents=True)
    async with watching(tmp_path):
        heard = watched()
        project = [tmp_path, *(tmp_path / name for name in ("endpoints", "endpoints/a", "web"))]
        others = [tmp_path / name for name in (".flashfw", "endpoints/a/__pycache__", ".venv", "web/node_modules")]
        assert [folder.stat().st_ino in heard for folder in project] == [True] * 4
        assert [folder.stat().st_ino in heard for folder in others] == [False] * 4


async def test_files_of_folders_that_come_while_others_do_are_all_seen(tmp_path: Path) -> None:
    made = {f"endpoints/e{number}/{name}.py" for number in range(30) for name in ("handler", "lib/more")}
    async with watching(tmp_path) as receive:
        for name in sorted(made):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("1")
            await anyio.sleep(0.005)

        seen = await _after(tmp_path, receive)
        assert {name for name in seen if name.endswith(".py")} == made
        (tmp_path / "endpoints/e7/lib/more.py").write_text("2")
        assert await _after(tmp_path, receive) == {"endpoints/e7/lib/more.py"}


async def test_folders_that_are_moved_removed_and_come_again_are_followed(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    for folder in (project / "endpoints" / "old", outside):
        folder.mkdir(parents=True)
        (folder / "handler.py").write_text("1")
    old, new = project / "endpoints/old", project / "endpoints/new"
    async with watching(project) as receive:
        old.rename(new)
        assert {"endpoints/old/handler.py", "endpoints/new/handler.py"} <= await _after(project, receive)
        (new / "handler.py").write_text("2")
        assert await _after(project, receive) == {"endpoints/new/handler.py"}

        shutil.rmtree(new)
        new.mkdir()
        (new / "handler.py").write_text("3")
        assert "endpoints/new/handler.py" in await _after(project, receive)
        (new / "handler.py").write_text("4")
        assert await _after(project, receive) == {"endpoints/new/handler.py"}

        (project / "lib").symlink_to(outside)
        (outside / "loop").symlink_to(outside)
        assert "lib/handler.py" in await _after(project, receive)
        (outside / "handler.py").write_text("2")
        assert await _after(project, receive) == {"lib/handler.py"}

        new.rename(tmp_path / "gone")
        assert "endpoints/new/handler.py" in await _after(project, receive)


def watched() -> set[int]:
    """The inodes that this process has the system watch."""
    found = set()
    for descriptor in Path("/proc/self/fdinfo").iterdir():
        with suppress(OSError):
            text = descriptor.read_text()
            found.update(int(ino, 16) for ino in re.findall(r"^inotify wd:\w+ ino:(\w+)", text, re.MULTILINE))
    return found
