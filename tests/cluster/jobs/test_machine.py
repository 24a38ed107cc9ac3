"""Any order of operations: the store beside the model's own transitions over a dictionary."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs import model
from flashfw.cluster.jobs.model import Claimer, Job, Reason, State
from flashfw.cluster.jobs.store import Chunk, Delivery, Pending
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
hooks = st.sampled_from([None, None, "https://example.com/hook"])
LEASE_S = 10.0


@dataclasses.dataclass
class Owed:
    """A terminal record that is still to be delivered: `due_at` is None once that is given up."""

    job: Job
    due_at: float | None
    created_at: float
    tries: int = 0
    id: str = ""


class StoreMachine(RuleBasedStateMachine):
    """`jobs` is what a perfect store would hold, in the order of submission; some are past their time and unseen."""

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
        self.owed: list[Owed] = []
        self.may_be_parked: set[str] = set()
        self.positions: dict[str, tuple[int, int]] = {}
        self._open()

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self._compare(self.jobs.values())
            self._run(self.store.close())
            self.loop.close()
            shutil.rmtree(self.folder)

    @rule(name=names, priority=priorities, delay=delays, life=lives, hook=hooks, direct=st.booleans())
    def submit(self, name: str, priority: int, delay: float, life: float, hook: str | None, direct: bool) -> None:
        now = self.clock.now()
        times = {"available_at": now + delay, "expires_at": now + life}
        job = a_job(self.clock, name, priority=priority, webhook=hook, **times)
        kept = (model.claimed(job, self.by, now) if direct else None) or job

        assert self._run(self.store.submit(job, max_queue=ROOM, claim=self.by if direct else None)) == kept
        self._keep(kept)

    @rule(functions=some_names, limit=st.integers(1, 3), alone=st.booleans())
    def claim(self, functions: list[str], limit: int, alone: bool) -> None:
        expected = self._expect_claims(functions, limit, alone)
        assert self._run(self.store.claim(functions, self.by, limit=limit, alone=alone)) == expected

    @rule(pick=picks, end=ends)
    def finish(self, pick: int, end: model.End) -> None:
        if claim := self._pick(pick):
            after = self._expect(claim.id, lambda job: model.finished(job, claim.fence, end, self.clock.now()))
            assert self._run(self.store.finish(claim.id, claim.fence, end)) == after

    @rule(pick=picks, end=ends, functions=some_names, alone=st.booleans())
    def finish_and_claim(self, pick: int, end: model.End, functions: list[str], alone: bool) -> None:
        if claim := self._pick(pick):
            after = self._expect(claim.id, lambda job: model.finished(job, claim.fence, end, self.clock.now()))
            claims = self._expect_claims(functions, 1, alone)
            how = {"claim": self.by, "functions": functions, "alone": alone}
            both = self._run(self.store.finish_and_claim(claim.id, claim.fence, end, **how))  # type: ignore[arg-type]
            assert both == (after, claims[0] if claims else None)

    @rule(pick=picks, delay=delays)
    def reschedule(self, pick: int, delay: float) -> None:
        if claim := self._pick(pick):
            at = self.clock.now() + delay
            after = self._expect(claim.id, lambda job: model.rescheduled(job, claim.fence, b'"x"', at))
            assert self._run(self.store.reschedule(claim.id, claim.fence, b'"x"', at)) == after

    @rule(pick=picks)
    def release(self, pick: int) -> None:
        if claim := self._pick(pick):
            after = self._expect(claim.id, lambda job: model.released(job, claim.fence))
            assert self._run(self.store.release(claim.id, claim.fence)) == after

    @rule(pick=picks, alone=st.booleans())
    def lose(self, pick: int, alone: bool) -> None:
        if claim := self._pick(pick):
            now = self.clock.now()
            after = self._expect(claim.id, lambda job: model.lost(job, claim.fence, b'"x"', now, alone=alone))
            assert self._run(self.store.lose(claim.id, claim.fence, b'"x"', alone=alone)) == after

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

    @rule(name=names, refuse=st.booleans())
    def purge(self, name: str, refuse: bool) -> None:
        now = self.clock.now()
        queued = [job for job in self.jobs.values() if (job.function, job.state) == (name, State.IN_QUEUE)]
        for job in queued:
            end = (lambda job: model.refused(job, REFUSED, now)) if refuse else lambda job: model.cancelled(job, now)
            self._expect(job.id, end)
        ended = self.store.refuse_all(name, REFUSED) if refuse else self.store.purge(name)
        assert self._run(ended) == len(queued)

    @rule()
    def unpark(self) -> None:
        now = self.clock.now()
        waiting = [job for job in self.jobs.values() if job.state is State.IN_QUEUE]
        parked = {job.id: job.available_at for job in waiting if job.available_at > now}

        assert self._run(self.store.unpark()) == min(parked.values(), default=None)
        self.may_be_parked = set(parked)
        claimable = [job for job in waiting if job.available_at <= now]
        low, alone = sum(job.priority < 0 for job in claimable), sum(job.alone for job in claimable)
        assert self.store.pending(FUNCTIONS) == Pending(len(claimable), len(parked), low, alone)

    @rule(limit=st.integers(1, 4))
    def take_deliveries(self, limit: int) -> None:
        now = self.clock.now()
        due = sorted((owed for owed in self.owed if _is_due(owed, now)), key=lambda owed: owed.due_at or 0)
        latest = due[:limit][-1].due_at if due else 0
        found = self._run(self.store.deliveries(limit=limit, lease_s=LEASE_S))

        assert len(found) == len(due[:limit])
        for delivery in found:
            owed = self._owed(delivery, due)
            assert owed.due_at is not None
            assert owed.due_at <= (latest or 0)
            owed.id, owed.due_at = delivery.id, now + LEASE_S
            due.remove(owed)

    @rule(pick=picks, outcome=st.sampled_from(["delivered", "again", "given up"]))
    def deliver(self, pick: int, outcome: str) -> None:
        tried = [owed for owed in self.owed if owed.id]
        if not tried:
            return
        owed = tried[pick % len(tried)]
        if outcome == "delivered":
            self.owed.remove(owed)
            self._run(self.store.delivered(owed.id))
            return
        owed.tries += 1
        owed.due_at = self.clock.now() + 5 if outcome == "again" else None
        self._run(self.store.undelivered(owed.id, error="HTTP 500", retry_at=owed.due_at))

    @rule(pick=picks, index=st.integers(0, 3))
    def read_on(self, pick: int, index: int) -> None:
        claim = self._pick(pick)
        if claim and claim.id in self.jobs and any(job == claim.id for job, _ in self.chunks):
            before = self.positions.get(claim.id, (0, -1))
            self.positions[claim.id] = max(before, (claim.fence, index))
            self._run(self.store.set_read_position(claim.id, claim.fence, index))

    @invariant()
    def readers_are_where_they_were(self) -> None:
        if hasattr(self, "loop"):
            for job_id in list(self.jobs)[-2:]:
                assert self._run(self.store.read_position(job_id)) == self.positions.get(job_id, (0, -1))

    @rule(seconds=st.sampled_from([1.0, 5.0, 30.0, -3.0, -40.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.now()
        self._run(self.store.claim(["nothing"], self.by))  # it looks at the clock
        if seconds < 0:  # what waits for a time waits no longer than it would have
            for job in self.jobs.values():
                if job.state is State.IN_QUEUE and job.available_at > now:
                    self.jobs[job.id] = dataclasses.replace(job, available_at=max(0.0, job.available_at + seconds))
            for owed in self.owed:
                if owed.due_at is not None and owed.due_at > now:
                    owed.due_at += seconds

    @rule()
    def expire(self) -> None:
        now = self.clock.now()
        kept = {owed.job.id for owed in self.owed if owed.due_at is not None}
        self.jobs = {job.id: job for job in self.jobs.values() if self._is_seen(job) or job.id in kept}
        self.owed = [owed for owed in self.owed if owed.job.id in self.jobs]
        self.positions = {job_id: place for job_id, place in self.positions.items() if job_id in self.jobs}
        after = [self._expect(job_id, lambda job: model.expired(job, now)) for job_id in list(self.jobs)]
        expired = {job.id: job for job in after if job is not None}
        assert {job.id: job for job in self._run(self.store.expire())} == expired
        expected = Counter((job.function, job.state) for job in self.jobs.values())
        assert {(count.function, count.state): count.jobs for count in self._run(self.store.counts())} == expected

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
        self._compare(self.jobs.values())

    @invariant()
    def no_job_is_lost_or_different(self) -> None:
        if hasattr(self, "loop"):
            kept = self._run(self.store.list(limit=ROOM))
            assert kept == [_listed(job) for job in reversed(self.jobs.values()) if self._is_seen(job)]
            self._compare(list(self.jobs.values())[-1:])

    @invariant()
    def dead_letters_are_those_that_are(self) -> None:
        if hasattr(self, "loop"):
            dead = self._run(self.store.list(dead=True, limit=ROOM))
            expected = [job for job in reversed(self.jobs.values()) if job.is_dead_letter and self._is_seen(job)]
            assert dead == [_listed(job) for job in expected]

    @invariant()
    def pending_is_what_is_queued(self) -> None:
        if hasattr(self, "loop"):
            for name in FUNCTIONS:
                waiting = [job for job in self.jobs.values() if (job.function, job.state) == (name, State.IN_QUEUE)]
                pending = self.store.pending([name])
                assert pending.total == len(waiting)
                # Those that fell due since somebody looked may still count as parked.
                parked = sum(job.available_at > self.clock.now() for job in waiting)
                assert parked <= pending.parked <= parked + sum(job.id in self.may_be_parked for job in waiting)

    @invariant()
    def chunks_are_those_of_the_claim(self) -> None:
        if hasattr(self, "loop") and self.jobs:
            job = list(self.jobs.values())[-1]
            items = self.chunks.get((job.id, job.fence), []) if self._is_seen(job) else []
            kept = self._run(self.store.chunks(job.id))
            assert [chunk.data for chunk in kept] == items
            assert kept == [Chunk(chunk.attempt, index, chunk.data) for index, chunk in enumerate(kept)]

    def _compare(self, jobs: Collection[Job]) -> None:
        """Each is there with all that belongs to it."""
        for job in jobs:
            assert self._run(self.store.get(job.id)) == (job if self._is_seen(job) else None)

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
        after = transition(self.jobs[job_id]) if job_id in self.jobs and self._is_seen(self.jobs[job_id]) else None
        if after is not None:
            self._keep(after)
        return after

    def _expect_claims(self, functions: list[str], limit: int, alone: bool) -> list[Job]:
        in_order = sorted(self.jobs.values(), key=lambda job: -job.priority)  # stable: then by submission
        mine = [job for job in in_order if job.function in functions]
        possible = [job for job in mine if model.claimed(job, self.by, self.clock.now())]
        together = [job for job in possible if not job.alone][:limit]
        if alone and possible and possible[0].alone:
            together = possible[:1]
        claims = [model.claimed(job, self.by, self.clock.now()) for job in together]
        for job in claims:
            assert job is not None
            self._keep(job)
        return [job for job in claims if job is not None]

    def _owed(self, delivery: Delivery, due: list[Owed]) -> Owed:
        """The one of these that a delivery is of; an end that was not delivered before has no id here yet."""
        for owed in due:
            known = owed.id in ("", delivery.id) and (owed.job, owed.tries) == (delivery.job, delivery.tries)
            if known and owed.created_at == delivery.created_at:
                return owed
        raise AssertionError(f"{delivery} is owed to nobody")

    def _is_seen(self, job: Job) -> bool:
        """Whether its result has not expired."""
        return job.finished_at is None or job.finished_at + job.result_ttl_s > self.clock.now()

    def _keep(self, job: Job) -> None:
        before = self.jobs.get(job.id)
        self.jobs[job.id] = job
        if job.state is State.IN_QUEUE and job.available_at > self.clock.now():
            self.may_be_parked.add(job.id)
        if job.state is State.IN_PROGRESS:
            assert before is None or job.fence == before.fence + 1
            self.claims.append(job)
        if job.state.is_terminal and job.webhook is not None:
            self.owed.append(Owed(job, self.clock.now(), self.clock.now()))
        if job.state.is_terminal and job.reason not in UNCLAIMED:
            assert (job.id, job.fence) not in self.terminal, "a second terminal record of one claim"
            self.terminal[job.id, job.fence] = job


def _listed(job: Job) -> Job:
    """What a list says of a job: all but what may be large."""
    return dataclasses.replace(job, input=b"", output=None, progress=None)


def _is_due(owed: Owed, now: float) -> bool:
    return owed.due_at is not None and owed.due_at <= now


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_the_store_does_what_the_model_does(kind: Kind, tmp_path: Path) -> None:
    kind.make(tmp_path, ManualClock())  # skips the test where its database is not installed
    machine = type("Machine", (StoreMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15 if kind.name == "postgres" else 40,  # it makes a schema for each
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
