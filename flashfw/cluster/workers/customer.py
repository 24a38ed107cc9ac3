"""Who uses the workers of a pool, and what it asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from flashfw.errors import FlashfwError
from flashfw.worker.frames import Failure

SERVER_STOPS = "the server stops"
NOT_SERVED = "its endpoint is not served any more"


@dataclass(frozen=True, slots=True)
class Demand:
    """What waits for workers of an endpoint now.

    `queued` calls ask for workers and take `slots` of them; `low` ones run on what others start; `parked` ones wait
    for a retry. `oldest_wait_s` is of those that are queued.
    """

    queued: int
    oldest_wait_s: float
    slots: int
    low: int = 0
    parked: int = 0


class Customer(Protocol):
    """Who hands calls to the pool's workers: the dispatcher."""

    def demand(self) -> Demand:
        """What waits now."""
        ...

    def on_free(self) -> None:
        """A slot became free."""
        ...

    def on_start_failed(self, failure: Failure) -> None:
        """No worker can be had for now; this is why."""
        ...


class NoWorker(FlashfwError):
    """Workers of this endpoint do not start; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure["message"])
        self.failure = failure
