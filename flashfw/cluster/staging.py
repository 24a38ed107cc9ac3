"""A release to come, endpoint by endpoint: its workers are brought up while another one serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flashfw.cluster.dispatch.dispatcher import JobDispatcher
from flashfw.cluster.dispatch.holding import HttpDispatcher
from flashfw.cluster.workers.stage import Stage
from flashfw.manifest import Endpoint, Manifest

Dispatcher = JobDispatcher | HttpDispatcher
Strategy = Literal["surge", "replace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """Which release is served: its id, when it came (epoch seconds), and who sent it."""

    id: str
    created: float
    by: str


class Part:
    """One endpoint of a release to come that is new or another one than now. `dispatcher` is what serves it, or will.

    By `surge` its `count` workers start beside those that serve; by `replace` after those have ended.
    """

    def __init__(self, endpoint: Endpoint, root: Path, dispatcher: Dispatcher, *, is_new: bool) -> None:
        self.endpoint = endpoint
        self.root = root
        self.dispatcher = dispatcher
        self.is_new = is_new
        self.strategy: Strategy = "surge"
        self.stage: Stage | None = None
        serving = sum(worker.serves for worker in dispatcher.pool.workers)
        self.count = min(max(1, endpoint.workers_min, serving), endpoint.workers_max)

    async def clear(self) -> None:
        """End the workers that serve; callers wait."""
        await self.dispatcher.pool.clear("a newer release takes its place")

    def begin(self) -> Stage:
        """Start the workers of the release to come."""
        self.stage = self.dispatcher.pool.stage(self.endpoint, self.root, self.count)
        return self.stage

    def abandon(self, why: str) -> None:
        """End what was staged; what served before serves on, or again."""
        self.dispatcher.pool.abandon(why)


class Staging:
    """What `Cluster.stage` prepares and `Cluster.apply` switches to. Lives until either that or `abandon`."""

    def __init__(self, manifest: Manifest, root: Path, parts: Iterable[Part]) -> None:
        self.manifest = manifest
        self.root = root
        self.parts = {part.endpoint.id: part for part in parts}
        _choose_strategies(self.parts.values())

    def abandon(self, why: str) -> None:
        """End everything that was staged."""
        for part in self.parts.values():
            part.abandon(why)


def _choose_strategies(parts: Iterable[Part]) -> None:
    """Replace where the endpoint asks for it, or where its GPUs are not there twice."""
    promised = 0
    for part in parts:
        pool = part.dispatcher.pool
        if part.endpoint.strategy == "replace" or not pool.may_surge(part.endpoint, part.count, promised=promised):
            part.strategy = "replace"
        elif part.endpoint.gpu:
            promised += part.count * part.endpoint.gpu_count
