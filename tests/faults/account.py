"""One round played: jobs submitted by several callers while blows are struck, and what became of every job."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.dev_process import DevServer, wait_until
from tests.faults.books import Books
from tests.faults.plan import Order, Plan
from tests.faults.stage import Stage

CALLERS = 4
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Account:
    """The end of a round. All but the first four must be empty."""

    seed: int
    jobs: int
    kills: int
    attempts: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


class Round:
    """A plan being played on a stage."""

    def __init__(self, plan: Plan, stage: Stage, books: Books) -> None:
        self._plan = plan
        self._stage = stage
        self._books = books
        self._accepted: dict[str, tuple[str, Order]] = {}
        self._lock = threading.Lock()
        self._blows = iter(plan.blows)
        self._next = next(self._blows, None)
        self._kills = stage.kills
        self._attempts = books.attempts()

    def play(self) -> Account:
        """Submit everything, strike every blow, wait until nothing is under way, and count."""
        self._books.watch()
        with self._stage.running():
            with ThreadPoolExecutor(CALLERS) as callers:
                list(callers.map(self._submit, self._plan.orders))
            self._stage.release()
            wait_until(lambda: not self._open(), "every job has its end", deadline_s=PATIENCE_S)
        return self._count()

    def _submit(self, order: Order) -> None:
        """Ask until it is accepted; the key makes it one job, however often the answer was lost."""
        body = json.dumps({"input": order.input}).encode()
        job_id = ""

        def is_accepted() -> bool:
            nonlocal job_id
            for server in self._servers():
                job_id = _ask(server, f"/v2/{order.function}/run", body, order.key) or job_id
                if job_id:
                    return True
            return False

        wait_until(is_accepted, f"order {order.key} is accepted", deadline_s=PATIENCE_S)
        if order.is_cancelled:
            for server in self._servers():
                _ask(server, f"/v2/{order.function}/cancel/{job_id}", b"", None)
        self._note(job_id, order)

    def _note(self, job_id: str, order: Order) -> None:
        with self._lock:
            self._accepted[job_id] = (order.key, order)
            if self._next is not None and len(self._accepted) >= self._next.after:
                self._stage.strike(self._next, job_id)
                self._next = next(self._blows, None)

    def _servers(self) -> Iterator[DevServer]:
        return (gateway.server for gateway in self._stage.gateways)

    def _open(self) -> list[str]:
        return [name for name, state in self._books.states().items() if state in ("IN_QUEUE", "IN_PROGRESS")]

    def _count(self) -> Account:
        states, ends = self._books.states(), self._books.ends()
        return Account(
            seed=self._plan.seed,
            jobs=len(self._accepted),
            kills=self._stage.kills - self._kills,
            attempts=self._books.attempts() - self._attempts,
            lost=tuple(key for job_id, (key, _) in self._accepted.items() if job_id not in states),
            doubled=tuple(job_id for job_id in states if ends[job_id] != 1),
            wrong=tuple(self._wrong()),
        )

    def _wrong(self) -> Iterator[str]:
        """What callers are told that is not so."""
        server = next(self._servers())
        if len(self._accepted) != len(self._plan.orders):
            yield f"{len(self._accepted)} jobs for {len(self._plan.orders)} orders"
        for job_id, (key, order) in self._accepted.items():
            record = server.request("GET", f"/v2/{order.function}/status/{job_id}").json()
            assert isinstance(record, dict)
            is_done = record.get("status") == "COMPLETED" and record["output"] == order.output
            if not is_done and not (order.is_cancelled and record.get("status") == "CANCELLED"):
                yield f"{key}: {record}"


def _ask(server: DevServer, path: str, body: bytes, key: str | None) -> str | None:
    """The id in the answer; None while the server is away or cannot keep anything."""
    headers = {"content_type": "application/json"} | ({"idempotency_key": key} if key else {})
    try:
        answer = server.request("POST", path, body, timeout_s=10, **headers)
    except (OSError, http.client.HTTPException):
        return None
    if answer.status == 503:
        return None
    assert answer.status == 200, f"{path}: {answer.status} {answer.body!r}"
    return str(answer.json()["id"])  # type: ignore[index]
