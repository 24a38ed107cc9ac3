"""The releases of a server: taken in, checked, rolled out, taken back, forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from flashfw.bundle.release import Release
from flashfw.cluster.clock import Clock
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.events import Emit, Event, internal
from flashfw.cluster.gateway.answers import refusal
from flashfw.cluster.jobs.model import State as JobState
from flashfw.cluster.releases.environments import ReleaseEnvironments
from flashfw.cluster.releases.layers import Layers
from flashfw.cluster.releases.platforms import runs_on
from flashfw.cluster.releases.rollouts import Rollouts, Running
from flashfw.cluster.releases.store import Listed, ReleasesStore
from flashfw.cluster.secrets.store import missing
from flashfw.cluster.staging import Shipped
from flashfw.cluster.state import State, StateError
from flashfw.manifest import Manifest

PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a server is: its platform as uv names it, and the versions of Python that it has ("3.11").

    With no versions named, whatever uv finds or fetches is taken.
    """

    platform: str
    pythons: tuple[str, ...] = ()


class SecretValues(Protocol):
    """The secrets of a server, as far as releases care."""

    @property
    def values(self) -> Mapping[str, str]:
        """Values by names."""
        ...

    def clear(self) -> None:
        """Forget all; blocks for the disk."""
        ...


class Releases:
    """All releases of one server over its data directory. Lives as long as its server; serves within `running`.

    `bind` is told the project and the environment of the first release, before it is accepted: it blocks, and may
    refuse by raising. `environments` is for the site of the cluster.
    """

    def __init__(
        self,
        state: State,
        data: Path,
        *,
        variables: Mapping[str, str],
        secrets: SecretValues,
        clock: Clock,
        host: Host,
        emit: Emit,
        bind: Callable[[str, str], None] = lambda project, environment: None,
    ) -> None:
        self.store = ReleasesStore(state)
        self.layers = Layers(data / "layers")
        self.environments = ReleaseEnvironments(data / "environments", self.layers.path, variables)
        self.host = host
        self.current: str | None = None
        self.last: Running | None = None
        self._secrets = secrets
        self._clock = clock
        self._emit = emit
        self._bind = bind
        self._is_ending = False
        self._roll_later: set[str] = set()
        self._entering = anyio.Lock()
        self._cluster: Cluster
        self._rollouts: Rollouts
        self._tasks: TaskGroup

    @asynccontextmanager
    async def running(self, cluster: Cluster) -> AsyncIterator[None]:
        """Serve the current release, and take others while the block runs.

        A rollout that a server left when it was killed is marked as failed; one that runs at the end is undone.

        Raises:
            StateError: the state cannot be read.
            OSError: the data directory cannot be written.
        """
        self._cluster = cluster
        self._rollouts = Rollouts(cluster, self.store, self.environments, root=self._root)
        await anyio.to_thread.run_sync(self.layers.open)
        await self._recover()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether a rollout runs."""
        return self.last is not None and self.last.state == "running"

    async def ship(self, release: Release, *, expected: str | None, removes: Collection[str], by: str) -> int:
        """Begin to roll a release out, if `expected` is the current one; the number of the rollout.

        Raises:
            Refused: another one is current, a rollout runs, it would remove more endpoints than `removes`, or something
                that it needs is not here.
            StateError: it could not be noted.
        """
        async with self._entering:
            await self._check_free(expected)
            self._check_names(release.manifest)
            self._check_host(release)
            self._check_layers(release)
            self._check_secrets(release.manifest)
            self._check_removes(release.manifest, removes)
            names = release.manifest.project, release.manifest.environment
            await anyio.to_thread.run_sync(lambda: self._bind(*names))
            return await self._begin(release, by)

    async def rollback(self, *, to: str | None, expected: str | None, by: str) -> int:
        """Begin to roll out an older release: `to`, or the one before the current; the number of the rollout.

        Raises:
            Refused: there is no such release, or as in `ship`.
            StateError: it could not be noted.
        """
        async with self._entering:
            await self._check_free(expected)
            to = to or await self.store.state.call(self.store.before)
            release = await self.store.state.call(self.store.release, to) if to else None
            if release is None:
                what = f"there is no release {to[:80]!r} here" if to else "there is no release before this one"
                raise refusal(404, "not_found", f"{what}; GET /_flashfw/releases lists those that are kept")
            self._check_layers(release)
            self._check_secrets(release.manifest)
            return await self._begin(release, by)

    async def remove(self, *, confirm: str, by: str) -> None:
        """End every endpoint and job, and forget releases and secrets.

        Raises:
            Refused: `confirm` is not `<project>/<environment>`, or a rollout runs.
            StateError, StoreError: not all of it could be done; the next call goes on.
        """
        async with self._entering:
            site = self._cluster.site
            name = f"{site.project}/{site.environment}"
            if confirm != name:
                raise refusal(409, "confirm", f"this server is {name}, not {confirm[:200]}; nothing was removed")
            self._check_idle()
            await self.store.state.call(self.store.clear)
            self.current = self.last = None
            nothing = Manifest(project=site.project, environment=site.environment, endpoints=())
            self._cluster.apply(nothing, root=self.layers.folder)
            await self._end_jobs()
            await anyio.to_thread.run_sync(self._secrets.clear)
            self._emit(Event("removed", None, {"by": by}))

    def roll(self, endpoints: Collection[str]) -> None:
        """Replace the workers of these endpoints by new ones of the same release, after a rollout that runs."""
        if self.is_busy:
            self._roll_later.update(endpoints)
        else:
            served = {endpoint.id for endpoint in self._cluster.manifest.endpoints}
            self._cluster.roll([name for name in endpoints if name in served])

    def roll_users(self, names: Collection[str]) -> None:
        """These secrets changed: roll the endpoints that have them."""
        manifest = self._cluster.manifest
        users = [one.id for one in manifest.endpoints if any(secret.value in names for secret in one.secrets)]
        if users:
            self.roll(users)

    def dismiss(self) -> None:
        """The server ends: whoever follows a rollout would hold that up, and hears of it from the next one.

        What would begin now is the next one's, too: here it would be undone.
        """
        self._is_ending = True
        if self.last is not None:
            self.last.dismiss()

    async def listed(self) -> list[Listed]:
        """The releases that are kept, the newest first."""
        return await self.store.state.call(self.store.listed)

    def _root(self, release: Release) -> Path:
        return self.layers.path(release.source.digest)

    async def _recover(self) -> None:
        await self.store.state.call(self.store.recover, self._clock.now())
        self.current = await self.store.state.call(self.store.current)
        release = await self.store.state.call(self.store.release, self.current) if self.current else None
        if release is None:
            return
        self.environments.know(release)
        if lacking := await anyio.to_thread.run_sync(self.layers.missing, [layer.digest for layer in release.layers]):
            text = (
                f"release {release.id} lacks layers on this disk: {', '.join(lacking)}; `flashfw ship` sends them again"
            )
            self._emit(Event("environment", None, {"text": text}))
        found = {one.id: one for one in await self.listed()}[release.id]
        shipped = Shipped(id=release.id, created=found.created, by=found.by)
        self._cluster.apply(release.manifest, root=self._root(release), shipped=shipped)

    async def _begin(self, release: Release, by: str) -> int:
        at = self._clock.now()
        noted = await self.store.state.call(lambda: self.store.begin(release, by=by, at=at))
        running = self.last = Running(noted, release, self._clock)
        self._tasks.start_soon(self._run, running)
        return noted.number

    async def _run(self, running: Running) -> None:
        await self._rollouts.run(running)
        if running.state == "done":
            self.current = running.release.id
        if self._roll_later:
            again, self._roll_later = self._roll_later, set()
            self.roll(again)
        try:
            await self.collect_garbage()
        except (StateError, OSError) as error:  # it is tried again after the next rollout
            self._emit(internal("removing old releases", error))

    async def collect_garbage(self) -> None:
        """Forget releases beyond those that are kept, and remove what only they needed.

        No rollout begins meanwhile: what it had just been promised would be gone. While one runs nothing is done,
        since its own end comes here.

        Raises:
            StateError, OSError: not all of it could be done.
        """
        async with self._entering:
            if self.is_busy:
                return
            kept = await self.store.state.call(self.store.prune)
            layers = {layer.digest for release in kept for layer in release.layers}
            layers |= {root.name for root in self._cluster.roots()}
            running = self._cluster.environments()
            layers |= self.environments.layers_of(running)
            now = self._clock.now()
            await anyio.to_thread.run_sync(lambda: self.layers.remove_unused(layers, now=now))
            environments = running | {packages.key for release in kept for packages in release.packages}
            await anyio.to_thread.run_sync(self.environments.remove_unused, environments)

    async def _end_jobs(self) -> None:
        """Cancel what waits or runs, as somebody would who cancels each."""
        for state in (JobState.IN_QUEUE, JobState.IN_PROGRESS):
            before: str | None = None
            while found := await self._cluster.store.list(state=state, before=before, limit=PAGE):
                for job in found:
                    await self._cluster.cancel(job)
                before = found[-1].id

    async def _check_free(self, expected: str | None) -> None:
        self._check_idle()
        if expected == self.current:
            return
        found = next((one for one in await self.listed() if one.id == self.current), None)
        by, created = (found.by, found.created) if found else ("", 0.0)
        whose = f"{self.current}, sent by {by}, is current" if self.current else "no release is current"
        message = f"{whose}, not {(expected or 'none')[:80]}: look what changed, and ship again"
        raise refusal(409, "conflict", message, current=self.current, by=by, created=created)

    def _check_idle(self) -> None:
        if self._is_ending:
            raise refusal(503, "draining", "the server is about to end, or to start anew; ask again")
        if self.last is not None and self.is_busy:
            noted = self.last.noted
            message = f"rollout {noted.number} of release {noted.release}, begun by {noted.by}, still runs"
            raise refusal(
                409,
                "busy",
                message,
                rollout=noted.number,
                release=noted.release,
                by=noted.by,
                since=noted.started,
            )

    def _check_names(self, manifest: Manifest) -> None:
        site = self._cluster.site
        bound = f"{site.project}/{site.environment}"
        asked = f"{manifest.project}/{manifest.environment}"
        is_new = self.current is None and not (site.project and site.environment)
        if not is_new and asked != bound:
            raise refusal(422, "project", f"this server is for {bound}, and the release is of {asked}")

    def _check_host(self, release: Release) -> None:
        flaws = []
        for packages in release.packages:
            if not runs_on(packages.platform, self.host.platform):
                flaws.append(f"packages for {packages.platform} do not run here: this is {self.host.platform}")
            if self.host.pythons and packages.python not in self.host.pythons:
                flaws.append(f"there is no Python {packages.python} here, only {', '.join(self.host.pythons)}")
        if flaws:
            raise refusal(422, "host", "; ".join(dict.fromkeys(flaws)))

    def _check_layers(self, release: Release) -> None:
        if lacking := self.layers.missing([layer.digest for layer in release.layers]):
            count = f"{len(lacking)} layer{'s' if len(lacking) > 1 else ''}"
            raise refusal(422, "layers", f"{count} of the release are not here: send them first", missing=lacking)

    def _check_secrets(self, manifest: Manifest) -> None:
        if lacking := missing(manifest, self._secrets.values.keys()):
            told = ", ".join(f"{name} (for {', '.join(users)})" for name, users in lacking.items())
            hint = f"flashfw secret set {manifest.environment} NAME keeps one"
            raise refusal(422, "secrets", f"secrets are missing: {told}; {hint}", secrets=list(lacking))

    def _check_removes(self, manifest: Manifest, removes: Collection[str]) -> None:
        kept = {endpoint.id for endpoint in manifest.endpoints}
        going = {endpoint.id for endpoint in self._cluster.manifest.endpoints} - kept
        if extra := sorted(going - set(removes)):
            message = f"it would delete {', '.join(extra)}, which was not agreed to; nothing was changed"
            raise refusal(409, "removes", message, removes=extra)
