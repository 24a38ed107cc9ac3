"""The versions of `flashfw.lock` on the laptop, so that what runs here is what ships."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import anyio

from flashfw.build import lock as locks
from flashfw.build import lock_inputs
from flashfw.build.lock import FILE, LockedEnvironment, LockError
from flashfw.build.lock_inputs import installed_name
from flashfw.build.lock_install import install_here
from flashfw.build.lock_stale import reasons, stale
from flashfw.cluster.environments.base import Environment
from flashfw.cluster.environments.declared import DeclaredEnvironments
from flashfw.cluster.environments.environments import Environments
from flashfw.cluster.releases.platforms import platform_name, runs_on
from flashfw.manifest import Endpoint, Manifest
from flashfw.project.fingerprint import fingerprint


class Pinned(NamedTuple):
    """A manifest whose endpoints name what is locked for them, and why some do not; `note` is empty if all may."""

    manifest: Manifest
    note: str = ""


def pin(manifest: Manifest, root: Path) -> Pinned:
    """The manifest with the keys of the lock's environments, where they are up to date and for this machine."""
    try:
        lock = locks.load(root)
    except LockError as error:
        return Pinned(manifest, f"{error}: until then packages are resolved for this machine")
    if lock is None:
        return Pinned(manifest)
    platforms = sorted({found.platform for found in lock.environments})
    if not all(runs_on(found, platform_name()) for found in platforms):
        what = f"{FILE} is for another platform ({', '.join(platforms)})"
        return Pinned(manifest, f"{what}: packages are resolved for this machine")
    others = reasons(lock, manifest, root=root)
    held = lock_inputs.held(lock, manifest, root=root)
    keys = {name: found.key for name, found in held.items() if name not in others}
    endpoints = tuple(_pinned(endpoint, keys.get(endpoint.id, "")) for endpoint in manifest.endpoints)
    said = [f"{problem.file} {problem.what}" for problem in stale(lock, manifest, root=root)] if others else []
    until = "until `flashfw lock` packages are resolved anew"
    return Pinned(replace(manifest, endpoints=endpoints), "; ".join([*said, until]) if said else "")


class LockedEnvironments:
    """An `EnvironmentMaker` that goes by the lock for endpoints that are pinned, for others by what they declare."""

    def __init__(self, environments: Environments, variables: Mapping[str, str]) -> None:
        self._environments = environments
        self._declared = DeclaredEnvironments(environments)
        self._variables = variables

    async def ensure(self, endpoint: Endpoint, root: Path) -> Environment:
        """As `EnvironmentMaker.ensure`."""
        found = await anyio.to_thread.run_sync(_locked, endpoint.environment, root) if endpoint.environment else None
        if found is None:
            return await self._declared.ensure(endpoint, root)

        def fill(interpreter: Path) -> None:
            install_here(found, root=root, python=interpreter, variables=self._variables)

        packages = [installed_name(package) for package in found.packages]
        key = _key(found)
        return await self._environments.ensure_filled(
            key, python=found.python, root=root, packages=packages, fill=fill, owner=endpoint.id
        )


def _pinned(endpoint: Endpoint, key: str) -> Endpoint:
    if not key:
        return endpoint
    pinned = replace(endpoint, environment=key)
    return replace(pinned, fingerprint=fingerprint(pinned))


def _locked(key: str, root: Path) -> LockedEnvironment | None:
    """What the lock holds under a key now; None if it was written anew since."""
    try:
        lock = locks.load(root)
    except LockError:
        return None
    return next((found for found in lock.environments if found.key == key), None) if lock else None


def _key(found: LockedEnvironment) -> str:
    """The folder's name: no other kind of environment has it, nor one of another machine that shares the cache."""
    parts = ("locked", found.key, sysconfig.get_platform(), *platform.libc_ver())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
