"""The environments of releases: an interpreter of the right version, and the layer of packages that were shipped."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import anyio

from flashfw import whole
from flashfw.bundle.needs import EnvironmentFailed
from flashfw.bundle.release import Packages, Release
from flashfw.cluster.environments.base import Environment
from flashfw.cluster.environments.installer import Uv, UvFailed
from flashfw.manifest import Endpoint

_COMPLETE = ".complete"
_LINK = "flashfw-layer.pth"


class ReleaseEnvironments:
    """An `EnvironmentMaker` over layers: nothing is resolved or installed, so that what was locked is what runs.

    `layer` tells where the files of one lie. An environment is a folder of its key with a `.complete` that is written
    last; without it, it is what a killed server left, and is made anew. Lives on one event loop.
    """

    def __init__(self, folder: Path, layer: Callable[[str], Path], variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._layer = layer
        self._uv = Uv(variables)
        self._known: dict[str, Packages] = {}
        self._making: dict[str, asyncio.Lock] = {}

    def know(self, release: Release) -> None:
        """Take the environments of a release; they are made when a worker first asks."""
        self._known.update({found.key: found for found in release.packages})

    async def ensure(self, endpoint: Endpoint, root: Path) -> Environment:
        """As `EnvironmentMaker.ensure`; only an interpreter may have to be fetched."""
        packages = self._known.get(endpoint.environment)
        if packages is None:
            raise EnvironmentFailed(f"no release here has the environment {endpoint.environment!r} of {endpoint.id}")
        return await self.made(packages)

    async def made(self, packages: Packages) -> Environment:
        """The environment of these packages; made if need be, once for all who ask.

        Raises:
            EnvironmentFailed: there is no such Python, or the disk is full.
        """
        async with self._making.setdefault(packages.key, asyncio.Lock()):
            if not await anyio.to_thread.run_sync(self._is_whole, packages):
                await self._make(packages)
        return Environment(self._python(packages.key), packages.key, packages.distributions)

    def layers_of(self, keys: Collection[str]) -> set[str]:
        """The digests of the layers that these environments import from."""
        return {self._known[key].layer.digest for key in keys if key in self._known}

    def remove_unused(self, used: Collection[str]) -> None:
        """Remove the environments whose keys are not `used`; they can be made again from their layers."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.is_dir() and path.name not in used:
                (path / _COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)

    async def _make(self, packages: Packages) -> None:
        folder = self._folder / packages.key
        try:
            await anyio.to_thread.run_sync(self._clear, folder)
            await self._venv(packages.python, folder)
            await anyio.to_thread.run_sync(self._link, packages, folder)
        except UvFailed as failed:
            hint = "install it on the server, or set 'python' to a version that it has"
            raise EnvironmentFailed(f"this server has no Python {packages.python}: {failed}", hint=hint) from failed
        except OSError as error:
            raise EnvironmentFailed(f"cannot write {folder}: {error.strerror or error}") from error

    async def _venv(self, python: str, folder: Path) -> None:
        with (self._folder / ".lock").open("a") as lock:
            await self._uv.run(
                "venv",
                "--no-project",
                "--python",
                _interpreter(python),
                str(folder),
                cwd=self._folder,
                hold=lock.fileno(),
            )

    def _clear(self, folder: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _link(self, packages: Packages, folder: Path) -> None:
        """Have the interpreter import from the layer, with what its own .pth files say."""
        (site_packages,) = folder.glob("lib/python*/site-packages")
        layer = str(self._layer(packages.layer.digest))
        (site_packages / _LINK).write_text(f"import site; site.addsitedir({layer!r})\n", encoding="utf-8")
        whole.write(folder / _COMPLETE, json.dumps({"layer": layer, "python": packages.python}))

    def _is_whole(self, packages: Packages) -> bool:
        """Whether it is there, of this layer at this place, and the interpreter that it was made from is, too."""
        try:
            noted = json.loads((self._folder / packages.key / _COMPLETE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        wanted = {"layer": str(self._layer(packages.layer.digest)), "python": packages.python}
        return noted == wanted and os.access(self._python(packages.key), os.X_OK)

    def _python(self, key: str) -> Path:
        return self._folder / key / "bin" / "python"


def _interpreter(version: str) -> str:
    """The Python below flashfw itself if it is of that version: the file behind the links, since links may end."""
    here = ".".join(map(str, sys.version_info[:2]))
    return os.path.realpath(sys.executable) if version == here else version
