"""One locked environment to its layer: installed once per user and content, then taken from the cache."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flashfw.build import installed
from flashfw.build.lock import LockedEnvironment
from flashfw.build.store import Store, Stored, unusable
from flashfw.build.words import amount
from flashfw.bundle.archive import ASIDE
from flashfw.bundle.release import Packages
from flashfw.project.ignore import Ignores

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuiltPackages:
    """The packages of one environment, the archive that holds them, and whether it was there already."""

    packages: Packages
    stored: Stored
    endpoints: tuple[str, ...]
    reused: bool

    @property
    def sizes(self) -> dict[str, int]:
        """How many bytes each distribution takes, the largest first."""
        return dict(sorted(self.stored.facts["sizes"].items(), key=lambda item: (-item[1], item[0])))


def build(
    environment: LockedEnvironment,
    endpoints: tuple[str, ...],
    *,
    root: Path,
    store: Store,
    exclude: tuple[str, ...],
    variables: Mapping[str, str],
    tell: Tell,
) -> BuiltPackages:
    """The layer of an environment. `exclude` are patterns of installed files that are left out.

    Raises:
        InstallFailed, IndexUnreachable: uv cannot install what is locked.
        ArchiveError: what it installed makes no archive.
        StoreError: the cache cannot be written.
    """
    key = key_of(environment, exclude)
    name = f"{key}-{installed.FORMAT}"
    found = store.find(name)
    stored = found or _install(
        environment, name, root=root, store=store, exclude=exclude, variables=variables, tell=tell
    )
    packages = Packages(
        key=key,
        python=environment.python,
        platform=environment.platform,
        layer=stored.layer,
        distributions=tuple(sorted(stored.facts["sizes"])),
    )
    return BuiltPackages(packages, stored, endpoints, reused=found is not None)


def key_of(environment: LockedEnvironment, exclude: tuple[str, ...]) -> str:
    """What tells environments apart: the lock's key, and what of it is left out."""
    if not exclude:
        return environment.key
    return hashlib.sha256(json.dumps([environment.key, *exclude]).encode()).hexdigest()[:16]


def _install(
    environment: LockedEnvironment,
    name: str,
    *,
    root: Path,
    store: Store,
    exclude: tuple[str, ...],
    variables: Mapping[str, str],
    tell: Tell,
) -> Stored:
    from flashfw.build import lock_install  # an unchanged build installs nothing

    count = len(environment.packages)
    tell(f"installing {count} {'package' if count == 1 else 'packages'} for Python {environment.python}")
    store.open()
    try:
        with tempfile.TemporaryDirectory(prefix=ASIDE, dir=store.folder) as aside:
            folder = Path(aside) / "site-packages"
            lock_install.install(environment, root=root, into=folder, variables=variables)
            found = installed.read(folder, exclude=Ignores.of(exclude))
            tell(f"packing {amount(sum(found.sizes.values()))} of them")
            return store.add(name, found.entries, {"sizes": found.sizes}, durable=True)
    except OSError as error:
        raise unusable(store.folder, error) from error
