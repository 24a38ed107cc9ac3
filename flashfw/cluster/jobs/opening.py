"""Where a server keeps its jobs: in a file of its own, or in a database that several servers share."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from flashfw.cluster.clock import Clock
from flashfw.cluster.job_files import home_of
from flashfw.cluster.jobs.database import Synchronous
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import JobStore
from flashfw.cluster.site import FILES
from flashfw.errors import TargetError, UsageError

SCHEMES = ("postgresql://", "postgres://")
NAME_CHARACTERS = 63
"""PostgreSQL cuts longer names."""


def job_store(
    url: str | None,
    *,
    folder: Path,
    project: str,
    environment: str,
    clock: Clock,
    synchronous: Synchronous = "NORMAL",
) -> JobStore:
    """The store that the URL names, or without one a file in the folder; not open yet.

    `synchronous` says what a file survives: the death of the process, or with "FULL" a power cut.

    Raises:
        UsageError: the URL is not one of PostgreSQL.
        TargetError: the packages for it are not installed.
    """
    if url is None:
        return SqliteStore(folder / "jobs.sqlite", clock=clock, synchronous=synchronous)
    if not url.startswith(SCHEMES):
        # Not repeated: it may hold a password.
        raise UsageError(
            "--database takes the URL of a PostgreSQL database",
            hint="such as postgresql://user:password@host:5432/database",
        )
    try:
        from flashfw.cluster.jobs.postgres import PostgresStore
    except ImportError as error:
        raise TargetError(
            f"--database needs packages that are not installed: {error}", hint="pip install 'flashfw[postgres]'"
        ) from error
    home = home_of(folder / FILES)
    return PostgresStore(url, clock=clock, schema=schema_of(project, environment), home=home)


def schema_of(project: str, environment: str) -> str:
    """The schema for the jobs of a project in an environment: another for each, whatever their names hold.

    >>> schema_of("shop", "dev")
    'flashfw_shop_dev'
    """
    plain = f"flashfw_{project}_{environment}"
    if len(plain) <= NAME_CHARACTERS and "_" not in project and re.fullmatch(r"[a-z0-9_]+", plain):
        return plain
    digest = hashlib.sha256(f"{project}\0{environment}".encode()).hexdigest()[:8]
    kept = re.sub(r"[^a-z0-9]+", "_", project.lower())[:30]
    return f"flashfw_{kept}_{environment[:12]}_{digest}"
