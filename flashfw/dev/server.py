"""`flashfw dev`: the embedded cluster over a working tree, following what is saved."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from flashfw.cluster.claim import Claimed
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.environments.environments import Environments
from flashfw.cluster.events import Emit, Event
from flashfw.cluster.gateway.guard import Guard, KeyGuard, LoopbackGuard, is_loopback
from flashfw.cluster.jobs.model import State
from flashfw.cluster.jobs.opening import job_store
from flashfw.cluster.jobs.store import JobStore
from flashfw.cluster.listening import binding
from flashfw.cluster.placement.fork import WARM_AHEAD, placement
from flashfw.cluster.schedules.submitting import lines, soonest
from flashfw.cluster.serving import Front, overlay, serving
from flashfw.cluster.site import Site
from flashfw.cluster.webhooks.sending import Sending
from flashfw.cluster.webhooks.signing import kept_secret
from flashfw.cluster.workers.gpus import read_gpus
from flashfw.dev import dotenv, locked, reload, state
from flashfw.dev.watch import Seen, changes, look
from flashfw.errors import NothingCollectedError, Problem
from flashfw.manifest import Manifest
from flashfw.project.collect import collect
from flashfw.project.compile import compile
from flashfw.project.model import Project, Root
from flashfw.project.select import Selection, check_ids, narrow, parse

DESCRIBE_AFTER_S = 1.0
ENVIRONMENT = "dev"
WEBHOOK_SECRET = "webhook-secret"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks of `dev`; `variables` is the environment that it was started in."""

    root: Root
    host: str
    port: int
    variables: Mapping[str, str]
    cache: Path
    grace_s: float = 3.0
    describe_after_s: float = DESCRIBE_AFTER_S
    database: str | None = None
    cron: bool = False
    selection: Selection = field(default_factory=parse)


@dataclass(frozen=True, slots=True)
class Tree:
    """The project as it is on disk at one moment. `manifest` is what is selected of it.

    `kept` are all functions, served or not; None if files that do not parse may hold more. `unlocked` says why
    versions of the lock are not used.
    """

    project: Project
    manifest: Manifest
    problems: tuple[Problem, ...]
    kept: frozenset[str] | None
    unlocked: str = ""


def read(options: Options) -> Tree:
    """Collect and compile the tree."""
    project = collect(options.root)
    manifest, found = compile(project, environment=ENVIRONMENT)
    problems = (*project.problems, *found)
    is_whole = not any(problem.level == "error" for problem in problems)
    kept = frozenset(function.id for endpoint in manifest.endpoints for function in endpoint.functions)
    pinned = locked.pin(narrow(manifest, options.selection), options.root.path)
    return Tree(project, pinned.manifest, problems, kept if is_whole else None, pinned.note)


async def run(options: Options, *, emit: Emit, stop: anyio.Event) -> None:
    """Serve the project until `stop`. Problems of the tree are events; the rest of it is served.

    Raises:
        NothingCollectedError: the tree holds no endpoint at all, or none that is selected.
        UsageError: an id selects nothing.
        TargetError: the address is in use, or another server serves this project.
        StoreError: the database cannot be reached.
    """
    seen = await anyio.to_thread.run_sync(look, options.root.path)  # before it is read: nothing is saved unseen
    tree = await anyio.to_thread.run_sync(read, options)
    _check(options, tree)
    with state.claimed(options.root.path) as folder, binding.bind(options.host, options.port) as sock:
        key = secrets.token_urlsafe(24)
        values = _secrets(options)
        site = _site(options, folder, tree.project.name, values, emit)
        at = options.database
        store = job_store(at, folder=folder, project=site.project, environment=site.environment, clock=site.clock)
        async with Cluster.running(site, store, grace_s=options.grace_s) as cluster:
            url = binding.url_of(sock)
            guard: Guard = LoopbackGuard() if is_loopback(options.host) else KeyGuard(key)
            async with serving(cluster, sock, Front(guard=guard, grace_s=options.grace_s), emit=emit):
                await _tell_waiting(store, emit)
                cluster.apply(tree.manifest, root=options.root.path, kept=tree.kept)
                emit(Event("problems", None, {"problems": tree.problems}))
                _tell_unlocked(tree, "", emit)
                gpus = await anyio.to_thread.run_sync(read_gpus)
                state.publish(folder, Claimed(url, os.getpid(), key))
                shown = key if isinstance(guard, KeyGuard) else None
                told = {"manifest": tree.manifest, "gpus": gpus, "webhook_secret": f"{state.FOLDER}/{WEBHOOK_SECRET}"}
                emit(Event("serving", None, {"url": url, "key": shown, **told}))
                _tell_schedules(tree.manifest, site, emit)
                await _follow(options, cluster, tree, seen, values, emit=emit, stop=stop)
                left = await _unfinished(store)
                emit(Event("stopping", None, {**left, "grace_s": options.grace_s}))


async def _tell_waiting(store: JobStore, emit: Emit) -> None:
    """Say which jobs of the last run are there; nothing runs yet, so all that are not done wait."""
    jobs = {count.function: count.jobs for count in await store.counts() if count.state is State.IN_QUEUE}
    if jobs:
        emit(Event("waiting", None, {"jobs": jobs}))


def _tell_schedules(manifest: Manifest, site: Site, emit: Emit) -> None:
    """Say that functions want to be started by the clock, and whether they are."""
    count = sum(1 for _ in lines(manifest))
    if count:
        found = soonest(manifest, site.clock.now())
        tick, function = (None, None) if found is None else (found[0], found[1].function.id)
        emit(Event("schedules", None, {"on": site.schedules, "count": count, "next": tick, "function": function}))


def _tell_unlocked(tree: Tree, before: str, emit: Emit) -> None:
    """Say once why the laptop may run other versions than what ships."""
    if tree.unlocked and tree.unlocked != before:
        emit(Event("environment", None, {"text": tree.unlocked}))


async def _unfinished(store: JobStore) -> dict[str, int]:
    counts = await store.counts()
    return {
        "running": sum(count.jobs for count in counts if count.state is State.IN_PROGRESS),
        "queued": sum(count.jobs for count in counts if count.state is State.IN_QUEUE),
    }


def _check(options: Options, tree: Tree) -> None:
    broken = [endpoint.id for endpoint in tree.project.endpoints]
    whole = [function.id for endpoint in tree.manifest.endpoints for function in endpoint.functions]
    check_ids(options.selection, [*broken, *whole])
    if not tree.project.endpoints and not tree.problems:
        raise NothingCollectedError(
            f"no endpoint in {options.root.path}", hint="make endpoints/hello/handler.py with a function 'handler'"
        )
    if not tree.manifest.endpoints and not tree.problems:
        raise NothingCollectedError("no function is selected", hint="`flashfw collect` lists ids; -m goes by 'marks'")


async def _follow(
    options: Options,
    cluster: Cluster,
    tree: Tree,
    seen: Seen,
    values: dict[str, str],
    *,
    emit: Emit,
    stop: anyio.Event,
) -> None:
    """Serve what is saved, until `stop`. `values` are the secrets that workers get, kept as `.env` says."""
    shown = tree.problems
    async for changed in changes(options.root.path, since=seen, stop=stop):
        before, tree = tree.unlocked, await anyio.to_thread.run_sync(read, options)
        _tell_unlocked(tree, before, emit)
        step = reload.plan(
            cluster.manifest,
            tree.manifest,
            project=tree.project,
            problems=tree.problems,
            changed=changed,
            loaded=cluster.loaded(),
            secrets=_renew(values, _secrets(options)) if dotenv.FILE in changed else (),
        )
        _report(step, changed, emit)
        roll = {name: None if name in step.restart else changed for name in step.roll}
        cluster.apply(step.manifest, root=options.root.path, roll=roll, kept=tree.kept)
        cluster.hold(step.held)
        if tree.problems != shown:
            shown = tree.problems
            emit(Event("problems", None, {"problems": shown, "held": step.held}))


def _secrets(options: Options) -> dict[str, str]:
    return {**dotenv.read(options.root.path), **options.variables}


def _renew(values: dict[str, str], now: Mapping[str, str]) -> frozenset[str]:
    """Make the values what they are now, in place; the names of those that changed, came or went."""
    changed = frozenset(name for name in values.keys() | now.keys() if values.get(name) != now.get(name))
    values.clear()
    values.update(now)
    return changed


def _report(step: reload.Reload, changed: Collection[str], emit: Emit) -> None:
    if step.roll or step.added or step.removed:
        fields = {"roll": step.roll, "restart": step.restart, "added": step.added, "removed": step.removed}
        emit(Event("reloaded", None, {**fields, "changed": sorted(changed)}))


def _site(options: Options, folder: Path, project: str, values: Mapping[str, str], emit: Emit) -> Site:
    def told(text: str) -> None:
        emit(Event("environment", None, {"text": text}))

    made = Environments(options.cache / "environments", dict(options.variables), on_event=told)
    return Site(
        state=folder,
        project=project,
        environment=ENVIRONMENT,
        boot=uuid.uuid4().hex,
        placement=placement(folder),
        environments=locked.LockedEnvironments(made, options.variables),
        overlay=overlay(options.cache),
        variables=options.variables,
        secrets=values,
        emit=emit,
        start_failures=1,
        retries_at_call=True,
        describe_after_s=options.describe_after_s,
        warm_ahead=WARM_AHEAD,
        schedules=options.cron,
        reloads=True,
        webhooks=Sending(secret=kept_secret(folder / WEBHOOK_SECRET), allow_loopback=True),
    )
