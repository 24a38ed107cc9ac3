"""What a saved file changes: from the tree as it is now to what shall be served, as a pure function."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from flashfw.errors import Problem
from flashfw.manifest import Endpoint, Manifest
from flashfw.project.model import Project
from flashfw.worker.reload import FIXTURES, MIDDLEWARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What to do after a change. `held` keep their last good release because the tree is broken there.

    The workers of `roll` are to serve something new; those of them in `restart` have to be other ones for that.
    """

    manifest: Manifest
    roll: tuple[str, ...]
    restart: tuple[str, ...]
    held: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


def plan(
    served: Manifest,
    compiled: Manifest,
    *,
    project: Project,
    problems: Iterable[Problem],
    changed: Collection[str],
    loaded: Mapping[str, Collection[str]],
    secrets: Collection[str] = (),
) -> Reload:
    """What to serve next.

    An endpoint whose files do not parse or compile is served as it was; one is only removed when its
    files are gone and nothing is wrong where they were. Only endpoints whose configuration changed, whose
    workers have loaded one of the `changed` files (paths below the root), for which a fixtures.py or middleware.py
    came or went, or that get one of the `secrets` (those of which the value changed) are rolled.
    """
    errors = [problem for problem in problems if problem.level == "error"]
    present = {tree.id for tree in project.endpoints}
    before = {endpoint.id: endpoint for endpoint in served.endpoints}
    after = {endpoint.id: endpoint for endpoint in compiled.endpoints}
    held = [
        name
        for name, endpoint in before.items()
        if name not in after and (name in present or _is_troubled(endpoint, errors))
    ]
    endpoints = [*after.values(), *(before[name] for name in held)]
    kept = after.keys() & before.keys()
    restart = {name for name in kept if any(variable.value in secrets for variable in after[name].secrets)}
    return Reload(
        manifest=dataclasses.replace(compiled, endpoints=tuple(sorted(endpoints, key=lambda endpoint: endpoint.id))),
        roll=tuple(
            name
            for name in kept
            if name in restart
            or _is_another(before[name], after[name])
            or not set(changed).isdisjoint(loaded.get(name, ()))
        ),
        restart=tuple(sorted(restart)),
        held=tuple(held),
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys() - set(held))),
    )


def _is_troubled(endpoint: Endpoint, errors: Iterable[Problem]) -> bool:
    """Whether a problem stands where the endpoint was, or above it (a broken flashfw.toml hides everything)."""
    inside = endpoint.directory + "/"
    for problem in errors:
        folder, _, _ = problem.file.rpartition("/")
        if problem.file.startswith(inside) or inside.startswith(f"{folder}/") or not folder:
            return True
    return False


def _is_another(before: Endpoint, after: Endpoint) -> bool:
    """Whether workers have to hear of it: of a thousand endpoints nearly all are just what they were."""
    return before.fingerprint != after.fingerprint and (
        _config(before) != _config(after) or _special(before) != _special(after)
    )


def _config(endpoint: Endpoint) -> Endpoint:
    """The endpoint without what its files say; lines move with every edit and are nothing a worker knows."""
    functions = tuple(dataclasses.replace(function, line=0) for function in endpoint.functions)
    return dataclasses.replace(endpoint, functions=functions, sources=(), fingerprint="")


def _special(endpoint: Endpoint) -> set[str]:
    """The files that mean something to it by their names alone."""
    paths = (source.path for source in endpoint.sources)
    return {path for path in paths if path.rpartition("/")[2] in (FIXTURES, MIDDLEWARE)}
