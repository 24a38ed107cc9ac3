"""Terminal records that webhooks have yet to be told, as statements inside a transaction that its caller holds."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from flashfw.cluster.jobs.statements import Database, Row, job_of, record_of
from flashfw.cluster.jobs.store import Delivery


class Outbox:
    """The deliveries in a database, for the thread that writes."""

    def __init__(self, database: Database, sql: Mapping[str, str]) -> None:
        self._database = database
        self._sql = sql

    def enter(self, seq: int, now: float) -> None:
        """A job with a webhook ends."""
        self._database.execute(self._sql["insert_delivery"], (uuid.uuid4().hex, seq, now, now))

    def supersede(self, seq: int) -> None:
        """A job that ended is asked for anew: keep what it had ended with for those who are still to hear of it."""
        self._database.execute(self._sql["supersede"], (seq,))

    def due(self, now: float, limit: int, lease_s: float) -> list[Delivery]:
        """As `JobStore.deliveries`."""
        rows = self._database.execute(self._sql["due_deliveries"], (now, limit)).fetchall()
        for delivery_id, *_ in rows:
            self._database.execute(self._sql["lease_delivery"], (now + lease_s, delivery_id))
        return [self._delivery(row) for row in rows]

    def delivered(self, delivery_id: str) -> None:
        """As `JobStore.delivered`."""
        for statement in ("delete_superseded", "delete_delivery"):
            self._database.execute(self._sql[statement], (delivery_id,))

    def undelivered(self, delivery_id: str, error: str, retry_at: float | None) -> None:
        """As `JobStore.undelivered`."""
        self._database.execute(self._sql["undelivered"], (error, retry_at, delivery_id))

    def forget(self, seq: int) -> None:
        """The job is deleted, and what was given up of it goes with it."""
        for statement in ("delete_superseded_of_job", "delete_deliveries_of_job"):
            self._database.execute(self._sql[statement], (seq,))

    def _delivery(self, row: Row) -> Delivery:
        delivery_id, seq, tries, created_at = row
        job = job_of(self._database.execute(self._sql["load_job"], (seq,)).fetchone()).job
        earlier = self._database.execute(self._sql["superseded"], (delivery_id,)).fetchone()
        return Delivery(delivery_id, job if earlier is None else record_of(job, earlier), tries, created_at)
