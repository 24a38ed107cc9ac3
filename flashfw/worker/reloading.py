"""Taking saved files into a running worker: modules imported anew beside those that calls run on, then one switch."""

from __future__ import annotations

import asyncio
import importlib
import linecache
import sys
import time
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Protocol

from flashfw import manifest
from flashfw.worker import load
from flashfw.worker.frames import Kind, Reload, Reloaded
from flashfw.worker.link import Link
from flashfw.worker.reload import Anew, Module, Restart, decide
from flashfw.worker.service import BrokenFunction, Service
from flashfw.worker.threads import Threads


class Host(Protocol):
    """The worker whose functions are replaced."""

    link: Link

    @property
    def service(self) -> Service:
        """What serves the next call."""

    def renew(self, service: Service) -> list[str]:
        """Serve by another service from the next call on; the project files that are loaded now."""


class Reloading:
    """Takes saved files into one worker, one save after the other. On the loop; lives as long as the worker."""

    def __init__(self, host: Host, root: Path, kept: load.Kept) -> None:
        self._host = host
        self._root = root.resolve()
        self._kept = kept
        self._modules: dict[str, Module] = {}
        self._asked: Reload | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self, asked: Reload) -> None:
        """Take in what was saved. Asked again meanwhile, only the last is done: it names all files that are left."""
        self._asked = asked
        if self._task is None or self._task.done():
            name = f"{self._host.service.endpoint.id} (importing what was saved)"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def _run(self) -> None:
        while (asked := self._asked) is not None:
            self._asked = None
            begun = time.monotonic()
            why = await self._take_in(asked)
            took_s = round(time.monotonic() - begun, 4)
            files = load.loaded_files(self._root)
            answer = Reloaded(number=asked["number"], files=files, took_s=took_s)
            self._host.link.send(Kind.RELOADED, 0, {**answer, "why": why} if why else answer)

    async def _take_in(self, asked: Reload) -> str:
        """Why that cannot be; empty if calls meet the new code from now on. Never raises."""
        endpoint = manifest.decode(manifest.Endpoint, asked["endpoint"])
        reader = Threads(1)  # not the user's threads: those may be busy for long
        try:
            return await self._renew(endpoint, asked["files"], reader)
        except BaseException as error:  # the user's modules, whatever they raise
            file = ""
            if isinstance(error, BrokenFunction):
                file, error = f"{error.function.file}: ", error.__cause__ or error
            return f"{file}{type(error).__name__} as it was taken into the running worker"
        finally:
            reader.close()

    async def _renew(self, endpoint: manifest.Endpoint, files: Collection[str], reader: Threads) -> str:
        before = self._host.service
        step = await reader.run(self._decide, before.endpoint, endpoint, files)
        if isinstance(step, Restart):
            return step.why
        after, dropped = before.renewed(endpoint), Dropped(step.modules, self._kept)
        try:
            # On this thread, as at the start: what a module makes may belong to it, as a connection of sqlite3 does.
            self._load(after, dropped)
            await after.build()
        except BaseException:
            dropped.restore()
            before.fixtures.forget()
            await after.leave(before)
            raise
        self._host.renew(after)
        return ""

    def _decide(self, before: manifest.Endpoint, after: manifest.Endpoint, files: Collection[str]) -> Anew | Restart:
        modules = self._loaded()
        texts: dict[str, set[bytes | None]] = {}
        for module in modules.values():
            texts.setdefault(module.file, set()).add(module.source)
        saved = [file for file in files if texts.get(file) != {_read(self._root / file)}]
        return decide(before, after, saved=saved, modules=modules)

    def _loaded(self) -> dict[str, Module]:
        """The project's modules; those that are as before keep what was found out about them."""
        found: dict[str, Module] = {}
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and load.is_project_file(file, self._root):
                known, source = self._modules.get(name), self._kept.get(name)
                path = Path(file).relative_to(self._root).as_posix()
                found[name] = known if known and known.source is source else Module(name, path, source)
        self._modules = found
        return found

    def _load(self, service: Service, dropped: Dropped) -> None:
        load.refresh(self._root)
        service.load()
        dropped.import_left()


class Dropped:
    """Modules that are not imported any more, so that whoever imports them next gets them anew."""

    def __init__(self, names: Collection[str], kept: load.Kept) -> None:
        self._kept = kept
        self._sources = {name: kept[name] for name in names}
        self._modules = {name: sys.modules.pop(name) for name in names}
        for name, module in self._modules.items():
            parent, last = _place(name)
            # Else `from package import module` finds the old one there.
            if parent is not None and parent.__dict__.get(last) is module:
                delattr(parent, last)
            linecache.cache.pop(module.__file__ or "", None)

    def import_left(self) -> None:
        """Import those anew that only calls import: one that cannot be imported twice shall not fail in a call."""
        for name, module in self._modules.items():
            if name not in sys.modules and Path(module.__file__ or "").is_file():
                importlib.import_module(name)

    def restore(self) -> None:
        """Have the old ones back in their places."""
        sys.modules.update(self._modules)
        self._kept.update(self._sources)
        for name, module in self._modules.items():
            parent, last = _place(name)
            if parent is not None:
                setattr(parent, last, module)


def _place(name: str) -> tuple[ModuleType | None, str]:
    package, _, last = name.rpartition(".")
    return sys.modules.get(package), last


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
