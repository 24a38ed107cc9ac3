"""What a round does, drawn from its seed: its jobs, and when what is killed. Pure: a seed replays it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Fault = Literal[
    "kill worker",
    "kill gateway",
    "kill postgres",
    "pause worker",
    "pause gateway",
    "pause postgres",
    "slow reader",
    "vanishing caller",
    "half a body",
]
Store = Literal["sqlite", "postgres"]

_ANYWHERE: tuple[Fault, ...] = (
    *("kill worker", "kill gateway", "pause worker", "pause gateway"),
    *("slow reader", "vanishing caller", "half a body"),
)
FAULTS: dict[Store, tuple[Fault, ...]] = {
    "sqlite": _ANYWHERE,
    "postgres": (*_ANYWHERE, "kill postgres", "pause postgres"),
}
KILLS: tuple[Fault, ...] = ("kill worker", "kill gateway", "kill postgres")

# A job whose worker died three times is given up, by design. Fewer kills make every end a known one.
MAX_WORKER_KILLS = 2


@dataclass(frozen=True)
class Order:
    """One job to submit: `function`, its input, and whether its caller cancels it once it is accepted."""

    key: str
    function: Literal["work", "count"]
    n: int
    ms: int
    fails: int
    is_cancelled: bool

    @property
    def input(self) -> dict[str, int]:
        return {"n": self.n, "ms": self.ms, "fails": self.fails}

    @property
    def output(self) -> object:
        """What it must return if it completes."""
        return self.n * self.n if self.function == "work" else list(range(self.n % 10))


@dataclass(frozen=True)
class Blow:
    """One fault, struck once so many jobs are accepted. `pick` chooses among what could be hit, from 0 to 1."""

    after: int
    fault: Fault
    pick: float


@dataclass(frozen=True)
class Plan:
    """A whole round."""

    seed: int
    store: Store
    orders: tuple[Order, ...]
    blows: tuple[Blow, ...]


def draw(seed: int, store: Store, *, jobs: int = 40, blows: int = 3) -> Plan:
    """The round of a seed: the first blow is always a kill.

    >>> draw(7, "sqlite") == draw(7, "sqlite")
    True
    """
    chance = random.Random(f"{store} {seed}")
    orders = tuple(_order(chance, seed, number) for number in range(jobs))
    faults = [chance.choice([fault for fault in KILLS if fault in FAULTS[store]])]
    while len(faults) < blows:
        fault = chance.choice(FAULTS[store])
        if fault != "kill worker" or faults.count(fault) < MAX_WORKER_KILLS:
            faults.append(fault)
    moments = sorted(chance.sample(range(1, jobs), blows))
    struck = (Blow(after, fault, chance.random()) for after, fault in zip(moments, faults, strict=True))
    return Plan(seed, store, orders, tuple(struck))


def _order(chance: random.Random, seed: int, number: int) -> Order:
    return Order(
        key=f"{seed}-{number}",
        function=chance.choice(["work", "work", "count"]),
        n=chance.randrange(1, 1000),
        ms=chance.choice([0, 1, 5, 20, 60]),
        fails=chance.choice([0, 0, 0, 0, 1]),
        is_cancelled=chance.random() < 0.05,
    )
