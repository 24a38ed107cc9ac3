"""How an endpoint stands now, as a document: its workers, what waits, why it has as many workers as it has."""

from __future__ import annotations

from typing import Any, Protocol

from flashfw.cluster.clock import Clock
from flashfw.cluster.explaining.inquiry import Serving
from flashfw.cluster.jobs.store import Entry, JobStore
from flashfw.cluster.workers.customer import Demand


class Endpoint(Serving, Protocol):
    """One whose load is known too."""

    def demand(self) -> Demand:
        """What waits for workers."""
        ...


def standing(name: str, served: Endpoint, *, clock: Clock, scaled: Entry | None = None) -> dict[str, object]:
    """One endpoint. `scaled` is the last decision that changed how many workers it has."""
    pool, demand = served.pool, served.demand()
    return {
        "id": name,
        "kind": pool.endpoint.kind,
        "fingerprint": pool.endpoint.fingerprint,
        "queued": demand.queued + demand.low,
        "oldest_s": demand.oldest_wait_s,
        "parked": demand.parked,
        "scaling": pool.decision.reason if pool.decision else "",
        "scaled": None if scaled is None else _decision(scaled, clock.now()),
        "failure": pool.failure,
        "retry_in_s": pool.retry_in_s,
        "workers_min": pool.scaling.workers_min,
        "workers_max": pool.scaling.workers_max,
        "workers": [
            {
                "id": worker.id,
                "state": worker.state.value,
                "why": worker.why_throttled if worker.is_throttled else worker.why_stopped,
                "fingerprint": worker.endpoint.fingerprint,
                "gpus": [gpu.uuid for gpu in worker.gpus],
                "calls": worker.slots_used,
                "pid": getattr(worker.process, "pid", None),
                "process": getattr(worker.process, "origin", None),
                "age_s": clock.monotonic() - worker.created_at,
            }
            for worker in pool.workers
        ],
    }


def queues(served: Endpoint, store: JobStore) -> list[dict[str, object]]:
    """The queue of each function: what may be claimed, what waits for a retry, what runs, and ends since the store
    was made."""
    return [_queue(function, store) for function in sorted(served.functions)]


def _queue(function: str, store: JobStore) -> dict[str, object]:
    pending, health = store.pending([function]), store.health(function)
    return {
        "function": function,
        "claimable": pending.claimable,
        "parked": pending.parked,
        "low": pending.low,
        "running": health.running,
        "completed": health.completed,
        "failed": health.failed,
        "retried": health.retried,
    }


def _decision(entry: Entry, now: float) -> dict[str, Any]:
    return {"at": entry.at, "ago_s": max(0.0, now - entry.at), **entry.fields}
