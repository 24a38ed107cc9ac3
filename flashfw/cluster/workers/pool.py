"""The workers of one endpoint: started, rolled, retired and replaced, as the autoscaler and the releases ask."""

from __future__ import annotations

import secrets
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from flashfw.cluster.clock import limit
from flashfw.cluster.dispatch.pace import Pace, clamped
from flashfw.cluster.events import Event, internal
from flashfw.cluster.jobs.model import Reason
from flashfw.cluster.site import Site
from flashfw.cluster.workers.autoscaler import Decision, Observed, Scaling, WorkerView, decide
from flashfw.cluster.workers.customer import SERVER_STOPS, Customer, NoWorker
from flashfw.cluster.workers.launch import Launch, launch, startup_failure
from flashfw.cluster.workers.slots import Slots
from flashfw.cluster.workers.starts import Starts
from flashfw.cluster.workers.vitals import Vitals
from flashfw.cluster.workers.worker import Worker
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Failure, Frame, Kind

TICK_S = 0.5


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
        self.decision: Decision | None = None
        self._site = site
        self._customer = customer
        self._tasks = tasks
        self.starts = Starts(site.clock, patience=site.start_failures)
        self._nudged = anyio.Event()
        self._closing = False
        self._vitals = Vitals(site.clock)
        self._pace = Pace(site.clock)
        self.slots = Slots(self.workers, site.clock)

    async def run(self) -> None:
        """Keep the number of workers right until `close`."""
        while not self._closing:
            pause_s: float | None = TICK_S
            try:
                self._tick()
                pause_s = TICK_S if self._has_to_look() else None
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
        return None if self.serves else self.failure

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

    def apply(self, endpoint: Endpoint, root: Path) -> None:
        """Serve a new release, whose files lie at `root`: bring its workers up beside the old ones."""
        self.endpoint, self.root = endpoint, root
        self.scaling = Scaling.of(endpoint)
        self.generation += 1
        self.starts.reset()
        for worker in self.workers:
            if worker.ready is None:
                self._end(worker, "a newer release came")
        self._emit("rolled", release=self.generation)
        self.nudge()

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
        self.nudge()
        for worker in list(self.workers):
            self._drain(worker, why)
        leaving = list(self.workers)
        with limit(self._site.clock, grace_s):
            for worker in leaving:
                await worker.gone.wait()
        for worker in leaving:
            self._end(worker, why)
        for worker in leaving:
            await worker.gone.wait()

    def mark_broken(self, worker: Worker, why: str) -> None:
        """Give a worker no further call, let its neighbours finish, then end it."""
        if not worker.is_unhealthy:
            worker.is_unhealthy = True
            self._emit("worker", worker=worker.id, state=worker.state.value, why=why)
            self._drain(worker, why)
            self.nudge()

    def kill(self, worker: Worker, why: str) -> None:
        """End a worker now; what it holds goes back to the queue without a death counted."""
        self._end(worker, why)

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
                self._drain(worker, decision.reason)
        if not self.starts.is_held_back:
            self._start_missing(max(decision.wanted, 1 if self._has_old() else 0))

    def _has_to_look(self) -> bool:
        """Whether time alone may change what is to be done."""
        return bool(self.workers) or self.starts.is_held_back or self._customer.demand().queued > 0

    def _start_missing(self, wanted: int) -> None:
        for _ in range(wanted - len(self._current())):
            name, now = f"w-{secrets.token_hex(4)}", self._site.clock.monotonic()
            worker = Worker(name, self.endpoint, self.generation, now, root=self.root)
            self.workers.append(worker)
            self._emit("worker", worker=worker.id, state=worker.state.value, why="")
            self._tasks.start_soon(self._live, worker)

    def _observed(self, now: float) -> Observed:
        demand = self._customer.demand()
        return Observed(
            now=now,
            scaling=self.scaling,
            queued=demand.queued,
            slots=demand.slots,
            low=demand.low,
            parked=demand.parked,
            oldest_wait_s=demand.oldest_wait_s,
            failed_starts=self.starts.failures,
            backoff_until=self.starts.blocked_until,
            workers=tuple(
                WorkerView(
                    id=worker.id,
                    state=worker.state,
                    slots_used=worker.slots_used,
                    idle_since=None if worker.slots_used else worker.idle_since,
                )
                for worker in self._current()
            ),
        )

    def _current(self) -> list[Worker]:
        return [
            worker
            for worker in self.workers
            if worker.generation == self.generation and not worker.is_stopping and not worker.is_gone
        ]

    def _has_old(self) -> bool:
        return any(
            worker.generation < self.generation and worker.ready is not None and not worker.is_stopping
            for worker in self.workers
        )

    async def _live(self, worker: Worker) -> None:
        """The whole life of one worker, in a task of its own."""
        started = Launch(worker, self._site.clock, on_frame=lambda frame: self._on_frame(worker, frame))
        try:
            failure = await self._bring_up(worker, started)
            if worker.is_stopping:
                self._end(worker, "stopped before it was ready")
            elif failure is None:
                self._became_ready(worker)
                await started.lost.wait()
            else:
                self._start_failed(worker, failure)
            why = await started.ended()
        finally:
            self.workers.remove(worker)
        if worker.killed_for is not None:
            why = f"{worker.killed_for[1]} and was ended"
        worker.lose(worker.why_stopped or why)
        worker.gone.set()
        self._emit("worker", worker=worker.id, state="GONE", why=worker.why_stopped or why)
        self._customer.on_free()
        self.nudge()

    async def _bring_up(self, worker: Worker, started: Launch) -> Failure | None:
        try:
            with worker.starting:
                return await launch(worker, self._site, started)
        except Exception as error:  # whatever goes wrong with one worker is no other's affair
            self._site.emit(internal(f"starting {worker.id}", error, self.endpoint.id))
            return startup_failure(str(error), type=type(error).__name__)
        return startup_failure("stopped before it was ready")

    def _became_ready(self, worker: Worker) -> None:
        now = self._site.clock.monotonic()
        worker.idle_since = worker.last_beat = now
        self.starts.reset()
        assert worker.ready is not None
        self._emit(
            "worker",
            worker=worker.id,
            state=worker.state.value,
            why="",
            start_s=now - worker.created_at,
            environment_s=worker.environment_s,
            import_s=worker.ready["import_s"],
            fixtures_s=worker.ready["fixtures_s"],
        )
        for old in self.workers:
            if old.generation < worker.generation and not old.is_outdated:
                old.is_outdated = True
                self._drain(old, "a newer release took over")
        self._customer.on_free()

    def _start_failed(self, worker: Worker, failure: Failure) -> None:
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
            self._beats(worker)
        elif frame.kind is Kind.LOG:
            self._emit("output", worker=worker.id, **frame.meta, text=frame.body.decode(errors="replace"))
        elif frame.kind is Kind.LOADED:
            worker.files.update(frame.meta["files"])
        elif frame.kind is Kind.UNFIT:
            self.mark_broken(worker, f"an HTTP call broke it: {frame.meta.get('type')}: {frame.meta.get('message')}")

    def _freed(self, worker: Worker) -> None:
        self._pace.note()
        if not worker.slots_used:
            worker.idle_since = self._site.clock.monotonic()
        self._customer.on_free()

    def _drain(self, worker: Worker, why: str) -> None:
        if worker.is_stopping:
            return
        worker.is_stopping = True
        worker.why_stopped = why
        if worker.ready is None:
            self._end(worker, why)
            return
        worker.send(Kind.DRAIN)
        self._tasks.start_soon(self._end_after, worker, worker.endpoint.drain_timeout_s, why)

    async def _end_after(self, worker: Worker, seconds: float, why: str) -> None:
        with limit(self._site.clock, seconds):
            await worker.gone.wait()
        self._end(worker, why)

    def _end(self, worker: Worker, why: str) -> None:
        worker.why_stopped = worker.why_stopped or why
        worker.is_stopping = True
        worker.starting.cancel()
        if worker.process is not None:
            worker.process.kill()

    def _look(self) -> None:
        for worker, ill in self._vitals.look(self.workers):
            if ill.is_fatal:
                self._kill(worker, ill.reason, ill.why)
            elif not worker.is_silent:
                worker.is_silent = True
                self._emit("worker", worker=worker.id, state="SILENT", why=ill.why)

    def _beats(self, worker: Worker) -> None:
        worker.last_beat = self._site.clock.monotonic()
        if worker.is_silent:
            worker.is_silent = False
            self._emit("worker", worker=worker.id, state=worker.state.value, why="is heard again")
            self._customer.on_free()

    def _kill(self, worker: Worker, reason: Reason, why: str) -> None:
        """End a worker that is at fault: the deaths of its jobs count."""
        if worker.killed_for is None and worker.process is not None:
            worker.killed_for = (reason, why)
            worker.process.kill()

    def _emit(self, name: str, **fields: object) -> None:
        self._site.emit(Event(name, self.endpoint.id, fields))
