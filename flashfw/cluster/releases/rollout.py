"""One rollout as a pure state machine: what was heard in, what to wait for next out; no clock, no worker, no disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum


class Phase(str, Enum):
    """How far a rollout has come. Traffic moves with the step to DONE, and not before."""

    SURGING = "surging"  # new workers start beside the old ones
    CLEARING = "clearing"  # the workers of endpoints that are replaced end; their callers wait
    REPLACING = "replacing"  # new workers start in their place
    COMMITTING = "committing"  # all are ready; that is being written down
    DONE = "done"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in (Phase.DONE, Phase.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Why a rollout failed: the endpoint ("" if none is at fault), and what its worker said last."""

    endpoint: str
    message: str
    traceback: str = ""
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout of some endpoints by `surge` and others by `replace`; of the phase, these have `settled`."""

    surge: frozenset[str]
    replace: frozenset[str]
    phase: Phase = Phase.SURGING
    settled: frozenset[str] = frozenset()
    failure: Failed | None = None

    @property
    def concerned(self) -> frozenset[str]:
        """The endpoints that the phase is about."""
        if self.phase is Phase.SURGING:
            return self.surge
        return self.replace if self.phase in (Phase.CLEARING, Phase.REPLACING) else frozenset()

    @property
    def awaited(self) -> frozenset[str]:
        """The endpoints that the phase still waits for."""
        return self.concerned - self.settled


def begin(*, surge: Collection[str] = (), replace: Collection[str] = ()) -> Rollout:
    """A rollout that has just begun; one that changes no worker is about to be committed.

    >>> begin(surge=["api"]).phase, begin().phase
    (<Phase.SURGING: 'surging'>, <Phase.COMMITTING: 'committing'>)
    """
    return _advanced(Rollout(surge=frozenset(surge), replace=frozenset(replace)))


def settled(rollout: Rollout, endpoint: str) -> Rollout:
    """The workers of an endpoint are ready, or in CLEARING, gone. What comes late or from nobody changes nothing."""
    if endpoint not in rollout.awaited:
        return rollout
    return _advanced(dataclasses.replace(rollout, settled=rollout.settled | {endpoint}))


def failed(rollout: Rollout, failure: Failed) -> Rollout:
    """Something failed: a start, a worker that was ready, the disk. The first failure counts; once over, none does."""
    if rollout.phase.is_over:
        return rollout
    return dataclasses.replace(rollout, phase=Phase.FAILED, failure=failure, settled=frozenset())


def committed(rollout: Rollout) -> Rollout:
    """It is written down that the release is current."""
    assert rollout.phase is Phase.COMMITTING
    return dataclasses.replace(rollout, phase=Phase.DONE)


_NEXT = {Phase.SURGING: Phase.CLEARING, Phase.CLEARING: Phase.REPLACING, Phase.REPLACING: Phase.COMMITTING}


def _advanced(rollout: Rollout) -> Rollout:
    while rollout.phase in _NEXT and not rollout.awaited:
        rollout = dataclasses.replace(rollout, phase=_NEXT[rollout.phase], settled=frozenset())
    return rollout
