"""The questions of the SQLite store: what reads and changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.statements import SQL, job_of
from flashfw.cluster.jobs.store import Chunk


class Shelf:
    """The jobs in a database, for the thread that reads. Every method is one of `JobStore`."""

    def __init__(self, database: sqlite3.Connection, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def get(self, job_id: str) -> Job | None:
        row = self._database.execute(SQL["find_job"], (job_id, self._clock.now())).fetchone()
        return None if row is None else job_of(row)[1]

    def chunks(self, job_id: str, after: int, up_to_bytes: int) -> list[Chunk]:
        found: list[Chunk] = []
        with closing(self._database.execute(SQL["chunks"], (job_id, after, self._clock.now()))) as rows:
            for row in rows:
                chunk = Chunk(*row)
                up_to_bytes -= len(chunk.data)
                if found and up_to_bytes < 0:
                    break
                found.append(chunk)
        return found

    def newest(self, function: str | None, state: State | None, limit: int) -> list[Job]:
        wanted = (self._clock.now(), function, None if state is None else state.value, limit)
        return [job_of(row)[1] for row in self._database.execute(SQL["list_jobs"], wanted)]
