"""Rollouts: one release takes the place of another, endpoint by endpoint, and back again if any of it fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio

from flashfw.bundle.release import Release
from flashfw.cluster.clock import Clock, limit
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.events import Event, internal
from flashfw.cluster.explaining.moments import duration
from flashfw.cluster.releases import rollout as machine
from flashfw.cluster.releases.environments import ReleaseEnvironments
from flashfw.cluster.releases.rollout import Failed, Phase
from flashfw.cluster.releases.store import Noted, ReleasesStore, Told
from flashfw.cluster.staging import Part, Shipped, Staging
from flashfw.cluster.state import StateError
from flashfw.errors import FlashfwError
from flashfw.worker.frames import Failure

AT_ONCE = max(4, os.cpu_count() or 1)
"""Endpoints of which workers begin at the same moment: a hundred would leave those that serve no CPU."""
HEAD_START_S = 2.0
"""After that long the next one begins, whether those are ready or not: a model that loads for minutes holds up none."""
STOPPED = Failed(endpoint="", message="the server stopped during the rollout; the release before it is served")


class Running:
    """The rollout that runs, or the last one that did, with what it has told so far."""

    def __init__(self, noted: Noted, release: Release, clock: Clock) -> None:
        self.noted = noted
        self.release = release
        self.events: list[Told] = []
        self.state = "running"
        self.failure: Failed | None = None
        self._clock = clock
        self._changed = anyio.Event()
        self._is_dismissed = False

    def say(self, endpoint: str, step: str, text: str) -> None:
        """Tell those who follow it."""
        self.take(self.next(endpoint, step, text))

    def next(self, endpoint: str, step: str, text: str) -> Told:
        """What to tell next, not told yet."""
        return Told(seq=len(self.events) + 1, at=self._clock.now(), endpoint=endpoint, step=step, text=text)

    def take(self, told: Told) -> None:
        """Tell what `next` gave."""
        self.events.append(told)
        self._ring()

    def end(self, state: str, failure: Failed | None = None) -> None:
        """It is over."""
        self.state, self.failure = state, failure
        self._ring()

    async def changed(self, after: int) -> None:
        """Wait until it is over, or has told more than `after` things, or tells nobody here any more."""
        while self.state == "running" and len(self.events) <= after and not self._is_dismissed:
            await self._changed.wait()

    def dismiss(self) -> None:
        """Nobody is to wait for news here from now on."""
        self._is_dismissed = True
        self._ring()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Rollouts:
    """Runs one rollout at a time over a cluster. `root` tells where the files of a release lie."""

    def __init__(
        self,
        cluster: Cluster,
        store: ReleasesStore,
        environments: ReleaseEnvironments,
        *,
        root: Callable[[Release], Path],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._environments = environments
        self._root = root
        self._clock = cluster.site.clock

    async def run(self, running: Running) -> None:
        """Bring a release up and switch to it; or end all of it, so that what was served is served on."""
        staging: Staging | None = None
        try:
            await self._prepare(running)
            staging = self._cluster.stage(running.release.manifest, self._root(running.release))
            failure = await self._bring_up(running, staging) or await self._commit(running)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._undo(running, staging, STOPPED)
            raise
        except FlashfwError as error:
            failure = Failed(endpoint="", message=str(error))
        except Exception as error:  # a defect of ours must not leave a rollout that runs for ever
            self._cluster.site.emit(internal("rolling out", error))
            failure = Failed(endpoint="", message=f"internal error: {type(error).__name__}: {error}")
        if failure is not None:
            await self._undo(running, staging, failure)
        elif staging is not None:
            self._switch(running, staging)

    async def _prepare(self, running: Running) -> None:
        """Make the environments first: that needs no worker, and a Python may have to be fetched."""
        self._environments.know(running.release)
        for packages in running.release.packages:
            began = self._clock.monotonic()
            await self._environments.made(packages)
            if (took_s := self._clock.monotonic() - began) > 0.5:
                running.say("", "environment", f"Python {packages.python} is there after {took_s:.1f} s")

    async def _bring_up(self, running: Running, staging: Staging) -> Failed | None:
        return await _Staged(running, staging, self._clock).run()

    async def _commit(self, running: Running) -> Failed | None:
        """Write down that the release is current, just before traffic moves: a disk that is full is found out here."""
        events = (*running.events, running.next("", "switched", "switched"))
        try:
            with anyio.CancelScope(shield=True):
                await self._store.state.call(
                    lambda: self._store.finish(running.noted.number, at=events[-1].at, events=events)
                )
        except StateError as error:
            return Failed(endpoint="", message=f"the release could not be written down: {error}")
        return None

    def _switch(self, running: Running, staging: Staging) -> None:
        release = running.release
        listed = Shipped(id=release.id, created=running.noted.started, by=running.noted.by)
        self._cluster.apply(release.manifest, root=staging.root, staging=staging, shipped=listed)
        running.say("", "switched", "switched")
        for name, part in sorted(staging.parts.items()):
            if draining := sum(worker.is_outdated for worker in part.dispatcher.pool.workers):
                running.say(name, "draining", f"{name}: draining {draining}")
        self._tell_end(running, "done")

    async def _undo(self, running: Running, staging: Staging | None, failure: Failed) -> None:
        if staging is not None:
            await self._cluster.abandon(staging, "its release was given up")
        whose = f"{failure.endpoint}: " if failure.endpoint else ""
        first = failure.message.splitlines()[0] if failure.message else ""
        running.say(failure.endpoint, "failed", f"{whose}{first}; {_served(running.noted.before)}")
        number, at, events = running.noted.number, self._clock.now(), tuple(running.events)
        with suppress(StateError):  # a disk that is full: the next server marks it as failed
            await self._store.state.call(lambda: self._store.fail(number, failure, at=at, events=events))
        self._tell_end(running, "failed", failure)

    def _tell_end(self, running: Running, state: str, failure: Failed | None = None) -> None:
        fields = {"number": running.noted.number, "release": running.release.id, "state": state}
        why = {"endpoint": failure.endpoint, "why": failure.message} if failure else {}
        self._cluster.site.emit(Event("rollout", None, {**fields, "by": running.noted.by, **why}))
        running.end(state, failure)


class _Staged:
    """The workers of a staging while they are brought up, as the state machine asks."""

    def __init__(self, running: Running, staging: Staging, clock: Clock) -> None:
        parts = staging.parts.items()
        self._running = running
        self._parts = staging.parts
        self._clock = clock
        self._at = machine.begin(
            surge=[name for name, part in parts if part.strategy == "surge"],
            replace=[name for name, part in parts if part.strategy == "replace"],
        )
        self._news = anyio.Event()
        self._places = anyio.Semaphore(AT_ONCE)

    async def run(self) -> Failed | None:
        """Until all are ready: None; or why one is not."""
        async with anyio.create_task_group() as tasks:
            phase: Phase | None = None
            while self._at.phase is not Phase.COMMITTING and not self._at.phase.is_over:
                if self._at.phase is not phase:
                    phase = self._at.phase
                    for name in sorted(self._at.awaited):
                        tasks.start_soon(self._clear if phase is Phase.CLEARING else self._start, name)
                news = self._news = anyio.Event()
                await news.wait()
            tasks.cancel_scope.cancel()
        return self._at.failure

    async def _clear(self, name: str) -> None:
        part = self._parts[name]
        if workers := len(part.dispatcher.pool.workers):
            why = "as its strategy says" if part.endpoint.strategy == "replace" else "no GPU is free beside them"
            self._running.say(name, "draining", f"{name}: draining {workers} first, callers wait ({why})")
        await part.clear()
        self._hear(machine.settled(self._at, name))

    async def _start(self, name: str) -> None:
        part = self._parts[name]
        async with self._places:
            began = self._clock.monotonic()
            stage = part.begin()
            noun = "worker" if part.count == 1 else "workers"
            release = self._running.release.id
            self._running.say(name, "starting", f"{name}: starting {part.count} {noun} of {release}")
            with limit(self._clock, HEAD_START_S):
                await stage.settled.wait()
        await stage.settled.wait()
        if stage.failure is None:
            self._running.say(name, "ready", f"{name}: {_ready(part, self._clock.monotonic() - began)}")
            self._hear(machine.settled(self._at, name))
            await stage.failed.wait()
        assert stage.failure is not None
        self._hear(machine.failed(self._at, _failed(name, stage.failure, stage.output)))

    def _hear(self, at: machine.Rollout) -> None:
        self._at = at
        self._news.set()


def _ready(part: Part, took_s: float) -> str:
    """How long it took until its workers were ready, and of what.

    The import and the fixtures are those of the slowest.
    """
    assert part.stage is not None
    told = [worker.ready for worker in part.dispatcher.pool.workers if worker.stage is part.stage and worker.ready]
    if not told:
        return f"ready in {duration(took_s)}"
    import_s = max(ready["import_s"] for ready in told)
    fixtures_s = max(sum(ready["fixtures_s"].values()) for ready in told)
    return f"ready in {duration(took_s)} (import {duration(import_s)}, fixtures {duration(fixtures_s)})"


def _failed(endpoint: str, failure: Failure, output: tuple[str, ...]) -> Failed:
    message = failure["message"]
    if (kind := failure.get("type", "")) not in ("", "StartupError"):
        message = f"{kind}: {message}"
    if fixture := failure.get("fixture"):
        message = f"the fixture {fixture!r} failed: {message}"
    if place := failure.get("place"):
        message = f"{message} ({place})"
    return Failed(endpoint=endpoint, message=message, traceback=failure.get("traceback", ""), output=output)


def _served(before: str | None) -> str:
    return f"release {before} serves on" if before else "nothing is served, as before"
