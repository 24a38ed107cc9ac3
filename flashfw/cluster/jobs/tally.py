"""How many jobs each function has in each state: exact, in memory, saved by the transaction that changes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.statements import SQL
from flashfw.cluster.jobs.store import Count, Health, Pending

RETRIED = "retried"
PARKED, LOW, ALONE = "parked", "low", "alone"
_QUEUED = State.IN_QUEUE.value
_EVER = {State.COMPLETED: "ever_completed", State.FAILED: "ever_failed", State.TIMED_OUT: "ever_failed"}

_NOTHING = Pending()

_Key = tuple[str, str]


class Tally:
    """Counters by function and name, where a name is a state or one of those that only grow.

    The writer's thread changes and reads them inside a transaction; any thread reads what is
    committed.
    """

    def __init__(self) -> None:
        self._now: dict[_Key, int] = {}
        self._committed: dict[_Key, int] = {}
        self._changes: list[tuple[_Key, int]] = []

    def load(self, database: sqlite3.Connection) -> None:
        """Take over what the database holds."""
        self._now = {(function, name): jobs for function, name, jobs in database.execute(SQL["load_tallies"])}
        self._committed = dict(self._now)
        self._changes = []

    def waiting(self, function: str) -> int:
        """Queued jobs as the transaction under way sees them."""
        return self._now.get((function, _QUEUED), 0)

    def parked(self, function: str) -> int:
        """Those of them that wait for a retry, as the transaction under way sees them."""
        return self._now.get((function, PARKED), 0)

    def alone(self, function: str) -> int:
        """Claimable jobs that must be alone, as the transaction under way sees them."""
        return self._now.get((function, ALONE), 0)

    def enter(self, function: str, state: State) -> None:
        """A new job."""
        self._add(function, state._value_, 1)

    def leave(self, function: str, state: State) -> None:
        """A job forgotten."""
        self._add(function, state._value_, -1)

    def move(self, function: str, before: State, after: State) -> None:
        """A transition."""
        self._add(function, before._value_, -1)
        self._add(function, after._value_, 1)
        if after in _EVER:
            self._add(function, _EVER[after], 1)

    def queue(self, job: Job, parked: bool, by: int) -> None:
        """What is peculiar of a job that comes into the queue (by 1) or leaves it (by -1)."""
        if parked:
            self._add(job.function, PARKED, by)
            return
        if job.priority < 0:
            self._add(job.function, LOW, by)
        if job.alone:
            self._add(job.function, ALONE, by)

    def unpark(self, function: str, jobs: int, low: int, alone: int) -> None:
        """Jobs whose wait for a retry is over."""
        self._add(function, PARKED, -jobs)
        self._add(function, LOW, low)
        self._add(function, ALONE, alone)

    def retry(self, function: str) -> None:
        """A job given another attempt."""
        self._add(function, RETRIED, 1)

    def undo(self) -> None:
        """The transaction is undone: take back what it changed."""
        for key, by in self._changes:
            self._now[key] -= by
        self._changes.clear()

    def save(self, database: sqlite3.Connection) -> None:
        """Write what changed, inside the transaction that changed it."""
        for key in {key for key, _ in self._changes}:
            database.execute(SQL["save_tally"], (*key, self._now[key]))

    def publish(self) -> None:
        """The transaction is committed: let all threads see it."""
        for key, _ in self._changes:
            self._committed[key] = self._now[key]
        self._changes.clear()

    def pending(self, functions: Collection[str]) -> Pending:
        """Committed jobs of these functions that are queued."""
        queued = parked = low = alone = 0
        get = self._committed.get
        for function in functions:
            if in_queue := get((function, _QUEUED), 0):
                queued += in_queue
                parked += get((function, PARKED), 0)
                low += get((function, LOW), 0)
                alone += get((function, ALONE), 0)
        if not queued:
            return _NOTHING
        # The writer's thread may be between two of its numbers.
        return Pending(max(0, queued - parked), parked, low, alone)

    def any_parked(self) -> bool:
        """Whether any committed job waits for a retry."""
        return any(jobs for (_, name), jobs in self._committed.copy().items() if name == PARKED)

    def counts(self) -> list[Count]:
        """Committed jobs by function and state, zeros left out."""
        states = {state.value: state for state in State}
        # A copy: the writer's thread may add a function meanwhile.
        numbers = sorted(self._committed.copy().items())
        return [Count(function, states[name], jobs) for (function, name), jobs in numbers if jobs and name in states]

    def health(self, function: str) -> Health:
        """Committed counts of one function."""

        def number(name: str) -> int:
            return self._committed.get((function, name), 0)

        return Health(
            queued=number(State.IN_QUEUE.value),
            running=number(State.IN_PROGRESS.value),
            completed=number(_EVER[State.COMPLETED]),
            failed=number(_EVER[State.FAILED]),
            retried=number(RETRIED),
        )

    def _add(self, function: str, name: str, by: int) -> None:
        key = (function, name)
        self._now[key] = self._now.get(key, 0) + by
        self._changes.append((key, by))
