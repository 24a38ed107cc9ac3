"""The counts of a store that several servers share: each writes what it changed, the sum is the count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flashfw.cluster.jobs.model import State
from flashfw.cluster.jobs.tally import Tally

Change = tuple[tuple[str, str], int]


class PostgresTally(Tally):
    """As of the last news of other servers, and exact for what this one did."""

    def __init__(self) -> None:
        super().__init__()
        self._inherited: list[Change] = []
        self._renewed = False

    def renew(self, rows: Iterable[tuple[str, str, int]]) -> list[str]:
        """Take over the sums of all servers; the functions with more waiting jobs than were known of.

        What the transaction under way has changed is not among them yet.
        """
        before = self._now
        now = Counter({(function, name): jobs for function, name, jobs in rows})
        for key, by in self._changes:
            now[key] += by
        self._now = now
        self._renewed = True
        grown = [key for key, jobs in now.items() if jobs > before.get(key, 0)]
        return [function for function, name in grown if name == State.IN_QUEUE.value]

    def inherit(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """What a server that is gone has written is deleted, and this one writes it: no count changes."""
        self._inherited += [((function, name), jobs) for function, name, jobs in rows]

    def changes(self) -> dict[tuple[str, str], int]:
        """What the transaction under way has to write, in the order of keys."""
        sums: Counter[tuple[str, str]] = Counter()
        for key, by in (*self._changes, *self._inherited):
            sums[key] += by
        return {key: sums[key] for key in sorted(sums) if sums[key]}

    def undo(self) -> None:
        super().undo()
        self._inherited.clear()

    def publish(self) -> None:
        super().publish()
        self._inherited.clear()
        if self._renewed:
            self._committed, self._renewed = dict(self._now), False
