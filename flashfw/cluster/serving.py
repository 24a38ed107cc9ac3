"""A cluster behind its gateway, on a socket: what `flashfw dev` and `flashfw serve` have in common."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import anyio
from starlette.types import ASGIApp

from flashfw.cluster.clock import sleep
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.environments.overlay import Overlay
from flashfw.cluster.events import Emit
from flashfw.cluster.gateway.app import Gateway
from flashfw.cluster.gateway.guard import Guard
from flashfw.cluster.gateway.intake import Intake
from flashfw.cluster.gateway.readiness import Readiness
from flashfw.cluster.gateway.short_jobs import ShortJobs
from flashfw.cluster.gateway.short_way import ShortWay
from flashfw.cluster.listening import server
from flashfw.cluster.listening.connections import Limits
from flashfw.errors import TargetError

PATIENCE = 0.8
"""After this part of the grace, who waits for the end of a job is told that it goes on."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """How a server meets its callers. `grace_s` is what open calls get at the end, workers as long again."""

    guard: Guard
    grace_s: float
    limits: Limits = server.DEFAULT_LIMITS
    tls: ssl.SSLContext | None = None
    administration: ASGIApp | None = None
    readiness: Readiness | None = None


@asynccontextmanager
async def serving(cluster: Cluster, sock: socket, front: Front, *, emit: Emit) -> AsyncIterator[None]:
    """Answer requests on the socket while the block runs.

    At the end no further connection is taken, open calls end within the grace, and whoever waits for a job that does
    not end in time is told its id. Readers of a job's events, who can go on with the next server, end at once.
    """
    intake = Intake(cluster.watch, cluster.site.clock, cluster.store, local_webhooks=cluster.site.local_webhooks)
    gateway = Gateway(
        cluster,
        intake=intake,
        store=cluster.store,
        guard=front.guard,
        emit=emit,
        administration=front.administration,
        readiness=front.readiness,
    )
    jobs = ShortJobs(intake, emit=emit, wait_on=gateway.wait_on)
    short = ShortWay(cluster, jobs=jobs, guard=front.guard, clock=cluster.site.clock, emit=emit, go_on=gateway.go_on)
    async with anyio.create_task_group() as tasks:
        async with server.serving(
            gateway, sock, grace_s=front.grace_s, limits=front.limits, tls=front.tls, answerer=short
        ):
            yield
            cluster.watch.dismiss_followers()
            tasks.start_soon(_dismiss, cluster, front.grace_s * PATIENCE)
        tasks.cancel_scope.cancel()


async def _dismiss(cluster: Cluster, after_s: float) -> None:
    """Callers whose job takes longer than the grace get its id before their connection would be cut."""
    await sleep(cluster.site.clock, after_s)
    cluster.watch.dismiss()


def overlay(cache: Path) -> Path:
    """The code that runs beside user code, laid out in the cache.

    Raises:
        TargetError: the cache cannot be written.
    """
    try:
        return Overlay(cache / "overlays").path()
    except OSError as error:
        raise TargetError(
            f"cannot write the cache {cache}: {error.strerror or error}",
            hint="set XDG_CACHE_HOME to a folder that can be written",
        ) from error
