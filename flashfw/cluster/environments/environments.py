"""One Python environment per distinct set of requirements, made by uv and kept for the next time.

An environment is a folder `<cache>/<key>` with a `.complete` file that is written last: a folder without it
is what a killed build left, and is made anew. A virtual environment cannot be moved, hence no rename. Beside
it `<key>.lock` is held (flock) by whoever makes it, and by the uv that works for it even after its server was killed.
Bytecode is not compiled ahead: the first worker compiles what it imports, which is far less than all there is.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import anyio

from flashfw import whole
from flashfw.bundle.needs import WORKER, EnvironmentFailed, mentioned
from flashfw.cluster.environments.base import Environment
from flashfw.cluster.environments.installer import Uv, UvFailed
from flashfw.cluster.environments.requirements import Wanted, want
from flashfw.errors import FlashfwError

AT_ONCE = 2
"""How many environments are made at a time: each uses the network and all cores already."""
LOCK_POLL_S = 0.1
_COMPLETE = ".complete"
_NONE: Mapping[str, str] = MappingProxyType({})


class Environments:
    """The environments under one cache folder, shared by all projects and servers of a user.

    `variables` is the machine's environment, from which uv takes its configuration; `on_event` hears
    what is being made and how long it took. Lives on one event loop.
    """

    def __init__(
        self, cache: Path, variables: Mapping[str, str], on_event: Callable[[str], None] = lambda text: None
    ) -> None:
        self._cache = cache
        self._variables = variables
        self._uv = Uv(variables)
        self._on_event = on_event
        self._making: dict[str, _Making] = {}
        self._slots = anyio.Semaphore(AT_ONCE)

    async def ensure(
        self,
        requirements: Sequence[str],
        *,
        python: str,
        project_root: Path,
        owner: str = "",
        askers: Mapping[str, str] = _NONE,
    ) -> Environment:
        """The environment that holds these requirements and the worker's own needs; made if need be.

        `python` is a version such as `3.12`; relative paths start at `project_root`. `owner` is the endpoint
        that events speak of, `askers` the place of each requirement that errors speak of. Concurrent calls,
        of other processes too, make it once; those that wait share its failure.

        Raises:
            EnvironmentFailed: a requirement is none, uv finds no interpreter of that version, or it cannot
                resolve, build or install the packages.
        """
        wanted = await anyio.to_thread.run_sync(
            lambda: want(requirements, python=python, root=project_root, askers=askers, variables=self._variables)
        )
        count = f"{wanted.asked} requirement{'' if wanted.asked == 1 else 's'}"
        lines = tuple(map(str, wanted.requirements))
        recipe = _Recipe(
            wanted.key, python, project_root, count, lines, lambda into, lock: self._resolve(wanted, into, lock)
        )
        return await self._ensure(recipe, owner)

    async def ensure_filled(
        self,
        key: str,
        *,
        python: str,
        root: Path,
        packages: Sequence[str],
        fill: Callable[[Path], None],
        owner: str = "",
    ) -> Environment:
        """The environment of that key; if need be made empty and filled, in a thread, by `fill(interpreter)`.

        `packages` is what it will hold, for people.

        Raises:
            EnvironmentFailed: uv finds no interpreter of that version, or what `fill` raised of our own errors.
        """

        async def run(into: Path, lock: int) -> None:
            try:
                # uv may go on for a while once nobody waits; what it writes is not marked as whole.
                await anyio.to_thread.run_sync(fill, _python(into), abandon_on_cancel=True)
            except FlashfwError as error:
                raise EnvironmentFailed(error.what, hint=error.hint) from error

        recipe = _Recipe(key, python, root, f"{len(packages)} locked packages", tuple(packages), run)
        return await self._ensure(recipe, owner)

    async def _ensure(self, recipe: _Recipe, owner: str) -> Environment:
        while (found := self._find(recipe.key)) is None:
            making = self._making.get(recipe.key)
            if making is None:
                return await self._lead(recipe, f" for {owner}" if owner else "")
            await making.over.wait()
            if making.failure is not None:
                raise EnvironmentFailed(making.failure.what, hint=making.failure.hint)
        return found

    async def _lead(self, recipe: _Recipe, purpose: str) -> Environment:
        making = self._making[recipe.key] = _Making()
        try:
            async with self._slots, self._locked(recipe.key, purpose) as lock:
                return self._find(recipe.key) or await self._make(recipe, purpose, lock)
        except EnvironmentFailed as failure:
            making.failure = failure
            raise
        finally:
            del self._making[recipe.key]
            making.over.set()

    async def _make(self, recipe: _Recipe, purpose: str, lock: int) -> Environment:
        folder = self._cache / recipe.key
        self._on_event(f"making an environment{purpose} (Python {recipe.python}, {recipe.contents})")
        began = time.monotonic()
        try:
            await _remove(folder)
            await self._venv(recipe, folder, lock)
            await recipe.fill(folder, lock)
            made = _complete(folder, recipe)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await _remove(folder)
            raise
        self._on_event(f"made the environment{purpose} in {time.monotonic() - began:.1f} s")
        return made

    async def _venv(self, recipe: _Recipe, folder: Path, lock: int) -> None:
        try:
            interpreter = _interpreter(recipe.python)
            await self._uv.run("venv", "--no-project", "--python", interpreter, str(folder), cwd=recipe.root, hold=lock)
        except UvFailed as failed:
            raise _no_python(recipe, str(failed)) from failed

    async def _resolve(self, wanted: Wanted, folder: Path, lock: int) -> None:
        options = ["-r", "-", "--python", str(_python(folder))]
        if wanted.has_paths:
            options.append("--refresh")  # uv would reuse its last build of a directory while its metadata is the same
        lines = "".join(f"{requirement.line}\n" for requirement in wanted.requirements)
        try:
            await self._uv.run("pip", "install", *options, cwd=wanted.root, input=lines, hold=lock)
        except UvFailed as failed:
            raise _not_installable(wanted, str(failed)) from failed

    @asynccontextmanager
    async def _locked(self, key: str, purpose: str) -> AsyncIterator[int]:
        """Hold the lock of a key among processes; the descriptor that holds it."""
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._cache / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EnvironmentFailed(f"cannot write {self._cache}: {error.strerror or error}") from error
        try:
            if not _lock(descriptor):
                self._on_event(f"waiting for the environment{purpose}, which another process makes")
                while not _lock(descriptor):  # noqa: ASYNC110 - no event tells of it
                    await anyio.sleep(LOCK_POLL_S)
            yield descriptor
        finally:
            os.close(descriptor)

    def _find(self, key: str) -> Environment | None:
        """The environment if it is whole, and the interpreter that it was made from is still there."""
        python = _python(self._cache / key)
        try:
            noted = json.loads((self._cache / key / _COMPLETE).read_text(encoding="utf-8"))
            return Environment(python, key, tuple(noted["packages"])) if os.access(python, os.X_OK) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How an environment is made: empty, of this Python, then filled. `contents` and `requirements` are for people."""

    key: str
    python: str
    root: Path
    contents: str
    requirements: tuple[str, ...]
    fill: Callable[[Path, int], Awaitable[None]]


class _Making:
    """One environment while this process makes it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.failure: EnvironmentFailed | None = None


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _remove(folder: Path) -> None:
    await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))


def _complete(folder: Path, recipe: _Recipe) -> Environment:
    """Mark an environment as whole. What it holds is noted for people, and to tell what was resolved."""
    packages = sorted(_packages(folder))
    note = {"python": recipe.python, "requirements": recipe.requirements, "packages": packages}
    try:
        whole.write(folder / _COMPLETE, json.dumps(note, indent=2))
    except OSError as error:
        raise EnvironmentFailed(f"cannot write {folder}: {error.strerror or error}") from error
    return Environment(_python(folder), recipe.key, tuple(packages))


def _interpreter(version: str) -> str:
    """What uv is told: the Python below flashfw itself if it is of that version, since uv looks on the path alone.

    The file behind the links, because an environment made from a link into another one breaks with it.
    """
    here = ".".join(map(str, sys.version_info[:2]))
    return os.path.realpath(sys.executable) if version == here else version


def _packages(folder: Path) -> list[str]:
    """`name==version` of each distribution, from the names of their metadata folders."""
    found = folder.glob("lib/python*/site-packages/*.dist-info")
    return ["==".join(path.name[: -len(".dist-info")].split("-", 1)) for path in found]


def _no_python(recipe: _Recipe, said: str) -> EnvironmentFailed:
    if "No interpreter found" not in said:
        return EnvironmentFailed(f"cannot make an environment with Python {recipe.python}: {said}")
    return EnvironmentFailed(
        f"there is no Python {recipe.python} on this machine, and uv cannot fetch it: {said}",
        hint="install it, or set 'python' to a version that `uv python list` shows",
    )


def _not_installable(wanted: Wanted, said: str) -> EnvironmentFailed:
    named = mentioned(wanted.requirements, said)
    users = [requirement for requirement in named if requirement.asker != WORKER]
    shown = [f"cannot install the dependencies: {said}", *(f"  {requirement}" for requirement in named)]
    if "unsatisfiable" not in said:
        hint = "check the name, the version, and that the package index can be reached"
    elif users and len(users) < len(named):
        hint = "choose versions that the worker can share"
    else:
        hint = "change one of these, or name the index that has it under [tool.uv] in pyproject.toml"
    return EnvironmentFailed("\n".join(shown), hint=hint)
