"""The workers of one endpoint: started, rolled, retired and replaced, as the autoscaler and the releases ask."""

from __future__ import annotations

import secrets
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from flashfw.cluster.clock import limit
from flashfw.cluster.dispatch.pace import Pace, clamped
from flashfw.cluster.events import Event, internal
from flashfw.cluster.site import Site
from flashfw.cluster.workers.autoscaler import Decision, Observed, Scaling, decide
from flashfw.cluster.workers.customer import SERVER_STOPS, Customer, NoWorker
from flashfw.cluster.workers.endings import Endings
from flashfw.cluster.workers.launch import Launch, equip, launch, startup_failure
from flashfw.cluster.workers.renewing import Renewals, Saved
from flashfw.cluster.workers.slots import Slots
from flashfw.cluster.workers.stage import Stage
from flashfw.cluster.workers.starts import Starts
from flashfw.cluster.workers.vitals import TICK_S, Vitals, next_look_s
from flashfw.cluster.workers.worker import Worker
from flashfw.manifest import Endpoint
from flashfw.worker.frames import BEAT_S, Failure, Frame, Kind


class Pool:
    """The workers of one endpoint, across its releases. Lives as long as the endpoint is served.

    A release is a generation: a new one is brought up beside the old, and the old ones drain when the
    first new one is ready, so that calls always meet a worker that works.
    """

    def __init__(self, endpoint: Endpoint, site: Site, customer: Customer, tasks: TaskGroup, *, root: Path) -> None:
        self.endpoint = endpoint
        self.root = root
        self.scaling = Scaling.of(endpoint)
        self.generation = 1
        self.workers: list[Worker] = []
        self.hold = False
        self.is_paused = False
        self._is_asked = False
        self.decision: Decision | None = None
        self._site = site
        self._customer = customer
        self._tasks = tasks
        self.starts = Starts(site.clock, patience=site.start_failures)
        self._nudged = anyio.Event()
        self._closing = False
        self._stage: Stage | None = None
        self._newest = self.generation
        self._endings = Endings(site.clock, tasks)
        self._vitals = Vitals(site.clock)
        self._pace = Pace(site.clock)
        self.slots = Slots(self.workers, site.clock)
        self._renewals = Renewals(self, site.clock, self._emit)

    async def run(self) -> None:
        """Keep the number of workers right until `close`."""
        while not self._closing:
            pause_s: float | None = TICK_S
            try:
                self._tick()
                pause_s = self._pause_s()
            except Exception as error:  # the supervisor goes on, whatever one tick met
                self._site.emit(internal("looking after workers", error, self.endpoint.id))
            with limit(self._site.clock, pause_s):
                await self._nudged.wait()
            self._nudged = anyio.Event()

    @property
    def serves(self) -> bool:
        """Whether any worker, of whatever release, takes calls or soon will again."""
        return any(worker.serves for worker in self.workers)

    @property
    def refusal(self) -> Failure | None:
        """Why nobody should wait for a worker now: those that were started broke, and none is left."""
        return None if self.failure is None or self.serves else self.failure

    @property
    def failure(self) -> Failure | None:
        """Why the last start failed, if that made the endpoint unhealthy."""
        return self.starts.failure

    def retry_after_s(self, waiting: int) -> float:
        """When a caller who is refused may come again: at the next start, or when a tenth of `waiting` is done."""
        if self.refusal is not None:
            return clamped(self.starts.retry_in_s)
        return self._pace.retry_after_s(waiting)

    @property
    def retry_in_s(self) -> float:
        """How long until workers are started again after failed starts; 0 where none is held back."""
        return self.starts.retry_in_s

    def nudge(self) -> None:
        """Something changed: decide now."""
        self._nudged.set()

    def apply(self, endpoint: Endpoint, root: Path, saved: Saved = None) -> None:
        """Serve a new release, whose files lie at `root`: bring its workers up beside the old ones.

        Where both do not fit beside each other, or the endpoint asks for that, the old ones end first. Where only files
        were `saved` since, the workers that run take these in if they can.
        """
        self.abandon("another release was applied")
        self._newest += 1
        if saved is not None:
            self._follow(endpoint, root, self._newest)
            self._renewals.begin(endpoint, self.generation, saved)
            return
        self._take_over(endpoint, root, self._newest)
        for worker in list(self.workers):
            if worker.ready is None:
                self._endings.end(worker, "a newer release came")
            elif not self.may_surge(endpoint, 1):
                self._outdate(worker)
        self.nudge()

    def renewed(self, worker: Worker, *, is_new: bool) -> None:
        """As `Host.renewed` of renewals."""
        if is_new:
            self._tell_ready(worker)
        self._serves()

    def left_behind(self, worker: Worker) -> None:
        """As `Host.left_behind` of renewals."""
        if any(other.serves and other.generation == self.generation for other in self.workers):
            self._outdate(worker)
        self._customer.on_free()
        self.nudge()

    def may_surge(self, endpoint: Endpoint, count: int, *, promised: int = 0) -> bool:
        """Whether so many workers of another release may and can start now beside those that serve.

        `promised` GPUs are for others.

        In `dev` always: there the last good code serves on if what was saved does not start.
        """
        devices = self._site.devices
        return devices is None or (endpoint.strategy == "surge" and devices.room(endpoint, promised=promised) >= count)

    def stage(self, endpoint: Endpoint, root: Path, count: int) -> Stage:
        """Bring `count` workers of another release up, which take no calls until `switch`."""
        self._drop_stage("another release was staged")
        self._newest += 1
        self._stage = stage = Stage(endpoint, root, self._newest, count)
        for _ in range(count):
            self._start(endpoint, root, stage.generation, stage)
        return stage

    def switch(self, stage: Stage) -> None:
        """Serve the staged release: new calls go to its workers, the old ones finish what they have."""
        assert stage is self._stage
        stage.end()
        self._stage = None
        self._take_over(stage.endpoint, stage.root, stage.generation)
        self.is_paused = False
        for worker in self.workers:
            worker.stage = None
        if any(worker.serves and worker.generation == stage.generation for worker in self.workers):
            for worker in list(self.workers):
                self._outdate(worker)
        self._customer.on_free()
        self.nudge()

    def abandon(self, why: str) -> None:
        """End what is staged, if anything is, and go on with the release that serves, also after `clear`."""
        self._drop_stage(why)
        self.is_paused = False
        self.nudge()

    async def clear(self, why: str) -> None:
        """Start nothing and drain every worker, until all are gone; callers wait until `switch` or `abandon`."""
        self.is_paused = True
        await self._endings.all_gone(list(self.workers), None, why)

    def idle_since(self) -> float | None:
        """As `Lender.idle_since`."""
        spare = self._spare()
        return None if spare is None else spare.idle_since

    def lend(self, why: str) -> str:
        """As `Lender.lend`."""
        spare = self._spare()
        assert spare is not None
        self._endings.drain(spare, why)
        return spare.id

    def update(self, endpoint: Endpoint, root: Path) -> None:
        """Take a new record and root for the workers to come; those that run have nothing of what changed."""
        self.endpoint, self.root = endpoint, root
        self.scaling = Scaling.of(endpoint)
        self.nudge()

    def expect_worker(self) -> None:
        """Make sure that a caller does not wait in vain. In `dev` its call tries anew: it may come from who mended it.

        Raises:
            NoWorker: workers fail to start.
        """
        if self.refusal is None:
            return
        if not self._site.retries_at_call:
            raise NoWorker(self.refusal)
        self.starts.try_now()
        self.nudge()

    async def close(self, grace_s: float, why: str = SERVER_STOPS) -> None:
        """Drain every worker, and kill what is left after `grace_s`; `why` is told with each."""
        self._closing = True
        self.abandon(why)
        if (devices := self._site.devices) is not None and self in devices.lenders:
            devices.lenders.remove(self)
        await self._endings.all_gone(list(self.workers), grace_s, why)

    def mark_broken(self, worker: Worker, why: str) -> None:
        """Give a worker no further call, let its neighbours finish, then end it."""
        if not worker.is_unhealthy:
            worker.is_unhealthy = True
            self._emit("worker", worker=worker.id, state=worker.state.value, why=why)
            self._endings.drain(worker, why)
            self.nudge()

    def kill(self, worker: Worker, why: str) -> None:
        """End a worker now; what it holds goes back to the queue without a death counted."""
        self._endings.end(worker, why)

    def _drop_stage(self, why: str) -> None:
        if (stage := self._stage) is not None:
            stage.fail(startup_failure(why))
            stage.end()
            self._stage = None
            for worker in list(self.workers):
                if worker.stage is stage:
                    self._endings.end(worker, why)

    def _tick(self) -> None:
        now = self._site.clock.monotonic()
        self._look()
        decision = decide(self._observed(now))
        if self.decision is None or decision.wanted != self.decision.wanted:
            have = len(self._current())
            self._emit("scale", wanted=decision.wanted, have=have, reason=decision.reason)
        self.decision = decision
        for worker in self.workers:
            if worker.id in decision.retire and not self.hold and not worker.slots_used:
                self._endings.drain(worker, decision.reason)
        if not self.starts.is_held_back and not self.is_paused:
            self._start_missing(max(decision.wanted, 1 if self._has_old() else 0))

    def _pause_s(self) -> float | None:
        """How long nothing has to be looked at, if nobody nudges: None for ever, where time alone changes nothing."""
        is_urgent = self.starts.is_held_back or self._is_asked
        return next_look_s(self._site.clock, self.workers, is_urgent=is_urgent) if is_urgent or self.workers else None

    def _start_missing(self, wanted: int) -> None:
        for _ in range(wanted - len(self._current())):
            self._start(self.endpoint, self.root, self.generation)

    def _start(self, endpoint: Endpoint, root: Path, generation: int, stage: Stage | None = None) -> None:
        worker = Worker(f"w-{secrets.token_hex(4)}", endpoint, generation, self._site.clock.monotonic(), root=root)
        worker.stage = stage
        self.workers.append(worker)
        self._emit("worker", worker=worker.id, state=worker.state.value, why="")
        self._tasks.start_soon(self._live, worker)

    def _take_over(self, endpoint: Endpoint, root: Path, generation: int) -> None:
        self._follow(endpoint, root, generation)
        self._emit("rolled", release=generation)

    def _follow(self, endpoint: Endpoint, root: Path, generation: int) -> None:
        self.endpoint, self.root = endpoint, root
        self.scaling = Scaling.of(endpoint)
        self.generation = generation
        self.starts.reset()

    def _outdate(self, worker: Worker) -> None:
        if worker.target < self.generation and not worker.is_outdated:
            worker.is_outdated = True
            self._endings.drain(worker, "a newer release took over")

    def _spare(self) -> Worker | None:
        """The longest idle worker with a GPU that nobody here needs."""
        current = self._current()
        serving = [worker for worker in current if worker.serves]
        if self.hold or self.is_paused or self._customer.demand().queued or len(serving) <= self.scaling.workers_min:
            return None
        idle = [worker for worker in serving if worker.gpus and not worker.slots_used]
        return min(idle, key=lambda worker: worker.idle_since, default=None)

    def _observed(self, now: float) -> Observed:
        demand = self._customer.demand()
        self._is_asked = demand.queued > 0
        return Observed(
            now=now,
            scaling=self.scaling,
            paused=self.is_paused,
            queued=demand.queued,
            slots=demand.slots,
            low=demand.low,
            parked=demand.parked,
            oldest_wait_s=demand.oldest_wait_s,
            failed_starts=self.starts.failures,
            backoff_until=self.starts.blocked_until,
            workers=tuple(worker.view for worker in self._current()),
        )

    def _current(self) -> list[Worker]:
        return [
            worker
            for worker in self.workers
            if worker.target == self.generation and not worker.is_stopping and not worker.is_gone
        ]

    def _has_old(self) -> bool:
        return any(
            worker.target < self.generation and worker.ready is not None and not worker.is_stopping
            for worker in self.workers
        )

    async def _live(self, worker: Worker) -> None:
        """The whole life of one worker, in a task of its own."""
        started = Launch(worker, self._site.clock, on_frame=lambda frame: self._on_frame(worker, frame))
        try:
            failure = await self._bring_up(worker, started)
            if worker.is_stopping:
                self._endings.end(worker, "stopped before it was ready")
            elif failure is None:
                self._became_ready(worker)
                await started.lost.wait()
            else:
                self._start_failed(worker, failure)
            why = await started.ended()
        finally:
            self.workers.remove(worker)
            if self._site.devices is not None:
                self._site.devices.give_back(worker.id)
        if worker.stage is not None:
            worker.stage.fail(startup_failure(f"worker {worker.id} {worker.why_stopped or why} after it was ready"))
        if worker.killed_for is not None:
            why = f"{worker.killed_for[1]} and was ended"
        self._renewals.lost(worker)
        worker.lose(worker.why_stopped or why)
        worker.gone.set()
        self._emit("worker", worker=worker.id, state="GONE", why=worker.why_stopped or why)
        self._customer.on_free()
        self.nudge()

    async def _bring_up(self, worker: Worker, started: Launch) -> Failure | None:
        try:
            with worker.starting:
                if failure := await equip(worker, self._site, self, on_wait=lambda why: self._throttle(worker, why)):
                    return failure
                return await launch(worker, self._site, started)
        except Exception as error:  # whatever goes wrong with one worker is no other's affair
            self._site.emit(internal(f"starting {worker.id}", error, self.endpoint.id))
            return startup_failure(str(error), type=type(error).__name__)
        return startup_failure("stopped before it was ready")

    def _throttle(self, worker: Worker, why: str) -> None:
        worker.why_throttled = why
        if not worker.is_throttled:
            worker.is_throttled = True
            self._emit("worker", worker=worker.id, state=worker.state.value, why=why)

    def _became_ready(self, worker: Worker) -> None:
        worker.idle_since = worker.last_beat = self._site.clock.monotonic()
        if self._renewals.became_ready(worker):
            self._tell_ready(worker)
            if worker.stage is not None:
                worker.stage.became_ready()
            else:
                self._serves()

    def _tell_ready(self, worker: Worker) -> None:
        took = worker.start_took(self._site.clock.monotonic())
        self._emit("worker", worker=worker.id, state=worker.state.value, why="", **took)

    def _serves(self) -> None:
        """A worker is of the newest code: those that are not may go."""
        self.starts.reset()
        for old in list(self.workers):
            self._outdate(old)
        self._customer.on_free()

    def _start_failed(self, worker: Worker, failure: Failure) -> None:
        if worker.stage is not None:
            worker.stage.fail(failure)
            return
        if worker.renewal is not None:
            worker.why_stopped = "a newer release came"
            return
        is_unhealthy = self.starts.failed(failure)
        self._emit(
            "start_failed",
            worker=worker.id,
            failure=dict(failure),
            failures=self.starts.failures,
            retry_in_s=self.starts.retry_in_s,
        )
        if is_unhealthy:
            worker.is_unhealthy = True
            self._customer.on_start_failed(failure)

    def _on_frame(self, worker: Worker, frame: Frame) -> None:
        if frame.call:
            worker.deliver(frame, self._freed)
        elif frame.kind is Kind.BEAT:
            worker.blocked_s = frame.meta.get("blocked_s", 0.0)
            self._beats(worker, frame.meta.get("next_s", BEAT_S))
        elif frame.kind is Kind.LOG:
            text = frame.body.decode(errors="replace")
            if worker.stage is not None:
                worker.stage.hear(text)
            self._emit("output", worker=worker.id, **frame.meta, text=text)
        elif frame.kind is Kind.LOADED:
            worker.files.update(frame.meta["files"])
        elif frame.kind is Kind.RELOADED:
            self._renewals.heard(worker, frame.meta)
        elif frame.kind is Kind.UNFIT:
            self.mark_broken(worker, f"an HTTP call broke it: {frame.meta.get('type')}: {frame.meta.get('message')}")

    def _freed(self, worker: Worker) -> None:
        self._pace.note()
        if not worker.slots_used:
            worker.idle_since = self._site.clock.monotonic()
        self._customer.on_free()

    def _look(self) -> None:
        for worker, ill in self._vitals.look(self.workers):
            if ill.is_fatal:
                self._endings.kill(worker, ill.reason, ill.why)
            elif not worker.is_silent:
                worker.is_silent = True
                self._emit("worker", worker=worker.id, state="SILENT", why=ill.why)

    def _beats(self, worker: Worker, next_s: float) -> None:
        worker.last_beat = self._site.clock.monotonic() + next_s - BEAT_S  # an idle one is silent that much later
        if worker.is_silent:
            worker.is_silent = False
            self._emit("worker", worker=worker.id, state=worker.state.value, why="is heard again")
            self._customer.on_free()

    def _emit(self, name: str, **fields: object) -> None:
        self._site.emit(Event(name, self.endpoint.id, fields))
