"""A store of every kind, open, with its clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flashfw.cluster.clock import ManualClock
from tests.cluster.jobs.conformance import STORES, Bench, opened


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=STORES, ids=lambda kind: kind.name)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    clock = ManualClock()
    async with opened(request.param.make(tmp_path, clock)) as store:
        yield Bench(store, clock)
