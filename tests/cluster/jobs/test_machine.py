"""Any order of operations: the store beside the model's own transitions over a dictionary."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs import model
from flashfw.cluster.jobs.model import Claimer, Job, Reason, State
from flashfw.cluster.jobs.store import Chunk
from tests.cluster.jobs.conformance import BROKEN, DONE, ROOM, STORES, Kind, a_job

FUNCTIONS = ("gpu", "gpu/upscale", "api")

REFUSED = model.End(state=State.FAILED, reason=Reason.STARTUP, error=b'{"type":"ImportError"}')
UNCLAIMED = (Reason.CANCELLED, Reason.EXPIRED, Reason.STARTUP)
"""How a job may end that nobody holds."""

picks = st.integers(0, 10_000)
names = st.sampled_from(FUNCTIONS)
some_names = st.lists(names, unique=True, min_size=1)
ends = st.sampled_from([DONE, BROKEN])
priorities = st.integers(-1, 1)
delays = st.sampled_from([0.0, 0.0, 0.0, 3.0, 20.0])
lives = st.sampled_from([8.0, 40.0, 200.0])


class StoreMachine(RuleBasedStateMachine):
    """`jobs` is what a perfect store would hold, in the order of submission."""

    kind: Kind

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="flashfw-machine-"))
        self.clock = ManualClock()
        self.boots = 0
        self.jobs: dict[str, Job] = {}
        self.claims: list[Job] = []
        self.chunks: dict[tuple[str, int], list[bytes]] = {}
        self.terminal: dict[tuple[str, int], Job] = {}
        self._open()

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.store.close())
            self.loop.close()
            shutil.rmtree(self.folder)

    @rule(name=names, priority=priorities, delay=delays, life=lives, direct=st.booleans())
    def submit(self, name: str, priority: int, delay: float, life: float, direct: bool) -> None:
        now = self.clock.now()
        job = a_job(self.clock, name, priority=priority, available_at=now + delay, expires_at=now + life)
        kept = (model.claimed(job, self.by, now) if direct else None) or job

        assert self._run(self.store.submit(job, max_queue=ROOM, claim=self.by if direct else None)) == kept
        self._keep(kept)

    @rule(functions=some_names, limit=st.integers(1, 3))
    def claim(self, functions: list[str], limit: int) -> None:
        assert self._run(self.store.claim(functions, self.by, limit=limit)) == self._expect_claims(functions, limit)

    @rule(pick=picks, end=ends)
    def finish(self, pick: int, end: model.End) -> None:
        if claim := self._pick(pick):
            after = self._expect(claim.id, lambda job: model.finished(job, claim.fence, end, self.clock.now()))
            assert self._run(self.store.finish(claim.id, claim.fence, end)) == after

    @rule(pick=picks, end=ends, functions=some_names)
    def finish_and_claim(self, pick: int, end: model.End, functions: list[str]) -> None:
        if claim := self._pick(pick):
            after = self._expect(claim.id, lambda job: model.finished(job, claim.fence, end, self.clock.now()))
            claims = self._expect_claims(functions, 1)
            both = self.store.finish_and_claim(claim.id, claim.fence, end, claim=self.by, functions=functions)
            assert self._run(both) == (after, claims[0] if claims else None)

    @rule(pick=picks)
    def release(self, pick: int) -> None:
        if claim := self._pick(pick):
            after = self._expect(claim.id, lambda job: model.released(job, claim.fence))
            assert self._run(self.store.release(claim.id, claim.fence)) == after

    @rule(pick=picks)
    def lose(self, pick: int) -> None:
        if claim := self._pick(pick):
            after = self._expect(claim.id, lambda job: model.lost(job, claim.fence, b'"x"', self.clock.now()))
            assert self._run(self.store.lose(claim.id, claim.fence, b'"x"')) == after

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        if self.jobs:
            job_id = list(self.jobs)[pick % len(self.jobs)]
            after = self._expect(job_id, lambda job: model.cancelled(job, self.clock.now()))
            assert self._run(self.store.cancel(job_id)) == after

    @rule(pick=picks)
    def refuse(self, pick: int) -> None:
        if self.jobs:
            job_id = list(self.jobs)[pick % len(self.jobs)]
            after = self._expect(job_id, lambda job: model.refused(job, REFUSED, self.clock.now()))
            assert self._run(self.store.refuse(job_id, REFUSED)) == after

    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        if self.jobs:
            job_id = list(self.jobs)[pick % len(self.jobs)]
            after = self._expect(job_id, lambda job: model.retried(job, self.clock.now()))
            assert self._run(self.store.retry(job_id)) == after

    @rule(pick=picks, items=st.lists(st.binary(max_size=5), max_size=3))
    def add_chunks(self, pick: int, items: list[bytes]) -> None:
        if claim := self._pick(pick):
            job = self.jobs.get(claim.id)
            holds = job is not None and (job.state, job.fence) == (State.IN_PROGRESS, claim.fence)
            assert self._run(self.store.add_chunks(claim.id, claim.fence, items)) is holds
            if holds:
                self.chunks.setdefault((claim.id, claim.fence), []).extend(items)

    @rule(name=names)
    def purge(self, name: str) -> None:
        queued = [job for job in self.jobs.values() if (job.function, job.state) == (name, State.IN_QUEUE)]
        for job in queued:
            self._expect(job.id, lambda job: model.cancelled(job, self.clock.now()))
        assert self._run(self.store.purge(name)) == len(queued)

    @rule(seconds=st.sampled_from([1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.now()
        for job in list(self.jobs.values()):
            if job.finished_at is not None and job.finished_at + job.result_ttl_s <= now:
                del self.jobs[job.id]

    @rule()
    def expire(self) -> None:
        now = self.clock.now()
        after = [self._expect(job_id, lambda job: model.expired(job, now)) for job_id in list(self.jobs)]
        expired = {job.id: job for job in after if job is not None}
        assert {job.id: job for job in self._run(self.store.expire())} == expired
        self.check_counts()

    @rule(is_new_server=st.booleans())
    def reopen(self, is_new_server: bool) -> None:
        if not self.kind.is_durable:
            return
        self._run(self.store.close())
        orphans = [job for job in self.jobs.values() if job.state is State.IN_PROGRESS] if is_new_server else []
        self.boots += is_new_server
        for job in orphans:
            self._expect(job.id, lambda job: model.orphaned(job, f"boot-{self.boots}"))
        assert self._open() == len(orphans)

    @invariant()
    def no_job_is_lost_or_different(self) -> None:
        if hasattr(self, "loop"):
            kept = self._run(self.store.list(limit=ROOM))
            assert kept == list(reversed(self.jobs.values()))

    @invariant()
    def pending_is_what_is_queued(self) -> None:
        if hasattr(self, "loop"):
            queued = Counter(job.function for job in self.jobs.values() if job.state is State.IN_QUEUE)
            assert [self.store.pending([name]).total for name in FUNCTIONS] == [queued[name] for name in FUNCTIONS]

    @invariant()
    def chunks_are_those_of_the_claim(self) -> None:
        if hasattr(self, "loop") and self.jobs:
            job = list(self.jobs.values())[-1]
            items = self.chunks.get((job.id, job.fence), [])
            kept = self._run(self.store.chunks(job.id))
            assert [chunk.data for chunk in kept] == items
            assert kept == [Chunk(chunk.attempt, index, chunk.data) for index, chunk in enumerate(kept)]

    def check_counts(self) -> None:
        """Exact once results past their time are swept."""
        expected = Counter((job.function, job.state) for job in self.jobs.values())
        assert {(count.function, count.state): count.jobs for count in self._run(self.store.counts())} == expected

    @property
    def by(self) -> Claimer:
        return Claimer(boot=f"boot-{self.boots}", worker="w")

    def _open(self) -> int:
        self.store = self.kind.make(self.folder, self.clock)
        return self._run(self.store.open(f"boot-{self.boots}"))

    def _run(self, call):  # type: ignore[no-untyped-def]
        return self.loop.run_until_complete(call)

    def _pick(self, pick: int) -> Job | None:
        """A claim that was once given, often not the latest of its job."""
        return self.claims[pick % len(self.claims)] if self.claims else None

    def _expect(self, job_id: str, transition) -> Job | None:  # type: ignore[no-untyped-def]
        after = transition(self.jobs[job_id]) if job_id in self.jobs else None
        if after is not None:
            self._keep(after)
        return after

    def _expect_claims(self, functions: list[str], limit: int) -> list[Job]:
        in_order = sorted(self.jobs.values(), key=lambda job: -job.priority)  # stable: then by submission
        afters = (model.claimed(job, self.by, self.clock.now()) for job in in_order if job.function in functions)
        claims = [job for job in afters if job is not None][:limit]
        for job in claims:
            self._keep(job)
        return claims

    def _keep(self, job: Job) -> None:
        before = self.jobs.get(job.id)
        self.jobs[job.id] = job
        if job.state is State.IN_PROGRESS:
            assert before is None or job.fence == before.fence + 1
            self.claims.append(job)
        if job.state.is_terminal and job.reason not in UNCLAIMED:
            assert (job.id, job.fence) not in self.terminal, "a second terminal record of one claim"
            self.terminal[job.id, job.fence] = job


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_the_store_does_what_the_model_does(kind: Kind) -> None:
    machine = type("Machine", (StoreMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
