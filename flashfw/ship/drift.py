"""What differs between a target and the tree: the same rows as a plan's, without a build."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flashfw.build import lock_inputs
from flashfw.build.lock import Lock
from flashfw.bundle.release import Packages, Release
from flashfw.manifest import Endpoint
from flashfw.project.collect import collect
from flashfw.project.compile import compile as compile_project
from flashfw.project.fingerprint import fingerprint
from flashfw.project.model import Project, Root
from flashfw.ship.plan import Row, compare


@dataclass(frozen=True, slots=True)
class Drift:
    """The rows that a ship would have now; `problems` counts what would keep it from being."""

    rows: tuple[Row, ...]
    problems: int = 0

    @property
    def is_none(self) -> bool:
        """Whether the target has what the tree says."""
        return not self.problems and all(row.action == "keep" and not row.spared for row in self.rows)


def drift(root: Root, environment: str, release: Release, lock: Lock | None) -> Drift:
    """What differs between a release and the tree of a project.

    An endpoint that the lock does not hold counts as if its packages were those of the release: nobody knows better.
    """
    project = collect(root)
    manifest, problems = compile_project(project, environment=environment)
    served = {endpoint.id: endpoint.environment for endpoint in release.manifest.endpoints}
    locked = lock_inputs.held(lock, manifest, root=root.path) if lock else {}
    keys = {**served, **{name: found.key for name, found in locked.items()}}
    tree = replace(manifest, endpoints=tuple(_keyed(one, keys.get(one.id, "")) for one in manifest.endpoints))
    packages = {found.key: found for found in release.packages}
    for found in locked.values():
        versions = tuple(f"{one.name}=={one.version}" for one in found.packages if one.version)
        layer = packages[found.key].layer if found.key in packages else release.source
        made = Packages(
            key=found.key, python=found.python, platform=found.platform, layer=layer, distributions=versions
        )
        packages.setdefault(found.key, made)
    here = replace(release, manifest=tree, packages=tuple(packages.values()))
    errors = sum(problem.level == "error" for problem in (*project.problems, *problems))
    return Drift(compare(release, here, broken=tuple(broken(project, tree.endpoints))), errors)


def broken(project: Project, compiled: tuple[Endpoint, ...]) -> Iterator[str]:
    """The directories of endpoints that are in the tree, and not in the manifest because something is wrong."""
    known = {endpoint.id for endpoint in compiled}
    yield from (tree.directory for tree in project.endpoints if tree.id not in known or tree.broken)
    yield from (f"endpoints/{found.path}".rstrip("/") for found in project.directories if found.unread)


def _keyed(endpoint: Endpoint, key: str) -> Endpoint:
    made = replace(endpoint, environment=key, fingerprint="")
    return replace(made, fingerprint=fingerprint(made))
