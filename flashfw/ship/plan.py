"""What a ship would do, from what a target serves and what was built: rows, deletions, problems. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from flashfw.bundle.release import API, Release
from flashfw.errors import Problem
from flashfw.manifest import Endpoint, Manifest
from flashfw.ship.changes import Change, applied, differences
from flashfw.ship.target import Host, Situation

Action = Literal["create", "change", "keep", "delete"]
ACTIONS: tuple[Action, ...] = ("create", "change", "delete", "keep")
"""In the order that a plan shows them."""


@dataclass(frozen=True, slots=True)
class PackageChange:
    """One distribution of another version; `None` where it is not there on that side."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What becomes of one endpoint.

    `jobs` counts those that wait or run and whose function goes away. A `spared` endpoint is not in the new manifest,
    but a file at or above its directory cannot be read, so that nobody knows whether it shall go.
    """

    endpoint: str
    action: Action
    old: Endpoint | None = None
    new: Endpoint | None = None
    changes: tuple[Change, ...] = ()
    packages: tuple[PackageChange, ...] = ()
    jobs: int = 0
    spared: bool = False

    @property
    def strategy(self) -> str:
        """How its workers are replaced; empty where none are."""
        return self.new.strategy if self.new and self.action == "change" else ""

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """The files that roll it, each with `new`, `edited` or `removed`."""
        return tuple((change.path[1], _fate(change)) for change in self.changes if change.path[0] == "sources")

    @property
    def gone(self) -> tuple[str, ...]:
        """The functions that are no more."""
        if self.action == "delete" and self.old:
            return tuple(function.id for function in self.old.functions)
        return tuple(
            change.path[1]
            for change in self.changes
            if len(change.path) == 2 and change.path[0] == "functions" and change.new is None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One row per endpoint, sorted by action and id, and everything that forbids to go on.

    `old` and `new` are the ids of the releases, `old` None before the first.
    """

    rows: tuple[Row, ...]
    old: str | None = None
    new: str = ""
    problems: tuple[Problem, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no endpoint changes."""
        return all(row.action == "keep" for row in self.rows)

    @property
    def is_done(self) -> bool:
        """Whether the target serves this very release."""
        return self.is_empty and self.old == self.new

    @property
    def removes(self) -> tuple[str, ...]:
        """The endpoints that go."""
        return self.of("delete")

    @property
    def jobs(self) -> int:
        """How many jobs wait or run whose function goes."""
        return sum(row.jobs for row in self.rows)

    def of(self, action: Action) -> tuple[str, ...]:
        """The ids of the endpoints with that action."""
        return tuple(row.endpoint for row in self.rows if row.action == action)


def plan(release: Release, situation: Situation, *, broken: Collection[str] = ()) -> Plan:
    """What shipping the release to a target in that situation would do.

    `broken` are directories (`endpoints/api`) of which something cannot be read: nothing at or below them counts as
    deleted.
    """
    old = situation.release
    rows = compare(old, release, jobs=situation.jobs, broken=broken)
    return Plan(
        rows=rows,
        old=situation.current.id if situation.current else None,
        new=release.id,
        problems=tuple(_problems(release, situation)),
    )


def compare(
    old: Release | None, new: Release, *, jobs: Mapping[str, int] | None = None, broken: Collection[str] = ()
) -> tuple[Row, ...]:
    """The rows between two releases: `create` and `delete` by id, `change` where the fingerprint is another."""
    before = {endpoint.id: endpoint for endpoint in old.manifest.endpoints} if old else {}
    after = {endpoint.id: endpoint for endpoint in new.manifest.endpoints}
    rows = [
        _row(name, before.get(name), after.get(name), broken=broken, jobs=jobs or {}) for name in before.keys() | after
    ]
    versions = (_versions(old) if old else {}, _versions(new))
    rows = [_with_packages(row, *versions) for row in rows]
    return tuple(sorted(rows, key=lambda row: (ACTIONS.index(row.action), row.endpoint)))


def result(old: Manifest | None, rows: Collection[Row]) -> dict[str, Endpoint]:
    """The endpoints, by id, that a target has after the rows were carried out over what it had."""
    found = {endpoint.id: endpoint for endpoint in old.endpoints} if old else {}
    for row in rows:
        if row.action == "delete":
            del found[row.endpoint]
        elif row.action == "create" and row.new:
            found[row.endpoint] = row.new
        elif row.action == "change":
            found[row.endpoint] = applied(found[row.endpoint], row.changes)
    return found


def _row(
    name: str, old: Endpoint | None, new: Endpoint | None, *, broken: Collection[str], jobs: Mapping[str, int]
) -> Row:
    if old is None:
        return Row(endpoint=name, action="create", new=new)
    if new is None:
        if any(_covers(directory, old.directory) for directory in broken):
            return Row(endpoint=name, action="keep", old=old, spared=True)
        return _counted(Row(endpoint=name, action="delete", old=old), jobs)
    if old.fingerprint == new.fingerprint:
        return Row(endpoint=name, action="keep", old=old, new=new)
    return _counted(Row(endpoint=name, action="change", old=old, new=new, changes=differences(old, new)), jobs)


def _counted(row: Row, jobs: Mapping[str, int]) -> Row:
    return replace(row, jobs=sum(jobs.get(function, 0) for function in row.gone))


def _covers(broken: str, directory: str) -> bool:
    return directory == broken or directory.startswith(f"{broken}/")


def _fate(change: Change) -> str:
    return "new" if change.old is None else "removed" if change.new is None else "edited"


def _versions(release: Release) -> dict[str, dict[str, str]]:
    """By key of an environment: the version of each distribution in it."""
    return {
        found.key: {name: version for name, _, version in (text.partition("==") for text in found.distributions)}
        for found in release.packages
    }


def _with_packages(row: Row, old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> Row:
    """The row with the versions that its change of environment comes to."""
    if row.action != "change" or row.old is None or row.new is None or row.old.environment == row.new.environment:
        return row
    before, after = old.get(row.old.environment, {}), new.get(row.new.environment, {})
    changed = (
        PackageChange(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )
    return replace(row, packages=tuple(changed))


def _problems(release: Release, situation: Situation) -> Iterator[Problem]:
    yield from mismatch(situation.host, release.manifest.project, release.manifest.environment)
    pythons = situation.host.pythons
    if pythons and (lacking := sorted({found.python for found in release.packages} - {*pythons})):
        what = f"the server has no Python {', '.join(lacking)}: it has {', '.join(pythons)}"
        yield Problem(what, hint="set `python` to one of these, or install it there")
    for endpoint in release.manifest.endpoints:
        for secret in endpoint.secrets:
            if secret.value not in situation.secrets:
                hint = f"flashfw secret set {release.manifest.environment} {secret.value}"
                yield Problem(f"{endpoint.id} wants the secret '{secret.value}', which the server lacks", hint=hint)


def mismatch(host: Host, project: str, environment: str) -> Iterator[Problem]:
    """What is wrong with a server that is another project's or environment's: one has one of each."""
    if host.project not in (None, project):
        hint = f"give {environment} a server of its own: url under [environments.{environment}]"
        yield Problem(f"the server is that of the project '{host.project}', not of '{project}'", hint=hint)
    elif host.environment not in (None, environment):
        hint = f"ship to '{host.environment}', or give {environment} a server of its own"
        yield Problem(
            f"the server is the environment '{host.environment}' of this project, not '{environment}'", hint=hint
        )


def speaks(host: Host) -> str:
    """Why this flashfw cannot ship there, empty if it can."""
    if host.api == API:
        return ""
    side = "newer" if host.api > API else "older"
    return f"the server's flashfw {host.flashfw} is {side} than this one: it speaks protocol {host.api}, this {API}"
