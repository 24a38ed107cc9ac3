"""The questions of a store: what reads and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing

from flashfw.cluster.clock import Clock
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.statements import SQL, Database, Row, job_of
from flashfw.cluster.jobs.store import Chunk, Entry, Tick

# Beyond any seq.
_LAST = 2**63 - 1


class Shelf:
    """The jobs in a database, for the thread that reads. Every method is one of `JobStore`."""

    def __init__(self, database: Database, clock: Clock, sql: Mapping[str, str] = SQL) -> None:
        self._database = database
        self._sql = sql
        self._clock = clock

    def get(self, job_id: str) -> Job | None:
        row = self._database.execute(self._sql["find_job"], (job_id, self._clock.now())).fetchone()
        return None if row is None else job_of(row).job

    def peek(self, job_id: str) -> Job | None:
        row = self._database.execute(self._sql["peek_job"], (job_id, self._clock.now())).fetchone()
        return None if row is None else job_of(row).job

    def chunks(self, job_id: str, after: int, up_to_bytes: int) -> list[Chunk]:
        found: list[Chunk] = []
        with closing(self._database.execute(self._sql["chunks"], (job_id, after, self._clock.now()))) as rows:
            for row in rows:
                chunk = Chunk(*row)
                up_to_bytes -= len(chunk.data)
                if found and up_to_bytes < 0:
                    break
                found.append(chunk)
        return found

    def newest(
        self, function: str | None, state: State | None, dead: bool, before: str | None, limit: int
    ) -> list[Job]:
        seq = _LAST if before is None else self._seq_of(before)
        wanted = (seq, self._clock.now(), function, None if state is None else state.value, limit)
        rows = self._database.execute(self._sql["list_dead" if dead else "list_jobs"], wanted)
        return [job_of(row).job for row in rows]

    def find(self, part: str, limit: int) -> list[str]:
        return [job_id for (job_id,) in self._database.execute(self._sql["find_ids"], (part, limit))]

    def story(self, job_id: str) -> list[Entry]:
        return _entries(self._database.execute(self._sql["story"], (job_id,)))

    def happened(self, endpoint: str, since: float, until: float, limit: int) -> list[Entry]:
        return _entries(self._database.execute(self._sql["happened"], (endpoint, since, until, limit)))

    def last_tick(self, key: str) -> Tick | None:
        row = self._database.execute(self._sql["last_tick"], (key,)).fetchone()
        return None if row is None else Tick(*row)

    def read_position(self, job_id: str) -> tuple[int, int]:
        fence, index = self._database.execute(self._sql["read_position"], (job_id,)).fetchone() or (0, -1)
        return fence, index

    def _seq_of(self, job_id: str) -> int:
        row = self._database.execute(self._sql["seq_of"], (job_id,)).fetchone()
        return 0 if row is None else int(row[0])


def _entries(rows: Iterable[Row]) -> list[Entry]:
    return [
        Entry(at, endpoint, name, json.loads(fields), job, worker) for at, endpoint, name, fields, job, worker in rows
    ]
