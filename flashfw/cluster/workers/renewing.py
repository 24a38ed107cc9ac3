"""Saved files on their way into running workers, which then serve the new code with what they have built.

Each worker is asked, and answers whether it has taken them in. One that cannot goes on as it is: it is old from then
on, and replaced as by any other release.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from flashfw import manifest
from flashfw.cluster.clock import Clock, Timer
from flashfw.cluster.workers.starts import Starts
from flashfw.cluster.workers.worker import Call, Renewal, Worker
from flashfw.manifest import Endpoint, Function
from flashfw.worker.frames import Kind, Reload
from flashfw.worker.reload import FIXTURES, of_records

PATIENCE_S = 10.0
"""A worker whose loop stands still, or whose new instances wait for a call that runs, is replaced after so long."""


Saved = Collection[str] | None
"""Files that are all that changed, so that running workers may take them in; None if more did."""


class Host(Protocol):
    """The pool whose workers are asked."""

    workers: list[Worker]

    def renewed(self, worker: Worker, *, is_new: bool) -> None:
        """It serves the new code; `is_new` if it has served nothing before."""
        ...

    def left_behind(self, worker: Worker) -> None:
        """It goes on with the old code, until another one takes its place."""
        ...

    def kill(self, worker: Worker, why: str) -> None:
        """Nothing of what it was started for counts any more."""
        ...


@dataclass(slots=True)
class _Round:
    """What was saved since all workers of the pool were told of something, and who has yet to answer."""

    number: int = 0
    files: frozenset[str] = frozenset()
    begun: float = 0.0
    waiting: set[str] = field(default_factory=set)
    is_told: bool = True


class Renewals:
    """Lives as long as its pool. `emit` tells `renewed` once all have taken in a save, `replacing` if one cannot."""

    def __init__(self, host: Host, clock: Clock, emit: Callable[..., None]) -> None:
        self._host = host
        self._clock = clock
        self._emit = emit
        self._round = _Round()
        self._timers: dict[str, Timer] = {}

    def begin(self, endpoint: Endpoint, number: int, files: Collection[str]) -> None:
        """Ask every worker to become one of `endpoint`, the pool's generation `number` from now on."""
        before = self._round.files if self._round.waiting else frozenset()
        read = [file for file in files if any(file in worker.reads for worker in self._host.workers)]
        self._round = _Round(number, before.union(read or files), self._clock.monotonic(), is_told=False)
        may_wait = not any(file.rpartition("/")[2] == FIXTURES for file in files)
        for worker in [worker for worker in self._host.workers if not (worker.is_stopping or worker.is_outdated)]:
            worker.stale.update(files)
            why = of_records(worker.endpoint, endpoint)
            if worker.ready is None and (why or not may_wait):
                self._host.kill(worker, "a newer release came")
            elif why:
                self._cannot(worker, why)
            else:
                worker.renewal = Renewal(endpoint, number)
                if worker.ready is not None:
                    self._round.waiting.add(worker.id)
                    self._ask(worker, worker.renewal)

    def became_ready(self, worker: Worker) -> bool:
        """Whether a worker that was starting as files were saved may serve; else it is asked first."""
        if worker.renewal is None:
            return True
        worker.is_catching_up = True
        self._ask(worker, worker.renewal)
        return False

    def heard(self, worker: Worker, answer: Mapping[str, Any]) -> None:
        """A worker answered. What it says of an earlier save says nothing: it was asked again since, or given up."""
        renewal = worker.renewal
        if renewal is None or renewal.generation != answer["number"]:
            return
        self._forget_timer(worker)
        if why := answer.get("why"):
            self._cannot(worker, why)
            return
        is_new, calls = worker.is_catching_up, dict(worker.calls)
        if calls:
            after_s = renewal.endpoint.drain_timeout_s
            self._clock.call_later(after_s, lambda: _outlast(worker, calls, after_s))
        worker.renew(renewal, answer["files"])
        self._host.renewed(worker, is_new=is_new)
        self._settled(worker)

    def lost(self, worker: Worker) -> None:
        """It will not answer any more."""
        self._forget_timer(worker)
        if worker.id in self._round.waiting and not worker.is_stopping:
            self._tell_replacing("the running worker ended before it had taken that in")
        self._settled(worker)

    def _ask(self, worker: Worker, renewal: Renewal) -> None:
        worker.functions = frozenset(_unchanged(worker.endpoint, renewal.endpoint))
        encoded = manifest.encode(renewal.endpoint)
        worker.send(Kind.RELOAD, 0, Reload(number=renewal.generation, files=sorted(worker.stale), endpoint=encoded))
        self._forget_timer(worker)
        why = f"it did not take in what was saved within {PATIENCE_S:g} s"
        self._timers[worker.id] = self._clock.call_later(PATIENCE_S, lambda: self._cannot(worker, why))

    def _cannot(self, worker: Worker, why: str) -> None:
        self._forget_timer(worker)
        self._tell_replacing(why)
        worker.renewal = None
        worker.functions = frozenset(function.id for function in worker.endpoint.functions)
        if worker.is_catching_up:
            self._host.kill(worker, why)
        else:
            self._host.left_behind(worker)
        self._settled(worker)

    def _tell_replacing(self, why: str) -> None:
        if not self._round.is_told:
            self._round.is_told = True
            self._emit("replacing", files=sorted(self._round.files), why=why)
            self._emit("rolled", release=self._round.number)

    def _settled(self, worker: Worker) -> None:
        waited = worker.id in self._round.waiting
        self._round.waiting.discard(worker.id)
        if waited and not self._round.waiting and not self._round.is_told:
            self._round.is_told = True
            took_s = self._clock.monotonic() - self._round.begun
            self._emit("renewed", files=sorted(self._round.files), took_s=took_s, release=self._round.number)

    def _forget_timer(self, worker: Worker) -> None:
        if (timer := self._timers.pop(worker.id, None)) is not None:
            timer.cancel()


class _Pool(Protocol):
    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def starts(self) -> Starts: ...

    @property
    def workers(self) -> Sequence[Worker]: ...


def concern(pool: _Pool) -> frozenset[str]:
    """The files that workers have imported, or may be importing.

    Where the last start failed, all that the endpoint is made of: whichever of them is saved may have mended it.
    """
    made_of = (source.path for source in pool.endpoint.sources) if pool.starts.failures else ()
    return frozenset(made_of).union(*(worker.reads for worker in pool.workers))


def _outlast(worker: Worker, calls: Mapping[int, Call], after_s: float) -> None:
    for number, call in calls.items():
        if worker.calls.get(number) is call:
            call.on_outdated(after_s)


def _unchanged(before: Endpoint, after: Endpoint) -> set[str]:
    """The functions that a worker may be asked for while it is not known which of the two it serves."""
    records = {function.id: _record(function) for function in after.functions}
    return {function.id for function in before.functions if records.get(function.id) == _record(function)}


def _record(function: Function) -> Function:
    return replace(function, line=0)
