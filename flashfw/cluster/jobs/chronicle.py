"""What happened and how far schedules have come, as statements inside a transaction that its caller holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from flashfw.cluster.jobs.statements import Database
from flashfw.cluster.jobs.store import JOURNAL_ENTRIES, JOURNAL_S, Entry, Tick


class Chronicle:
    """The journal and the ticks in a database, for the thread that writes."""

    def __init__(self, database: Database, sql: Mapping[str, str]) -> None:
        self._database = database
        self._sql = sql

    def record(self, entries: Sequence[Entry]) -> None:
        """As `JobStore.record`."""
        rows = [
            (entry.at, entry.endpoint, entry.name, json.dumps(dict(entry.fields), default=str), entry.job, entry.worker)
            for entry in entries
        ]
        self._database.executemany(self._sql["insert_entry"], rows)

    def cut(self, now: float, limit: int) -> int:
        """Delete up to `limit` of the first entries, those that are too old or too many; how many."""
        return self._database.execute(self._sql["cut_journal"], (limit, now - JOURNAL_S, JOURNAL_ENTRIES)).rowcount

    def set_tick(self, key: str, tick: Tick) -> None:
        """As `JobStore.set_tick`."""
        self._database.execute(self._sql["set_tick"], (key, tick.at, tick.job))
