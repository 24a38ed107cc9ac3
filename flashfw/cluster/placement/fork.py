"""Workers forked off warm processes where that can be done (Linux), and spawned where it cannot.

There is one zygote per recipe, started with the first worker that needs it. A forked worker is registered, watched and
ended as a spawned one is. A zygote that nobody has used for a while ends, and so does each with its server.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import anyio

from flashfw.cluster.clock import Clock, SystemClock, Timer, limit
from flashfw.cluster.placement import zygote
from flashfw.cluster.placement.base import PlacementError, WorkerSpec
from flashfw.cluster.placement.child import Begun, WorkerProcess, discard
from flashfw.cluster.placement.process import ProcessPlacement, prefer_to_kill
from flashfw.cluster.placement.recipe import Recipe, is_read_once, names_in
from flashfw.cluster.placement.register import Register
from flashfw.cluster.placement.zygote import Forked, NotForked, Zygote, ZygoteGone

WARM_S = 30.0
"""A worker is spawned rather than wait longer for a zygote that imports; those after it are forked."""

WARM_AHEAD = 4
"""So many zygotes a server keeps ahead of need; each holds some 30 MB, and what is preloaded."""

UNUSED_S = 600.0
"""A zygote whose workers have all ended is kept for so long; what made one unfit is believed for as long."""


def placement(state: Path, clock: Clock | None = None) -> ProcessPlacement:
    """How this machine starts workers: by fork where it can."""
    return ForkPlacement(state, clock or SystemClock()) if can_fork() else ProcessPlacement(state)


def can_fork() -> bool:
    """Whether this machine has what forked workers are watched and told by: Linux 5.3 or newer, and no sandbox."""
    if sys.platform != "linux":
        return False
    try:
        for made in (os.pidfd_open(os.getpid()), os.memfd_create("flashfw")):
            os.close(made)
    except OSError:
        return False
    return True


class ForkPlacement(ProcessPlacement):
    """A `ProcessPlacement` that forks workers off zygotes, and spawns those that cannot be forked."""

    def __init__(self, state: Path, clock: Clock) -> None:
        super().__init__(state)
        self._zygotes = Zygotes(self._register, clock)

    async def prepare(self, spec: WorkerSpec) -> None:
        """Start the zygote of such workers, if there is none, and keep it for the usual while."""
        with suppress(NotForked, OSError):  # a worker that is started says so
            await self._zygotes.prepare(spec)

    async def close(self) -> None:
        """As `ProcessPlacement.close`."""
        self._closed = True
        self._zygotes.refuse()
        await super().close()

    async def _end_helpers(self) -> None:
        await self._zygotes.close()

    async def _start(self, spec: WorkerSpec) -> WorkerProcess:
        try:
            child = await self._forked(spec)
        except NotForked as error:
            return await self._spawn(spec, f"spawned: {error}")
        except OSError as error:
            return await self._spawn(spec, f"spawned: {error.strerror or error}")
        return await self._register_forked(spec, child)

    async def _forked(self, spec: WorkerSpec) -> Forked:
        if anyio.current_effective_deadline() == -float("inf"):
            raise NotForked("its start was cancelled")
        try:
            return await self._zygotes.fork(spec)
        except ZygoteGone:
            return await self._zygotes.fork(spec)

    async def _register_forked(self, spec: WorkerSpec, child: Forked) -> WorkerProcess:
        prefer_to_kill(child.pid)
        with anyio.CancelScope(shield=True):
            try:
                record = await anyio.to_thread.run_sync(self._noted, spec, child)
            except PlacementError:
                discard(child)
                raise
        return self._watched(child, record)


class Zygotes:
    """The zygotes of one server, by recipe."""

    def __init__(self, register: Register, clock: Clock) -> None:
        self._register = register
        self._clock = clock
        self._made: dict[Recipe, Zygote] = {}
        self._records: dict[int, Path] = {}
        self._timers: dict[Zygote, Timer] = {}
        self._living: set[Zygote] = set()
        self._unfit: set[Recipe] = set()
        self._starting = anyio.Lock()
        self._refuses = False

    async def fork(self, spec: WorkerSpec) -> Forked:
        """Fork a worker off its zygote, which is started and waited for if need be.

        Cancelled before the fork, nothing has begun; after that, no worker is lost.

        Raises:
            NotForked: it cannot be, and why.
            OSError: the machine has no room for what it takes.
        """
        found = await self._fit(spec)
        self._used(found)
        with anyio.CancelScope(shield=True):
            child = await found.fork(spec)
        return child

    async def prepare(self, spec: WorkerSpec) -> None:
        """Start the zygote of a worker unless there is one; it counts as used. One that was unfit is not tried again.

        Raises:
            NotForked: none can be started.
            OSError: the machine has no room for it.
        """
        recipe = Recipe.of(spec)
        if recipe in self._unfit:
            return
        found = self._made.get(recipe) or await self._make(recipe)
        if found.unfit:
            self._unfit.add(recipe)
        else:
            self._used(found)

    def refuse(self) -> None:
        """Start none from now on, and let nobody wait for one."""
        self._refuses = True
        for found in self._made.values():
            if not found.settled.is_set():
                found.kill()

    async def close(self) -> None:
        """End them all; their workers have ended before."""
        self.refuse()
        living = list(self._living)  # also those that were told to end a moment ago
        for found in living:
            found.kill()
        for found in living:
            await found.gone.wait()
        for timer in self._timers.values():
            timer.cancel()

    async def _fit(self, spec: WorkerSpec) -> Zygote:
        hidden = sorted(name for name in spec.secrets if is_read_once(name))
        if hidden:
            raise NotForked(f"its secret {hidden[0]} has to be there when its interpreter starts")
        recipe = Recipe.of(spec)  # a few stats, which take less than a hop to a thread
        found = self._made.get(recipe) or await self._make(recipe)
        with limit(self._clock, WARM_S):
            await found.settled.wait()
        if not found.settled.is_set():
            raise NotForked("what is preloaded is still being imported")
        if found.unfit:
            raise NotForked(found.unfit)
        if both := found.names & names_in(spec.root, with_plain_folders=False):
            raise NotForked(f"the project has a module {min(both)!r}, and what is preloaded another of that name")
        return found

    async def _make(self, recipe: Recipe) -> Zygote:
        with anyio.CancelScope(shield=True):
            async with self._starting:
                if self._refuses:
                    raise NotForked("the server is stopping")
                if recipe not in self._made:
                    self._made[recipe] = await self._started(recipe)
                made = self._made[recipe]
        return made

    async def _started(self, recipe: Recipe) -> Zygote:
        started, record = await anyio.to_thread.run_sync(self._begin, recipe)
        found = Zygote(*started, self._clock, on_end=lambda: self._ended(recipe, found))
        self._records[found.pid] = record
        self._living.add(found)
        self._used(found)
        return found

    def _begin(self, recipe: Recipe) -> tuple[Begun, Path]:
        """On a thread."""
        started = zygote.start(recipe)
        try:
            record = self._register.add(f"zygote-{started[0].pid}", started[0].pid)
        except OSError:
            zygote.discard(started)
            raise
        prefer_to_kill(started[0].pid)
        return started, record

    def _ended(self, recipe: Recipe, found: Zygote) -> None:
        self._living.discard(found)
        self._register.remove(found.pid)
        self._records.pop(found.pid).unlink(missing_ok=True)
        if found.settled.is_set() and not found.unfit:  # an unfit one is kept, so that it is not tried each time
            self._forget(recipe, found)

    def _used(self, found: Zygote) -> None:
        """Look again once it may have been unused for long."""
        if (timer := self._timers.pop(found, None)) is not None:
            timer.cancel()
        self._timers[found] = self._clock.call_later(UNUSED_S, lambda: self._look(found))

    def _look(self, found: Zygote) -> None:
        if not found.is_gone and not found.is_idle:
            self._used(found)
            return
        found.kill()
        for recipe in [recipe for recipe, made in self._made.items() if made is found]:
            self._forget(recipe, found)

    def _forget(self, recipe: Recipe, found: Zygote) -> None:
        if self._made.get(recipe) is found:
            del self._made[recipe]
        if (timer := self._timers.pop(found, None)) is not None:
            timer.cancel()
