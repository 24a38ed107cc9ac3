"""What an endpoint's environment shall hold, and the hash that tells whether that changed since it was locked."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flashfw.build import lock_project
from flashfw.build.lock import Lock, LockedEnvironment, LockedPackage, key_of
from flashfw.build.lock_project import UvProject
from flashfw.bundle.needs import WORKER, WORKER_NEEDS, EnvironmentFailed, Requirement, canonical, content, read
from flashfw.bundle.uv import read_toml, stripped_credentials
from flashfw.manifest import Endpoint, Manifest
from flashfw.project.effective import configure
from flashfw.project.model import Project

Places = Mapping[str, tuple[str, int]]
"""The requirements of one endpoint to the file and line of each."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The inputs of one environment. `digest` is the same for the same inputs, wherever the project lies."""

    digest: str
    python: str
    platform: str
    requirements: tuple[Requirement, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The requirements in words, as the lock keeps them."""
        return tuple(sorted({stripped_credentials(found.text.strip()) for found in self.requirements}))


class Unreadable(Exception):
    """Some requirements of an endpoint are none, or name a path that is not there: each with its text."""

    def __init__(self, errors: Sequence[tuple[str, EnvironmentFailed]]) -> None:
        super().__init__("; ".join(str(error) for _, error in errors))
        self.errors = tuple(errors)


def asked(endpoint: Endpoint, *, platform: str, project: UvProject) -> Asked:
    """What an endpoint asks for, the worker's needs included.

    Raises:
        Unreadable: a requirement is none, or names a path that is not there or has no name.
    """
    own: list[Requirement] = []
    errors: list[tuple[str, EnvironmentFailed]] = []
    for text in endpoint.dependencies:
        try:
            own.append(read(text, endpoint.id, project.root))
            named(own[-1])
        except EnvironmentFailed as error:
            errors.append((text, error))
    if errors:
        raise Unreadable(errors)
    requirements = (*own, *(read(text, WORKER, project.root) for text in WORKER_NEEDS))
    identities = sorted({_identity(requirement, project.root) for requirement in requirements})
    parts = json.dumps([endpoint.python, platform, identities, project.identity])
    return Asked(hashlib.sha256(parts.encode()).hexdigest()[:16], endpoint.python, platform, requirements)


def held(lock: Lock, manifest: Manifest, *, root: Path) -> dict[str, LockedEnvironment]:
    """What is locked for each endpoint of a manifest, by id: what was resolved from the same requirements.

    So that an endpoint that came, or was renamed, and asks for nothing new needs no new lock. Where nothing asks for
    the same, it is what was locked under the endpoint's name, which is out of date then.
    """
    project = lock_project.find(root)
    platforms = dict.fromkeys(found.platform for found in lock.environments)
    by_digest = {found.asked: found for found in lock.environments}
    found: dict[str, LockedEnvironment] = {}
    for endpoint in manifest.endpoints:
        named = lock.environment_of(endpoint.id, manifest.environment)
        digests = _digests(endpoint, platforms, project)
        if (match := next((by_digest[digest] for digest in digests if digest in by_digest), named)) is not None:
            found[endpoint.id] = match
    return found


def _digests(endpoint: Endpoint, platforms: Iterable[str], project: UvProject) -> list[str]:
    try:
        return [asked(endpoint, platform=platform, project=project).digest for platform in platforms]
    except Unreadable:  # whoever asks whether the lock is current is told
        return []


def is_current(environment: LockedEnvironment, root: Path) -> bool:
    """Whether it is as it was locked: whole, and its files of the project what they were."""
    if environment.key != key_of(environment.python, environment.platform, environment.packages):
        return False
    return not changed_paths(environment, root)


def changed_paths(environment: LockedEnvironment, root: Path) -> list[str]:
    """The files and folders of the project that the environment installs and that are others now, or gone."""
    return [found.path for found in environment.packages if found.path and found.hashes != hashes_of(found.path, root)]


def hashes_of(path: str, root: Path) -> tuple[str, ...]:
    """The hash of a wheel or sdist, or of the content of a folder; none for what cannot be read."""
    at = root / path
    try:
        return (f"sha256:{_digest(at) if at.is_file() else content(at)}",)
    except OSError:
        return ()


def relative(path: str | Path, root: Path) -> str:
    """A path as the lock keeps it: from the project's root on.

    >>> relative("/home/me/shop/libs/a", Path("/home/me/shop")), relative("/home/me/b", Path("/home/me/shop"))
    ('libs/a', '../b')
    """
    return Path(os.path.relpath(path, root)).as_posix()


def places(project: Project, environment: str) -> Mapping[str, Places]:
    """Where each endpoint's requirements are written, by endpoint and text."""
    configuration = configure(project, environment=environment)
    shared = {found.text: ("pyproject.toml", found.line) for found in configuration.settings.dependencies}
    found: dict[str, Places] = {}
    for config in configuration.endpoints:
        setting = config.settings.get("dependencies")
        own = zip(setting.value, setting.origins, strict=True) if setting is not None else ()
        found[config.tree.id] = {text: (origin.file, origin.line) for text, origin in own} | shared
    return found


def named(requirement: Requirement) -> str:
    """A requirement as a pyproject.toml takes it: a bare path with the name of what lies there.

    Raises:
        EnvironmentFailed: nothing there tells its name.
    """
    if requirement.name or requirement.path is None:
        return requirement.line
    path = requirement.path
    name = read_toml(path / "pyproject.toml").get("project", {}).get("name") if path.is_dir() else None
    if path.is_file():
        name = re.split(r"-\d", path.name, maxsplit=1)[0]
    if not isinstance(name, str):
        hint = f'write it with its name, as in "mylib @ {requirement.text.strip()}"'
        raise EnvironmentFailed(f"{requirement}, whose pyproject.toml tells no name", hint=hint)
    return f"{name} @ {path.as_uri()}"


def distribution(requirement: str) -> str:
    """The name at the beginning of a requirement, empty for a bare path."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    return canonical(found[0]) if found else ""


def installed_name(package: LockedPackage) -> str:
    """`name==version`, or where it comes from, for people.

    >>> installed_name(LockedPackage(name="a", version="1")), installed_name(LockedPackage(name="b", path="libs/b"))
    ('a==1', 'b @ libs/b')
    """
    return (
        f"{package.name}=={package.version}" if package.version else f"{package.name} @ {package.path or package.url}"
    )


def _identity(requirement: Requirement, root: Path) -> str:
    if requirement.path is None:
        return stripped_credentials(requirement.identity)
    return f"{requirement.text.partition('@')[0].strip()} @ {relative(requirement.path, root)}"


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
