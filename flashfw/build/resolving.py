"""A project to its lock: each distinct set of requirements resolved by uv, side by side, for the target's platform.

What nothing changed of is not resolved again, and what is resolved again keeps the versions that it had, unless an
upgrade is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from flashfw.build import lock_failures, lock_inputs, lock_project
from flashfw.build.lock import FILE, Lock, LockedEnvironment, LockedPackage, key_of
from flashfw.build.lock_failures import Failure
from flashfw.build.lock_inputs import Asked, Unreadable
from flashfw.build.lock_project import UvProject
from flashfw.build.lock_resolution import Unresolved, Upgrade, resolve
from flashfw.build.lock_stale import stale
from flashfw.bundle.needs import canonical
from flashfw.errors import Problem, ProjectError, UsageError
from flashfw.manifest import Manifest
from flashfw.project import tomlkeys
from flashfw.project.compile import compile as compile_project
from flashfw.project.model import Project
from flashfw.project.settings import load_settings
from flashfw.project.tomlkeys import Document
from flashfw.project.validate import DEV
from flashfw.project.values import did_you_mean

AT_ONCE = 4
"""How many environments are resolved at a time: each waits for its index most of the time."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class _Group:
    """Endpoints that ask for the same: `names` as the lock lists them, `members` as (environment, endpoint)."""

    asked: Asked
    names: list[str] = field(default_factory=list)
    members: list[tuple[str, str]] = field(default_factory=list)


def lock(
    project: Project,
    *,
    previous: Lock | None,
    upgrade: bool | Collection[str] = False,
    platform: str,
    variables: Mapping[str, str],
    tell: Tell = lambda text: None,
) -> Lock:
    """What the endpoints' requirements come to now; `previous` itself where nothing changed.

    `upgrade` is True for all versions anew, or the names of packages that may move. `platform` is a target of uv's,
    `variables` the machine's environment, `tell` hears what is being resolved.

    Raises:
        ProjectError: the project has errors, or requirements cannot be met: all of them, each with its place.
        IndexUnreachable: an index does not answer, and nothing else is wrong.
        UsageError: no environment holds a package that shall be upgraded.
    """
    configured = lock_project.find(project.root.path)
    moved = _upgrade(upgrade, previous)
    groups = _groups(_manifests(project), project, configured, platform)
    done: dict[str, LockedEnvironment] = {}
    if not moved.everything:
        done = {found.asked: found for found in _kept(previous, groups, configured, moved.names)}
    resolver = _Resolver(previous, configured, moved, variables, tell)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        made = list(threads.map(resolver, (group for digest, group in groups.items() if digest not in done)))
    if failures := [found for found in made if isinstance(found, Failure)]:
        raise lock_failures.error(failures, project)
    done |= {found.asked: found for found in made if isinstance(found, LockedEnvironment)}
    found = [replace(done[digest], endpoints=tuple(sorted(group.names))) for digest, group in groups.items()]
    now = Lock(environments=tuple(sorted(found, key=lambda environment: environment.endpoints)))
    return previous if previous == now else now


def check(project: Project, previous: Lock | None) -> tuple[Problem, ...]:
    """What is not as `lock` would make it, in any environment; it asks neither uv nor an index.

    Raises:
        ProjectError: the project has errors.
    """
    manifests = tuple(_manifests(project))
    found = [problem for manifest in manifests for problem in stale(previous, manifest, root=project.root.path)]
    known = {endpoint.id for manifest in manifests for endpoint in manifest.endpoints}
    locked = [name for environment in (previous.environments if previous else ()) for name in environment.endpoints]
    gone = sorted(name for name in locked if name.partition("@")[0] not in known)
    if gone:
        found.append(Problem(f"still names {', '.join(gone)}", FILE, hint="run `flashfw lock`"))
    new = sorted(known - {name.partition("@")[0] for name in locked})
    if new:
        found.append(Problem(f"does not name {', '.join(new)} yet", FILE, hint="run `flashfw lock`"))
    return tuple(dict.fromkeys(found))


def _manifests(project: Project) -> Iterator[Manifest]:
    """The manifest of every environment that may ask for something else than the others; that of `dev` first.

    Raises:
        ProjectError: one of them has errors.
    """
    declared = [found.name for found in load_settings(project.root)[0].shippable]
    special = set(_overridden(project))
    if DEV in special:  # then all others are what dev is not
        special = set(declared)
    manifests, problems = [], list(project.problems)
    for environment in (DEV, *(name for name in declared if name in special)):
        manifest, found = compile_project(project, environment=environment)
        manifests.append(manifest)
        problems += found
    if any(problem.level == "error" for problem in problems):
        raise ProjectError(dict.fromkeys(problem for problem in problems if problem.level == "error"))
    return iter(manifests)


def _overridden(project: Project) -> Iterator[str]:
    """The environments for which some endpoint.toml has an `[on.ENV]`."""
    for file in {file for tree in project.endpoints for file in tree.configs}:
        document = tomlkeys.load(project.root.path, file)
        tables = document.data.get("on") if isinstance(document, Document) else None
        yield from tables if isinstance(tables, dict) else ()


def _groups(manifests: Iterable[Manifest], project: Project, configured: UvProject, platform: str) -> dict[str, _Group]:
    """The distinct sets of requirements by their digest.

    Raises:
        ProjectError: some requirements are none.
    """
    groups: dict[str, _Group] = {}
    usual: dict[str, str] = {}
    failures: list[Failure] = []
    for manifest in manifests:
        for endpoint in manifest.endpoints:
            try:
                asked = lock_inputs.asked(endpoint, platform=platform, project=configured)
            except Unreadable as unreadable:
                member = ((manifest.environment, endpoint.id),)
                failures += (Failure(member, error.what, (text,), hint=error.hint) for text, error in unreadable.errors)
                continue
            if usual.setdefault(endpoint.id, asked.digest) == asked.digest and manifest.environment != DEV:
                continue
            group = groups.setdefault(asked.digest, _Group(asked))
            group.names.append(endpoint.id if manifest.environment == DEV else f"{endpoint.id}@{manifest.environment}")
            group.members.append((manifest.environment, endpoint.id))
    if failures:
        raise lock_failures.error(failures, project)
    return groups


def _kept(
    previous: Lock | None, groups: Mapping[str, _Group], configured: UvProject, moved: Collection[str]
) -> Iterator[LockedEnvironment]:
    """What was locked and is still what is asked for."""
    for environment in previous.environments if previous else ():
        moves = any(package.name in moved for package in environment.packages)
        if environment.asked in groups and not moves and lock_inputs.is_current(environment, configured.root):
            yield environment


def _upgrade(upgrade: bool | Collection[str], previous: Lock | None) -> Upgrade:
    if isinstance(upgrade, bool):
        return Upgrade(everything=upgrade)
    names = frozenset(map(canonical, upgrade))
    known = {
        package.name for environment in (previous.environments if previous else ()) for package in environment.packages
    }
    if unknown := sorted(names - known):
        hint = did_you_mean(unknown[0], known) or "name packages that flashfw.lock holds"
        raise UsageError(f"nothing is locked that is called '{unknown[0]}'", hint=hint)
    return Upgrade(names=names)


@dataclass(frozen=True, slots=True)
class _Resolver:
    """Resolves one group at a time, each call in a thread of its own."""

    previous: Lock | None
    project: UvProject
    upgrade: Upgrade
    variables: Mapping[str, str]
    tell: Tell

    def __call__(self, group: _Group) -> LockedEnvironment | Failure:
        asked = group.asked
        self.tell(f"resolving {', '.join(group.names)} (Python {asked.python})")
        kept = () if self.upgrade.everything else _pins(group, self.previous)
        try:
            packages = resolve(asked, self.project, kept=kept, upgrade=self.upgrade, variables=self.variables)
        except OSError as error:
            reason = f"a folder for temporary files cannot be written: {error.strerror or error}"
            return Failure(tuple(group.members), reason, (), asked.requirements, hint="make room, or set TMPDIR")
        except Unresolved as error:
            members = tuple(group.members)
            return Failure(members, str(error), (), asked.requirements, unreachable=error.unreachable)
        return LockedEnvironment(
            key=key_of(asked.python, asked.platform, packages),
            python=asked.python,
            platform=asked.platform,
            asked=asked.digest,
            endpoints=tuple(group.names),
            requirements=asked.texts,
            packages=packages,
        )


def _pins(group: _Group, previous: Lock | None) -> Sequence[LockedPackage]:
    """What the endpoints had, before what others had: a new endpoint takes the versions that are there already."""
    own = set(group.names)
    environments = previous.environments if previous else ()
    ordered = sorted(environments, key=lambda environment: not own.isdisjoint(environment.endpoints))
    return [package for environment in ordered for package in environment.packages]
