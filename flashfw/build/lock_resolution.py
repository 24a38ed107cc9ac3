"""One set of requirements to the packages that meet them: uv's resolution, read from the pylock.toml that it writes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashfw.build import lock_inputs, lock_project, lock_uv
from flashfw.build.lock import LockedPackage, toml_value
from flashfw.build.lock_inputs import Asked
from flashfw.build.lock_project import UvProject
from flashfw.build.lock_uv import UvFailed
from flashfw.bundle.needs import canonical
from flashfw.bundle.uv import read_toml, stripped_credentials

_OUTPUT = "pylock.toml"
_ALGORITHMS = ("sha256", "sha512", "sha384", "blake2b", "md5")
"""The best first; an index may know only a weak one."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What may move although it was locked: everything, or the packages of these canonical names."""

    everything: bool = False
    names: frozenset[str] = frozenset()

    def options(self) -> list[str]:
        """What uv is told."""
        return ["--upgrade"] if self.everything else [f"--upgrade-package={name}" for name in sorted(self.names)]


class Unresolved(Exception):
    """There is no such set of packages; `str` of it is the reason. `unreachable` tells of a silent index."""

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


def resolve(
    asked: Asked,
    project: UvProject,
    *,
    kept: Iterable[LockedPackage],
    upgrade: Upgrade,
    variables: Mapping[str, str],
) -> tuple[LockedPackage, ...]:
    """The packages, sorted by name. Those of `kept` keep their version where it fits.

    Raises:
        Unresolved: the requirements contradict one another, name what no index has, or an index does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="flashfw-lock-") as made:
        folder = Path(made)
        lock_project.write(
            folder, project, [lock_inputs.named(found) for found in asked.requirements], python=asked.python
        )
        (folder / _OUTPUT).write_text(_preferences(kept), encoding="utf-8")
        options = ["--format", "pylock.toml", "--generate-hashes", "--no-header", "-o", _OUTPUT, *upgrade.options()]
        target = ["--python-platform", asked.platform, "--python-version", asked.python]
        target += [*lock_uv.python_options(asked.python), *project.options()]
        try:
            lock_uv.run("pip", "compile", "pyproject.toml", *options, *target, cwd=folder, variables=variables)
        except UvFailed as failed:
            reason = str(failed).replace(f"{folder}/", "")
            raise Unresolved(reason, unreachable=failed.unreachable) from failed
        found = read_toml(folder / _OUTPUT).get("packages", [])
    packages = (_package(data, folder, project.root) for data in found)
    return tuple(sorted(packages, key=lambda package: package.name))


def _preferences(kept: Iterable[LockedPackage]) -> str:
    """What was locked before, as a file that uv wrote."""
    packages = {found.name: found for found in kept if not found.url and not found.path}.values()
    text = 'lock-version = "1.0"\ncreated-by = "flashfw"\n' + ("" if packages else "packages = []\n")
    for package in packages:
        text += f"\n[[packages]]\nname = {toml_value(package.name)}\nversion = {toml_value(package.version)}\n"
    return text


def _package(data: Mapping[str, Any], folder: Path, root: Path) -> LockedPackage:
    name, version = canonical(data["name"]), str(data.get("version", ""))
    if directory := data.get("directory"):
        path = lock_inputs.relative(folder / directory["path"] / directory.get("subdirectory", ""), root)
        return LockedPackage(name=name, version=version, path=path, hashes=lock_inputs.hashes_of(path, root))
    if archive := data.get("archive"):
        hashes = _hashes(name, [archive])
        if "path" in archive:
            path = lock_inputs.relative(folder / archive["path"], root)
            return LockedPackage(name=name, version=version, path=path, hashes=hashes)
        return LockedPackage(name=name, version=version, url=_url(archive["url"], archive), hashes=hashes)
    if vcs := data.get("vcs"):
        address = vcs.get("url") or (folder / vcs["path"]).resolve().as_uri()
        url = _url(f"{vcs['type']}+{address}@{vcs['commit-id']}", vcs)
        return LockedPackage(name=name, version=version, url=url)
    archives = data.get("wheels") or [data["sdist"]]
    return LockedPackage(name=name, version=version, hashes=_hashes(name, archives))


def _url(address: str, data: Mapping[str, Any]) -> str:
    below = data.get("subdirectory")
    return stripped_credentials(address) + (f"#subdirectory={below}" if below else "")


def _hashes(name: str, archives: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The best hash of each archive.

    Raises:
        Unresolved: the index tells none, so that nothing could be checked.
    """
    return tuple(sorted({_hash(name, archive.get("hashes", {})) for archive in archives}))


def _hash(name: str, hashes: Mapping[str, str]) -> str:
    for algorithm in _ALGORITHMS:
        if algorithm in hashes:
            return f"{algorithm}:{hashes[algorithm]}"
    raise Unresolved(f"the index gives no hash of {name}, so that nothing could tell whether it is another one later")
