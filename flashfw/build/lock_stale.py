"""Whether a lock is what a manifest asks for, and what changed since if not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from flashfw.build import lock_inputs, lock_project
from flashfw.build.lock import FILE, Lock, LockedEnvironment
from flashfw.build.lock_inputs import Asked, Unreadable
from flashfw.build.lock_project import UvProject
from flashfw.errors import Problem
from flashfw.manifest import Endpoint, Manifest

_HINT = "run `flashfw lock`"


def stale(lock: Lock | None, manifest: Manifest, *, root: Path) -> tuple[Problem, ...]:
    """A problem for each way in which the lock is not what the endpoints of a manifest ask for; none if it is.

    Fast: it reads the lock and the project's files alone, and asks neither uv nor an index. `root` is the project's.
    """
    if lock is None:
        return (Problem("is not there", FILE, hint="make it with `flashfw lock`, and commit it"),)
    ways: dict[str, list[str]] = {}
    for endpoint, why in reasons(lock, manifest, root=root).items():
        ways.setdefault(why, []).append(endpoint)
    return tuple(
        Problem(f"is out of date for {', '.join(names)}: {why}", FILE, hint=_HINT) for why, names in ways.items()
    )


def reasons(lock: Lock, manifest: Manifest, *, root: Path) -> dict[str, str]:
    """The ids of endpoints for which the lock is out of date, each with what changed."""
    project = lock_project.find(root)
    held = lock_inputs.held(lock, manifest, root=root)
    found: dict[str, str] = {}
    for endpoint in manifest.endpoints:
        if why := _why(held.get(endpoint.id), endpoint, project):
            found[endpoint.id] = why
    return found


def _why(locked: LockedEnvironment | None, endpoint: Endpoint, project: UvProject) -> str:
    """What is another than it was locked; empty if nothing is."""
    if locked is None:
        return "nothing is locked for it"
    try:
        asked = lock_inputs.asked(endpoint, platform=locked.platform, project=project)
    except Unreadable as unreadable:
        return "; ".join(str(error) for _, error in unreadable.errors)
    if locked.asked != asked.digest:
        return ", ".join(_changes(locked, asked)) or "the configuration of uv is another"
    if changed := lock_inputs.changed_paths(locked, project.root):
        return f"{', '.join(changed)} changed"
    return "" if lock_inputs.is_current(locked, project.root) else "it was edited by hand"


def _changes(locked: LockedEnvironment, asked: Asked) -> Iterator[str]:
    if asked.python != locked.python:
        yield f"Python {asked.python} is asked for, {locked.python} is locked"
    new = [text for text in asked.texts if text not in locked.requirements]
    gone = [text for text in locked.requirements if text not in asked.texts]
    yield from _said(new, "new")
    yield from _said(gone, "gone")


def _said(texts: Sequence[str], what: str) -> Iterator[str]:
    if texts:
        yield f"{', '.join(texts)} {'is' if len(texts) == 1 else 'are'} {what}"
