"""What `flashfw status` says of the tree: what a ship would change now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashfw.build import lock as locks
from flashfw.build.lock import LockError
from flashfw.cli import output, plans
from flashfw.cli.server import Server
from flashfw.errors import TargetError
from flashfw.project import root as roots
from flashfw.ship.cluster import Cluster
from flashfw.ship.drift import Drift, drift
from flashfw.ship.target import Rollout


@dataclass(frozen=True, slots=True)
class Drifted:
    """The answer as lines and as JSON values."""

    lines: tuple[str, ...]
    document: dict[str, Any]


def status(where: Server, *, environment: str, root: Path | None) -> tuple[dict[str, Any], Drifted | None]:
    """What a server says of itself, with the `rollout` that goes on there, and what differs between what it serves and
    the tree here, if it has a release.

    Raises:
        TargetError: it cannot be reached, or refuses.
    """
    with Cluster(environment, where.url, where.key, cafile=where.cafile) as target:
        running = target.running()
        found = {**target.status(), "rollout": _rollout(running) if running else None}
        return found, _drifted(found, target, root) if found.get("release") else None


def _rollout(running: Rollout) -> dict[str, Any]:
    age_s = max(0.0, time.time() - running.started) if running.started else None
    return {"number": running.number, "release": running.release, "by": running.by, "age_s": age_s}


def _drifted(status: Mapping[str, Any], target: Cluster, root: Path | None) -> Drifted:
    place = roots.find(Path.cwd(), explicit=root)
    environment = target.name
    try:
        release = target.release(status["release"]["id"])
        found = drift(place, environment, release, locks.load(place.path))
    except (TargetError, LockError) as error:
        return Drifted((f"\nwhether it is what the tree says is not known: {error}",), {"unknown": str(error)})
    return Drifted(tuple(_lines(found, environment)), _document(found))


def _lines(found: Drift, environment: str) -> list[str]:
    if found.is_none:
        return ["", "it is what the tree says"]
    lines = ["", f"the tree differs ({plans.tally(found.rows)}); `flashfw ship {environment}` would do:"]
    if found.problems:
        lines = ["", f"the tree has {output.plural(found.problems, 'problem')} (flashfw check); else a ship would do:"]
    return [*lines, *plans.lines([row for row in found.rows if row.action != "keep" or row.spared])]


def _document(found: Drift) -> dict[str, Any]:
    return {
        "is_none": found.is_none,
        "problems": found.problems,
        "endpoints": [plans.row_document(row) for row in found.rows if row.action != "keep" or row.spared],
    }
