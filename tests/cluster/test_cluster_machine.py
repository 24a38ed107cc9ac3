"""Any interleaving of calls, results, errors, deaths, rolls and drains: no job is lost, and no slot; alone is alone."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.workers.worker import Worker
from flashfw.manifest import Batch, Endpoint, Retries, Scaler
from tests.cluster.bench import JobBench, a_function, an_endpoint, dispatching, waits
from tests.cluster.scripted import ScriptedProcess

CONCURRENCY = 2
BATCH = Batch(max_size=3, max_wait_s=1.0)
FUNCTIONS = (
    a_function("gpu", retries=Retries(max=2, backoff_s=2.0)),
    a_function("gpu/upscale"),
    a_function("gpu/embed", batch=BATCH, retries=Retries(max=1, backoff_s=0.0)),
)

picks = st.integers(0, 1000)
names = st.sampled_from([function.id for function in FUNCTIONS])


class ClusterMachine(RuleBasedStateMachine):
    """A pool and a dispatcher over scripted workers and a store in memory, each step settled before the next."""

    @initialize(limit=st.integers(1, 3), delay=st.sampled_from([0.0, 4.0]))
    def begin(self, limit: int, delay: float) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="flashfw-cluster-machine-")
        self.accepted: list[Job] = []
        self.ends: dict[str, Job] = {}
        self.limit, self.delay = limit, delay
        self.closed = False
        self.stack = AsyncExitStack()
        self.bench: JobBench = self._run(self._open())

    async def _open(self) -> JobBench:
        # In a task of its own, which a task group wants to be entered and left in.
        opened: asyncio.Future[JobBench] = self.loop.create_future()
        self.leave = asyncio.Event()

        async def hold() -> None:
            async with dispatching(Path(self.folder.name), self._release(), start_failures=3) as bench:
                bench.placement.on_start = waits
                opened.set_result(bench)
                await self.leave.wait()

        self.held = asyncio.ensure_future(hold())
        return await opened

    async def _apply(self, *functions: str) -> None:
        self.bench.dispatcher.apply(self._release(*functions), self.bench.root)

    def _release(self, *functions: str) -> Endpoint:
        kept = tuple(function for function in FUNCTIONS if not functions or function.id in functions)
        scaler = Scaler(type="queue_delay", value=self.delay)
        return an_endpoint(
            functions=kept, workers_max=self.limit, concurrency=CONCURRENCY, drain_timeout_s=3.0, scaler=scaler
        )

    @rule(name=names, priority=st.integers(-1, 1))
    def submit(self, name: str, priority: int) -> None:
        self.accepted.append(self._run(self.bench.dispatcher.submit(self.bench.a_job(name, priority=priority))))

    @rule(name=names, count=st.integers(2, 6))
    def submit_at_once(self, name: str, count: int) -> None:
        async def all_of_them() -> list[Job]:
            return await asyncio.gather(*(self.bench.dispatcher.submit(self.bench.a_job(name)) for _ in range(count)))

        self.accepted += self._run(all_of_them())

    @rule(name=names, turns=st.integers(0, 6))
    def submit_and_leave(self, name: str, turns: int) -> None:
        """A caller that is cut off: its job may be kept or not, and then counts like any other."""
        job = self.bench.a_job(name)

        async def leave() -> None:
            caller = asyncio.ensure_future(self.bench.dispatcher.submit(job))
            for _ in range(turns):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller])
            await self.bench.settle()

        self._run(leave())
        if self._run(self.bench.store.get(job.id)) is not None:
            self.accepted.append(job)

    @rule(pick=picks)
    def ready(self, pick: int) -> None:
        if worker := self._pick(pick, lambda worker: not self._is_ready(worker)):
            worker.ready()

    @rule(pick=picks)
    def breaks(self, pick: int) -> None:
        if worker := self._pick(pick, lambda worker: not self._is_ready(worker)):
            worker.broken()

    @rule(pick=picks, broken=st.sampled_from([False, False, True]))
    def failure(self, pick: int, broken: bool) -> None:
        if worker := self._pick(pick, lambda worker: bool(worker.calls)):
            worker.failure(min(worker.calls), broken=broken, type="OSError")

    @rule(pick=picks)
    def the_last_call_fails(self, pick: int) -> None:
        if worker := self._pick(pick, lambda worker: bool(worker.calls)):
            worker.failure(max(worker.calls), type="OSError")

    @rule(pick=picks)
    def ready_and_busy_and_dead(self, pick: int) -> None:
        """A worker with as much as it takes, which dies: what it had is done again, each alone."""
        for name in ("gpu", "gpu/embed", "gpu/upscale"):
            self.submit_at_once(name, 3)
        self.ready(pick)
        self.wait(1.5, True)
        if worker := self._pick(pick, lambda worker: len(worker.calls) > 1):
            worker.die(9)

    @rule(pick=picks)
    def result(self, pick: int) -> None:
        if worker := self._pick(pick, lambda worker: bool(worker.calls)):
            worker.result(min(worker.calls))

    @rule(pick=picks)
    def chunk_and_progress(self, pick: int) -> None:
        if worker := self._pick(pick, lambda worker: bool(worker.calls)):
            worker.chunk(b"1", min(worker.calls))

    @rule(pick=picks, how=st.sampled_from(["die", "hang up", "leave the link", "result and die"]))
    def death(self, pick: int, how: str) -> None:
        if worker := self._pick(pick, lambda worker: True):
            if how == "hang up":
                worker.hang_up()
            elif how == "result and die" and worker.calls:
                worker.result(min(worker.calls))
                worker.die(1)
            else:
                worker.die(1, leaves_link=how == "leave the link")

    @rule(pick=picks)
    def disobey(self, pick: int) -> None:
        if worker := self._pick(pick, lambda worker: True):
            worker.is_obedient = False

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        if self.accepted:
            self._run(self.bench.dispatcher.cancel(self.accepted[pick % len(self.accepted)].id))

    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        """Somebody asks for a job anew that had ended: it may end once more."""
        if self.accepted:
            job = self.accepted[pick % len(self.accepted)]
            if self._run(self.bench.store.retry(job.id)) is not None:
                self.ends.pop(job.id, None)
                self.bench.dispatcher.wake()

    @rule(kept=st.sampled_from([(), ("gpu",), ("gpu/upscale", "gpu/embed")]))
    def roll(self, kept: tuple[str, ...]) -> None:
        self._run(self._apply(*kept))

    @rule(seconds=st.sampled_from([0.5, 2.0, 12.0]), beats=st.booleans())
    def wait(self, seconds: float, beats: bool) -> None:
        self._run(self.bench.advance(seconds, beats=beats))

    @rule()
    def stop_in_a_silence(self) -> None:
        self._run(self.bench.advance(61.0, beats=False))

    @invariant()
    def every_slot_is_counted_and_every_job_ended_once_or_waits_or_runs(self) -> None:
        if not hasattr(self, "bench"):
            return
        jobs = self._run(self._quiet())
        runs = Counter(
            call.job.id  # type: ignore[attr-defined]
            for worker in self.bench.dispatcher.pool.workers
            for call in worker.calls.values()
            if not call.is_over  # type: ignore[attr-defined]
        )
        records = {job.id: job for job in jobs if job is not None}
        for worker in self.bench.dispatcher.pool.workers:
            assert worker.reserved == 0, "nothing is under way, so no slot is reserved"
            assert 0 <= worker.slots_used <= CONCURRENCY
            held = [call.job for call in worker.calls.values()]  # type: ignore[attr-defined]
            if any(job.alone for job in held):
                assert len(held) == 1, "a job that must be alone is"
            self._check_batches(worker, [records[job.id] for job in held])
        for job in jobs:
            assert job is not None, "an accepted job is lost"
            assert runs[job.id] == (job.state is State.IN_PROGRESS), "as many runs as there should be"
            if job.state.is_terminal:
                assert self.ends.setdefault(job.id, job) == job, "a second terminal record"
        assert self.bench.named("internal") == []

    def _check_batches(self, worker: Worker, held: list[Job]) -> None:
        """A batch takes one slot, with as many jobs as it may have and no more."""
        batched = [job for job in held if job.function == "gpu/embed"]
        single = len(held) - len(batched)
        assert single + (len(batched) > 0) <= worker.slots_used <= len(held)
        assert len(batched) <= BATCH.max_size * (worker.slots_used - single)

    async def _quiet(self) -> list[Job | None]:
        """The jobs once nothing is under way any more."""
        while True:
            await self.bench.settle(4)
            before = len(self.bench.events)
            jobs = [await self.bench.store.get(job.id) for job in self.accepted]
            await self.bench.settle(4)
            if before == len(self.bench.events) and jobs == [
                await self.bench.store.get(job.id) for job in self.accepted
            ]:
                return jobs

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        try:
            self._end_everything()
        finally:
            self.leave.set()
            self._run(asyncio.wait([self.held]))
            self.loop.close()
            self.folder.cleanup()
        self.held.result()

    def _end_everything(self) -> None:
        """With workers that work, all that was accepted ends."""
        self.bench.placement.on_start = ScriptedProcess.ready
        self._run(self._apply())
        for _ in range(400):
            for worker in self.bench.workers:
                for number in list(worker.calls):
                    worker.result(number)
            self._run(self.bench.advance(1.0))
            states = Counter(self._run(self.bench.state(job)) for job in self.accepted)
            if all(state.is_terminal for state in states):
                return
        raise AssertionError(f"stuck: {states}, {self.bench.dispatcher.pool.workers}")

    def _is_ready(self, process: ScriptedProcess) -> bool:
        workers = self.bench.dispatcher.pool.workers
        return any(worker.id == process.spec.worker and worker.ready is not None for worker in workers)

    def _pick(self, pick: int, fits) -> ScriptedProcess | None:  # type: ignore[no-untyped-def]
        known = {worker.id for worker in self.bench.dispatcher.pool.workers}
        found = [worker for worker in self.bench.workers if worker.spec.worker in known and fits(worker)]
        return found[pick % len(found)] if found else None

    def _run(self, call):  # type: ignore[no-untyped-def]
        return self.loop.run_until_complete(call)


def test_no_interleaving_loses_a_job_or_a_slot() -> None:
    run_state_machine_as_test(
        ClusterMachine,
        settings=settings(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
