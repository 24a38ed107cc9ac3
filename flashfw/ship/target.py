"""What shipping asks of a target: one protocol, and the records that go over it. `cluster.py` implements it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from flashfw.bundle.release import Layer, Release
from flashfw.errors import KeyRefusedError, TargetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Who answers: its version, the protocol that it speaks, and what it is bound to (None before the first ship)."""

    flashfw: str
    api: int
    project: str | None = None
    environment: str | None = None
    pythons: tuple[str, ...] = ()
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One release as a target lists it; `created` is in seconds since the epoch."""

    id: str
    created: float
    by: str
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in a rollout, in words; `seq` counts from 1."""

    seq: int
    at: float
    text: str
    endpoint: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a rollout failed: the endpoint, what its worker said, and the last lines of its output."""

    endpoint: str
    message: str
    traceback: str = ""
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One rollout as it stands, with the events that were asked for."""

    number: int
    release: str
    by: str
    state: Literal["running", "done", "failed"]
    before: str | None = None
    started: float | None = None
    events: tuple[Event, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a plan has to know of a target: what it serves, what waits there, and which secrets it has.

    `jobs` counts per function the jobs that wait or run.
    """

    host: Host
    current: Shipped | None = None
    release: Release | None = None
    rollout: Rollout | None = None
    jobs: Mapping[str, int] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()


Progress = Callable[[str, int, int], None]
"""Hears of an upload: the layer's digest, the bytes sent so far, the bytes in all. Called from several threads."""


class Target(Protocol):
    """Where releases go. Every method raises `TargetError` where the target refuses or cannot be reached.

    What it accepted goes on without the caller: nobody has to stay for a rollout to end.
    """

    name: str

    def host(self) -> Host:
        """Who answers, after a look at whether both sides speak the same protocol."""
        ...

    def situation(self) -> Situation:
        """What a plan has to know."""
        ...

    def releases(self) -> tuple[Shipped, ...]:
        """The releases that it keeps, newest first."""
        ...

    def release(self, release_id: str) -> Release:
        """One of them, whole."""
        ...

    def upload(self, layers: Iterable[Layer], archives: Mapping[str, Path], progress: Progress) -> tuple[Layer, ...]:
        """Send those layers that it lacks, side by side; the ones that went."""
        ...

    def apply(self, release: Release, *, expected: str | None, removes: Collection[str], by: str) -> int:
        """Begin a rollout of a release whose layers are there; its number.

        Raises:
            ConflictError: another release than `expected` is current by now.
            BusyError: a rollout is running.
        """
        ...

    def wait(self, number: int, *, after: int = 0, wait_s: float = 20.0) -> Rollout:
        """The rollout with its events after `after`, at once if there are any, else when there are or time is over."""
        ...

    def rollback(self, *, to: str | None, expected: str, by: str) -> int:
        """Begin a rollout of a former release, of the one before by default; its number. Raises as `apply` does."""
        ...

    def remove(self, confirm: str, *, by: str) -> None:
        """End all endpoints and jobs and forget all releases; `confirm` is `project/environment`."""
        ...

    def status(self) -> dict[str, Any]:
        """Workers and queues of every endpoint, as `flashfw status` shows them."""
        ...

    def logs(
        self, endpoint: str | None = None, *, lines: int = 100, follow: bool = False, job: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """What workers wrote: `at`, `endpoint`, `worker`, `job`, `stream`, `text`; with `follow` without an end."""
        ...


class ConflictError(TargetError):
    """Another release became current since the plan was made."""

    def __init__(self, what: str, *, current: str | None, by: str = "", created: float | None = None) -> None:
        super().__init__(what, hint="ship again: the plan is made anew over what is there now")
        self.current = current
        self.by = by
        self.created = created


class BusyError(TargetError):
    """A rollout runs already, and there is one at a time."""

    def __init__(
        self, what: str, *, rollout: int | None, release: str | None = None, by: str = "", since: float | None = None
    ) -> None:
        super().__init__(what, hint="wait for it with --wait, or ship again later")
        self.rollout = rollout
        self.release = release
        self.by = by
        self.since = since


class RefusedError(TargetError):
    """The target looked at what it was given and does not take it."""


class NoEntryError(RefusedError, KeyRefusedError):
    """The target does not take the key."""


class UnansweredError(TargetError):
    """The connection broke before the answer came: what was asked may have been done or not."""
