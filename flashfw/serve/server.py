"""The process that answers: it waits until it is its turn, serves what is in the data directory, and ends in order."""

from __future__ import annotations

import os
import signal
import ssl
import uuid
from datetime import datetime, timezone
from socket import socket
from typing import Any

import anyio
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from flashfw.cluster.auth.pages import KeyPages
from flashfw.cluster.auth.store import Keys
from flashfw.cluster.clock import Clock, SystemClock
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.events import Emit, Event, all_of
from flashfw.cluster.gateway.guard import KeysGuard
from flashfw.cluster.gateway.readiness import Readiness
from flashfw.cluster.jobs.opening import job_store
from flashfw.cluster.listening.connections import Limits
from flashfw.cluster.logs.logs import Logs
from flashfw.cluster.logs.pages import LogPages
from flashfw.cluster.metrics.metrics import Metrics
from flashfw.cluster.metrics.pages import metrics_route
from flashfw.cluster.placement.fork import WARM_AHEAD, placement
from flashfw.cluster.releases.pages import ReleasePages
from flashfw.cluster.releases.platforms import platform_name
from flashfw.cluster.releases.releases import Host, Releases
from flashfw.cluster.secrets import sealing
from flashfw.cluster.secrets.pages import SecretPages
from flashfw.cluster.secrets.store import Secrets
from flashfw.cluster.serving import Front, overlay, serving
from flashfw.cluster.site import Site
from flashfw.cluster.state import FILE, State, StateError
from flashfw.cluster.trouble import as_told
from flashfw.cluster.webhooks.sending import Sending
from flashfw.cluster.webhooks.signing import kept_secret
from flashfw.cluster.workers.devices import own_devices
from flashfw.errors import FlashfwError, TargetError
from flashfw.manifest import Manifest
from flashfw.serve import data
from flashfw.serve.channel import Channel
from flashfw.serve.options import Options
from flashfw.serve.pages import Administration, server_route
from flashfw.worker.failure import Redaction

LOGS = "logs"
WEBHOOK_SECRET = "webhook-secret"
LAST_S = 1.0
"""For connections that are there when a gateway stops listening."""
ORPHAN_S = 3.0
"""What a gateway has to end in when its parent was killed: its workers go with it, and jobs back to the queue."""


async def run(options: Options, sock: socket, channel: Channel, *, stop: anyio.Event, emit: Emit) -> int:
    """Load, wait to be told `go`, serve until `stop` is set or said; the exit code.

    What a person can mend is said to the parent, who prints it or serves on with the gateway before.
    """
    try:
        certificate = options.certificate
        tls = None if certificate is None else certificate.context(datetime.now(timezone.utc))
        data.check(options.data)
        channel.say("standby")
        word = await channel.hear()
        if word is not None and word.name == "go":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_hear_stop, channel, stop)
                await _Serving(options, sock, tls, channel, emit).run(
                    stop, shows_key=bool(word.fields.get("shows_key"))
                )
                tasks.cancel_scope.cancel()
    except Exception as error:
        told = as_told(error, options.data)
        if not isinstance(told, FlashfwError):
            raise
        channel.say("failed", what=told.what, hint=told.hint, exit=int(told.exit))
        return int(told.exit)
    finally:
        await channel.close()
    return 0


async def _hear_stop(channel: Channel, stop: anyio.Event) -> None:
    """The parent says `stop`, or is gone."""
    while (word := await channel.hear()) is not None:
        if word.name == "stop":
            stop.set()
    stop.set()
    await anyio.sleep(ORPHAN_S)
    os.kill(os.getpid(), signal.SIGKILL)


class _Serving:
    """A gateway that has its turn."""

    def __init__(
        self, options: Options, sock: socket, tls: ssl.SSLContext | None, channel: Channel, emit: Emit
    ) -> None:
        self._options = options
        self._sock = sock
        self._tls = tls
        self._channel = channel
        self._clock: Clock = SystemClock()
        self._readiness = Readiness(self._clock, "starting")
        self._metrics = Metrics()
        self._emit = all_of(emit, self._readiness.take, self._metrics.take)

    async def run(self, stop: anyio.Event, *, shows_key: bool) -> None:
        """Serve what the data directory holds."""
        options = self._options
        if (backup := await anyio.to_thread.run_sync(data.migrate, options.data)) is not None:
            self._emit(Event("environment", None, {"text": f"its data is of this flashfw now; as it was: {backup}"}))
        if options.bound is not None:
            data.bind(options.data, *options.bound)
        with State(options.data / FILE) as state:
            keys = Keys(state, self._clock, self._emit)
            secrets = Secrets(state, options.secret_key or options.data / sealing.FILE, self._clock)
            logs = Logs(
                options.data / LOGS,
                self._clock,
                rotation=options.rotation,
                redact=lambda text: Redaction(secrets.values.values())(text),
            )
            self._emit = all_of(self._emit, logs.take)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(logs.run)
                tasks.start_soon(keys.run)
                await self._serve(state, keys, secrets, logs, stop, shows_key=shows_key)
                tasks.cancel_scope.cancel()

    async def _serve(
        self, state: State, keys: Keys, secrets: Secrets, logs: Logs, stop: anyio.Event, *, shows_key: bool
    ) -> None:
        options = self._options
        releases = self._releases(state, secrets)
        site = await self._site(secrets, releases)
        store = job_store(
            options.database,
            folder=options.data,
            project=site.project,
            environment=site.environment,
            clock=self._clock,
            synchronous="FULL",
        )
        async with Cluster.running(site, store, grace_s=options.grace_s) as cluster, releases.running(cluster):
            self._metrics.look_at(cluster)
            pages = Administration(
                routes(
                    cluster,
                    state=state,
                    keys=keys,
                    secrets=secrets,
                    logs=logs,
                    releases=releases,
                    metrics=self._metrics,
                )
            )
            async with serving(cluster, self._sock, self._front(keys, pages), emit=self._emit):
                self._readiness.phase = None
                key = await state.call(_first_key, keys) if shows_key else None
                self._channel.say("serving", key=key, has_keys=not await state.call(keys.is_empty))
                await stop.wait()
                self._readiness.phase = "draining"
                logs.dismiss()
                releases.dismiss()

    def _front(self, keys: Keys, pages: ASGIApp) -> Front:
        return Front(
            guard=KeysGuard(keys),
            grace_s=self._options.grace_s,
            limits=Limits(last_s=LAST_S),
            tls=self._tls,
            administration=pages,
            readiness=self._readiness,
        )

    def _releases(self, state: State, secrets: Secrets) -> Releases:
        def bind(project: str, environment: str) -> None:
            try:
                data.bind(self._options.data, project, environment)
            except TargetError as error:
                raise StateError(error.what, hint=error.hint) from error

        return Releases(
            state,
            self._options.data,
            variables=self._options.variables,
            secrets=secrets,
            clock=self._clock,
            host=Host(platform=platform_name()),
            emit=self._emit,
            bind=bind,
        )

    async def _site(self, secrets: Secrets, releases: Releases) -> Site:
        options, record = self._options, data.read(self._options.data)
        return Site(
            state=options.data,
            project=record.project,
            environment=record.environment,
            boot=uuid.uuid4().hex,
            placement=placement(options.data, self._clock),
            environments=releases.environments,
            overlay=overlay(options.data),
            variables=options.variables,
            secrets=secrets.values,
            clock=self._clock,
            emit=self._emit,
            warm_ahead=WARM_AHEAD,
            devices=await own_devices(self._clock, visible=options.variables.get("CUDA_VISIBLE_DEVICES")),
            webhooks=Sending(secret=kept_secret(options.data / WEBHOOK_SECRET), allow_loopback=False),
        )


def routes(
    cluster: Cluster,
    *,
    state: State,
    keys: Keys,
    secrets: Secrets,
    logs: Logs,
    releases: Releases,
    metrics: Metrics,
) -> list[BaseRoute]:
    """The pages of every room of a server; who may ask for which, the gateway says."""

    def manifest() -> Manifest:
        return cluster.manifest

    return [
        server_route(lambda: _about(cluster, releases.host)),
        metrics_route(metrics),
        *KeyPages(keys).routes(),
        *SecretPages(secrets, state, manifest=manifest, on_changed=releases.roll_users).routes(),
        *LogPages(logs, manifest=manifest).routes(),
        *ReleasePages(releases).routes(),
    ]


def _about(cluster: Cluster, host: Host) -> dict[str, Any]:
    return {
        "project": cluster.site.project or None,
        "environment": cluster.site.environment or None,
        "python": list(host.pythons),
        "platform": host.platform,
    }


def _first_key(keys: Keys) -> str | None:
    """The first admin key of a server that has none."""
    return str(keys.create("first", "admin")[1]) if keys.is_empty() else None
