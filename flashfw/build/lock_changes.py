"""What moved between two locks, package by package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flashfw.build.lock import Lock, LockedEnvironment, LockedPackage


@dataclass(frozen=True, slots=True)
class Change:
    """A package that is another in the environments of these endpoints; `before` and `after` are empty for none."""

    name: str
    before: str
    after: str
    endpoints: tuple[str, ...]


def changes(previous: Lock | None, now: Lock) -> tuple[Change, ...]:
    """All packages that came, went or moved, sorted by name; of an endpoint that was not locked, all are new."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for environment in now.environments:
        for endpoint in environment.endpoints:
            old = previous.environment_of(endpoint) if previous else None
            before, after = _versions(old), _versions(environment)
            for name in before.keys() | after.keys():
                if before.get(name) != after.get(name):
                    key = (name, before.get(name, ("", ()))[0], after.get(name, ("", ()))[0])
                    found.setdefault(key, []).append(endpoint)
    return tuple(Change(*key, tuple(sorted(endpoints))) for key, endpoints in sorted(found.items()))


def _versions(environment: LockedEnvironment | None) -> Mapping[str, tuple[str, tuple[str, ...]]]:
    packages = environment.packages if environment else ()
    return {package.name: (_version(package), package.hashes) for package in packages}


def _version(package: LockedPackage) -> str:
    """A version in words: for what has none, where it comes from and what it is."""
    if package.version and not package.path:
        return package.version
    short = package.hashes[0].partition(":")[2][:8] if package.hashes else package.url[-8:]
    return f"{package.version or package.path or 'git'} ({short})"
