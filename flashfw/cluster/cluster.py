"""The embedded cluster: what is served now, and how that changes from one manifest to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from flashfw.cluster.clock import sleep
from flashfw.cluster.describing import Descriptions
from flashfw.cluster.dispatch.dispatcher import JobDispatcher
from flashfw.cluster.dispatch.holding import HttpDispatcher
from flashfw.cluster.dispatch.job_events import ended
from flashfw.cluster.dispatch.keeping import RETRY_S
from flashfw.cluster.documents import openapi
from flashfw.cluster.environments.system_dependencies import install_line, missing_system_dependencies
from flashfw.cluster.events import Event, all_of, internal, store_failed
from flashfw.cluster.explaining.inquiry import inquire
from flashfw.cluster.explaining.journal import Journal
from flashfw.cluster.explaining.standing import queues, standing
from flashfw.cluster.gateway.answers import to_json
from flashfw.cluster.gateway.http_calls import HttpTarget
from flashfw.cluster.gateway.intake import JobTarget
from flashfw.cluster.gateway.routes import Routes, Target
from flashfw.cluster.housekeeping import Housekeeper
from flashfw.cluster.job_files import JobFiles
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.store import Change, JobStore, StoreError
from flashfw.cluster.schedules.submitting import Schedules
from flashfw.cluster.site import Site
from flashfw.cluster.staging import Dispatcher, Part, Shipped, Staging
from flashfw.cluster.watch import Watch
from flashfw.cluster.webhooks.sending import Webhooks
from flashfw.cluster.workers.renewing import concern
from flashfw.cluster.workers.warming import Warming
from flashfw.manifest import Endpoint, Manifest

SWEEP_FILES_EVERY_S = 60.0


class Cluster:
    """Endpoints with their workers over one job store. Lives inside `running`."""

    def __init__(self, site: Site, store: JobStore, tasks: TaskGroup, journal: Journal) -> None:
        self.site = site
        self.store = store
        self.journal = journal
        self.watch = Watch(site.clock)
        self.job_files = JobFiles(site.files, is_synced=site.files_synced)
        self.title = site.project
        self.routes = Routes(())
        self.manifest = Manifest(project=site.project, environment=site.environment, endpoints=())
        self.root: Path | None = None
        self.shipped: Shipped | None = None
        self.dispatchers: dict[str, Dispatcher] = {}
        self._functions: frozenset[str] = frozenset()
        self._housekeeper = Housekeeper(site, store, self.watch, on_claimable=self._wake)
        self._descriptions = Descriptions(site)
        self._warming = Warming(site)
        self._document: tuple[tuple[object, object], bytes] = (None, None), b""
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._retiring: set[Dispatcher] = set()
        self._staging: Staging | None = None
        self._describing = anyio.Semaphore(1)
        self._tasks = tasks

    @classmethod
    @asynccontextmanager
    async def running(cls, site: Site, store: JobStore, *, grace_s: float) -> AsyncIterator[Cluster]:
        """A cluster that serves nothing yet; at the end its workers are drained for at most `grace_s`.

        Jobs that a dead server had claimed are back in the queue, and its workers are gone.
        """
        for pid in await site.placement.sweep():
            site.emit(Event("worker", None, {"worker": str(pid), "state": "SWEPT", "why": "left by a dead server"}))
        cluster: Cluster | None = None

        def changed(change: Change) -> None:
            if cluster is not None:
                cluster.on_change(change)

        requeued = await store.open(site.boot, on_change=changed)
        journal = Journal(store, site.clock, site.emit)
        journal.note("server", state="STARTED")
        site = dataclasses.replace(site, emit=all_of(site.emit, journal.take), files_synced=store.is_synced)
        webhooks = None
        if site.webhooks is not None:
            webhooks = Webhooks(store, site.webhooks, clock=site.clock, emit=site.emit)
            site = dataclasses.replace(site, emit=all_of(site.emit, webhooks.take))
        if requeued:
            site.emit(Event("recovered", None, {"jobs": requeued}))
        try:
            async with anyio.create_task_group() as tasks:
                cluster = cls(site, store, tasks, journal)
                tasks.start_soon(cluster._housekeeper.run)
                tasks.start_soon(cluster._sweep_files)
                tasks.start_soon(cluster._warming.run)
                tasks.start_soon(journal.run)
                if webhooks is not None:
                    tasks.start_soon(webhooks.run)
                if site.schedules:
                    tasks.start_soon(cluster._clockwork().run)
                try:
                    yield cluster
                finally:
                    with anyio.CancelScope(shield=True):
                        await cluster._close(grace_s)
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await site.placement.close()
                journal.note("server", state="STOPPED")
                await journal.flush()
                await store.close()

    def apply(
        self,
        manifest: Manifest,
        *,
        root: Path,
        roll: Mapping[str, Collection[str] | None] | None = None,
        kept: Collection[str] | None = (),
        staging: Staging | None = None,
        shipped: Shipped | None = None,
    ) -> None:
        """Serve a manifest, whose project lies at `root`: start what is new, roll what changed, drain what is gone.

        Endpoints whose fingerprint changed are rolled, or with `roll` exactly those that it names: by the workers that
        run, where it has the files that were saved and these can take them in. An endpoint that changed its kind is
        another one: the old one is drained. Jobs of a function that is no longer there end after a minute; `kept` are
        functions that are there, though not served: None if nobody can tell which, since files do not parse. Workers
        that `staging` has brought up take over where there are some; `shipped` says which release it is, if one.
        """
        before = {endpoint.id: endpoint for endpoint in self.manifest.endpoints}
        after = {endpoint.id: endpoint for endpoint in manifest.endpoints}
        # First, so that whoever hears of a change below meets what is served now.
        self._bind(manifest)
        self.manifest, self.root, self.shipped = manifest, root, shipped
        self._warming.serve(manifest.endpoints, root)
        parts = staging.parts if staging else {}
        self._staging = None
        for name, old in before.items():
            if name not in after or after[name].kind != old.kind:
                self._remove(old)
        for name, endpoint in after.items():
            if name not in self.dispatchers:
                self._add(endpoint, parts[name].dispatcher if name in parts else self._dispatcher(endpoint, root))
                self._begin(endpoint, root, parts.get(name))
            else:
                is_changed = before[name].fingerprint != endpoint.fingerprint
                dispatcher = self.dispatchers[name]
                if is_changed if roll is None else name in roll:
                    stage = parts[name].stage if name in parts else None
                    dispatcher.apply(endpoint, root, stage, roll.get(name) if roll else None)
                elif is_changed or root != dispatcher.pool.root:  # a thousand others need not be woken
                    dispatcher.pool.update(endpoint, root)
                self._look_into(before[name], endpoint, root)
        self.routes = Routes(self._targets())
        self._functions = frozenset(function.id for endpoint in manifest.endpoints for function in endpoint.functions)
        self._housekeeper.serve(None if kept is None else self._functions.union(kept))

    def stage(self, manifest: Manifest, root: Path) -> Staging:
        """What `manifest` changes, ready to be brought up part by part; nothing has started yet.

        One at a time: `apply` it, or `abandon` it.
        """
        self._bind(manifest)
        before = {endpoint.id: endpoint for endpoint in self.manifest.endpoints}
        parts: list[Part] = []
        for endpoint in manifest.endpoints:
            old = before.get(endpoint.id)
            if old is None or old.kind != endpoint.kind:
                parts.append(Part(endpoint, root, self._dispatcher(endpoint, root), is_new=True))
            elif old.fingerprint != endpoint.fingerprint:
                parts.append(Part(endpoint, root, self.dispatchers[endpoint.id], is_new=False))
        self._staging = Staging(manifest, root, parts)
        return self._staging

    async def abandon(self, staging: Staging, why: str) -> None:
        """End what was staged; what served before serves on."""
        staging.abandon(why)
        if self._staging is staging:
            self._staging = None
        for part in staging.parts.values():
            if part.is_new:
                await part.dispatcher.close(0.0, why)

    def roots(self) -> set[Path]:
        """Where the files lie of all that is served, or that a worker has yet to finish."""
        used = {worker.root for dispatcher in self._all() for worker in dispatcher.pool.workers}
        served = (self.root, self._staging.root if self._staging else None)
        return used | {root for root in served if root is not None}

    def environments(self) -> set[str]:
        """The keys of the locked environments that workers run in, or may start in."""
        pools = [dispatcher.pool for dispatcher in self._all()]
        running = {worker.endpoint.environment for pool in pools for worker in pool.workers}
        return running | {pool.endpoint.environment for pool in pools}

    def roll(self, endpoints: Collection[str]) -> None:
        """Replace the workers of these endpoints by such of the same release, which start anew."""
        if self.root is not None:
            self.apply(self.manifest, root=self.root, roll=dict.fromkeys(endpoints), shipped=self.shipped)

    def on_change(self, change: Change) -> None:
        """Another server on the same store changed a job: tell who waits for it, runs it, or may claim it."""
        if not change.function:
            self._tasks.start_soon(self._look_again)
            return
        for dispatcher in (*self.dispatchers.values(), *self._retiring):
            if not isinstance(dispatcher, JobDispatcher):
                continue
            if dispatcher.runs(change.job):
                self._tasks.start_soon(dispatcher.check, change.job)
            if change.state is State.IN_QUEUE and change.function in dispatcher.functions:
                dispatcher.wake()
        if change.state.is_terminal and self.watch.is_watched(change.job):
            self._tasks.start_soon(self._tell_end, change.job)
        else:
            self.watch.ring(change.job)

    def hold(self, held: Iterable[str]) -> None:
        """Keep the present workers of these endpoints, and of no others, however idle they are."""
        names = set(held)
        for name, dispatcher in self.dispatchers.items():
            dispatcher.pool.hold = name in names

    def loaded(self) -> dict[str, frozenset[str]]:
        """The project files that concern the workers of each endpoint."""
        return {name: concern(item.pool) for name, item in self.dispatchers.items()}

    def openapi(self) -> bytes:
        known, manifest = self._descriptions.known(), self.manifest
        made_of, document = self._document
        if made_of[0] is not manifest or made_of[1] is not known:  # of a large project it takes a tenth of a second
            document = to_json(openapi.document(manifest, known, title=self.title, version="0"))
            self._document = (manifest, known), document
        return document

    def status(self) -> dict[str, object]:
        return {
            "project": self.site.project,
            "environment": self.site.environment,
            "release": self._release(),
            "endpoints": [self._standing(name, item) for name, item in sorted(self.dispatchers.items())],
        }

    def _standing(self, name: str, item: Dispatcher) -> dict[str, object]:
        found = standing(name, item, clock=self.site.clock, scaled=self.journal.scaled(name))
        return {**found, "queues": queues(item, self.store) if isinstance(item, JobDispatcher) else []}

    def _release(self) -> dict[str, object] | None:
        if (shipped := self.shipped) is None:
            return None
        age_s = max(0.0, self.site.clock.now() - shipped.created)
        return {"id": shipped.id, "created": shipped.created, "age_s": age_s, "by": shipped.by}

    async def why(self, job_id: str) -> dict[str, Any] | None:
        """The story of a job with its reasons, or None if there is no such job.

        Raises:
            StoreError: the store cannot be read.
        """
        jobs = {name: item for name, item in self.dispatchers.items() if isinstance(item, JobDispatcher)}
        story = await inquire(
            job_id,
            store=self.store,
            journal=self.journal,
            serving=jobs,
            absence=self._housekeeper.absence,
            clock=self.site.clock,
        )
        return None if story is None else story.to_json()

    async def cancel(self, job: Job) -> Job | None:
        """Cancel a job of any function, served or not: its record at once, and whoever runs it stops.

        None if it has ended already.
        """
        cancelled = await self.store.cancel(job.id)
        if cancelled is not None:
            for dispatcher in (*self.dispatchers.values(), *self._retiring):  # it may have been claimed meanwhile
                if isinstance(dispatcher, JobDispatcher):
                    dispatcher.stop(job.id)
            self.watch.ring(job.id, cancelled)
            self.site.emit(ended(cancelled))
        return cancelled

    def _clockwork(self) -> Schedules:
        return Schedules(self.site, self.store, served=lambda: self.manifest, submit=self._submit)

    async def _submit(self, job: Job) -> Job:
        """Keep a job that no caller waits for."""
        dispatcher = self.dispatchers[job.endpoint]
        assert isinstance(dispatcher, JobDispatcher)
        return await dispatcher.submit(job)

    def _bind(self, manifest: Manifest) -> None:
        """Take the names of what is served, which an empty server learns from the first release that it gets."""
        if not self.dispatchers and (manifest.project, manifest.environment) != (
            self.site.project,
            self.site.environment,
        ):
            self.site = dataclasses.replace(self.site, project=manifest.project, environment=manifest.environment)
            self._descriptions = Descriptions(self.site)
            self.title = manifest.project

    def _dispatcher(self, endpoint: Endpoint, root: Path) -> Dispatcher:
        if endpoint.kind == "job":
            return JobDispatcher(
                endpoint,
                root=root,
                site=self.site,
                store=self.store,
                watch=self.watch,
                tasks=self._tasks,
                on_requeued=self._requeued,
            )
        return HttpDispatcher(endpoint, root=root, site=self.site, tasks=self._tasks)

    def _add(self, endpoint: Endpoint, dispatcher: Dispatcher) -> None:
        self.dispatchers[endpoint.id] = dispatcher
        self._scopes[endpoint.id] = scope = anyio.CancelScope()
        self._tasks.start_soon(self._serve, dispatcher, scope)

    def _begin(self, endpoint: Endpoint, root: Path, part: Part | None) -> None:
        if part is not None and part.stage is not None:
            part.dispatcher.apply(endpoint, root, part.stage)
        self._tasks.start_soon(self._describe, endpoint, root)
        self._tasks.start_soon(self._verify, endpoint)

    def _look_into(self, old: Endpoint, endpoint: Endpoint, root: Path) -> None:
        if old.fingerprint != endpoint.fingerprint:
            self._tasks.start_soon(self._describe, endpoint, root)
        if old.system_dependencies != endpoint.system_dependencies:
            self._tasks.start_soon(self._verify, endpoint)

    def _remove(self, endpoint: Endpoint) -> None:
        dispatcher = self.dispatchers.pop(endpoint.id)
        self._descriptions.forget(endpoint)
        self._retiring.add(dispatcher)
        self._tasks.start_soon(self._retire, dispatcher, self._scopes.pop(endpoint.id))

    async def _retire(self, dispatcher: Dispatcher, scope: anyio.CancelScope) -> None:
        scope.cancel()
        await dispatcher.retire()
        self._retiring.discard(dispatcher)

    async def _serve(self, dispatcher: Dispatcher, scope: anyio.CancelScope) -> None:
        with scope:
            await dispatcher.run()

    async def _tell_end(self, job_id: str) -> None:
        try:
            job = await self.store.get(job_id)
        except StoreError as error:
            self.site.emit(store_failed(error))
            job = None
        self.watch.ring(job_id, job if job is not None and job.state.is_terminal else None)

    async def _look_again(self) -> None:
        """News may have been missed: of every job that runs here, or that somebody waits for, take what it is now."""
        seen: set[str] = set()
        while left := self._attended() - seen:
            for job_id in left:
                try:
                    job = await self.store.peek(job_id)
                except StoreError:  # the database is not back yet for all
                    await sleep(self.site.clock, RETRY_S)
                    break
                seen.add(job_id)
                if job is not None:
                    self.on_change(Change(job.id, job.function, job.state))
        self._wake()

    def _attended(self) -> set[str]:
        dispatchers = (*self.dispatchers.values(), *self._retiring)
        running = (item.running() for item in dispatchers if isinstance(item, JobDispatcher))
        return set(self.watch.watched()).union(*running)

    def _wake(self) -> None:
        """Jobs may be claimable that nobody was told of."""
        if not self.store.pending(self._functions).claimable:  # each second: asked once for a thousand
            return
        for dispatcher in self.dispatchers.values():
            if isinstance(dispatcher, JobDispatcher) and self.store.pending(dispatcher.functions).claimable:
                dispatcher.wake()

    def _requeued(self, job: Job) -> None:
        """A job that came back to an endpoint without its function (any more) is for the one that has it."""
        for dispatcher in self.dispatchers.values():
            if isinstance(dispatcher, JobDispatcher) and job.function in dispatcher.functions:
                dispatcher.wake()

    async def _describe(self, endpoint: Endpoint, root: Path) -> None:
        try:
            if self.site.describe_after_s:
                await sleep(self.site.clock, self.site.describe_after_s)
            async with self._describing:
                if self.manifest.endpoint(endpoint.id) == endpoint:
                    await self._descriptions.describe(endpoint, root)
        except Exception as error:  # documents may lack an endpoint; what serves must not end for that
            self.site.emit(internal("describing", error, endpoint.id))

    async def _verify(self, endpoint: Endpoint) -> None:
        """System packages are the machine's: say which are missing, and how to get them."""
        missing = await anyio.to_thread.run_sync(missing_system_dependencies, endpoint.system_dependencies)
        if missing:
            self.site.emit(
                Event("system_missing", endpoint.id, {"packages": missing, "install": install_line(missing)})
            )

    async def _sweep_files(self) -> None:
        """The files of jobs that are forgotten go; the first round is for what a killed server was receiving."""
        while True:
            try:
                await self.job_files.sweep(self.store)
            except StoreError as error:
                self.site.emit(store_failed(error))
            except Exception as error:  # the supervisor goes on, whatever one round met
                self.site.emit(internal("removing the files of forgotten jobs", error))
            await sleep(self.site.clock, SWEEP_FILES_EVERY_S)

    async def _close(self, grace_s: float) -> None:
        async with anyio.create_task_group() as closing:
            for dispatcher in self._all():
                closing.start_soon(dispatcher.close, grace_s)

    def _all(self) -> set[Dispatcher]:
        """Every dispatcher that may have workers: those that serve, that retire, that are to come."""
        coming = self._staging.parts.values() if self._staging else ()
        return {*self.dispatchers.values(), *self._retiring, *(part.dispatcher for part in coming)}

    def _targets(self) -> list[Target]:
        targets: list[Target] = []
        for endpoint in self.manifest.endpoints:
            dispatcher = self.dispatchers[endpoint.id]
            for function in endpoint.functions:
                if isinstance(dispatcher, JobDispatcher):
                    targets.append(JobTarget(function, dispatcher))
                else:
                    targets.append(HttpTarget(function, dispatcher))
        return targets
