from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.cluster.workers.warming import AGAIN_S
from flashfw.manifest import Variable
from tests.cluster.bench import an_endpoint, clustering

pytestmark = pytest.mark.anyio


async def test_prepares_once_for_endpoints_that_share_what_is_warm(tmp_path: Path) -> None:
    torch = an_endpoint("torch", preload=("torch",))
    async with clustering(tmp_path, an_endpoint("a"), an_endpoint("b"), torch, warm_ahead=4) as bench:
        await bench.until(lambda: len(bench.placement.prepared) == 2)
        await bench.settle()

        assert [spec.preload for spec in bench.placement.prepared] == [(), ("torch",)]
        assert bench.workers == []


async def test_keeps_warm_no_more_than_asked_and_again_before_it_would_end(tmp_path: Path) -> None:
    other = an_endpoint("other", preload=("torch",))
    async with clustering(tmp_path, an_endpoint(), other, warm_ahead=1) as bench:
        await bench.until(lambda: len(bench.placement.prepared) == 1)
        await bench.advance(AGAIN_S + 1)

        assert [spec.preload for spec in bench.placement.prepared] == [(), ()]


async def test_prepares_for_what_is_served_later_and_tells_of_no_failure(tmp_path: Path) -> None:
    broken = an_endpoint("broken", preload=("x",), secrets=(Variable(name="KEY", value="KEY"),))
    async with clustering(tmp_path, broken, warm_ahead=4, describe_after_s=1.0) as bench:
        assert bench.placement.prepared == []
        await bench.advance(2.0)
        assert bench.placement.prepared == []
        bench.apply(broken, an_endpoint())
        await bench.advance(2.0)

        assert [spec.preload for spec in bench.placement.prepared] == [()]
        assert bench.named("internal_error") == []


async def test_nothing_is_prepared_unless_asked_for(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        await bench.advance(AGAIN_S + 1)

        assert bench.placement.prepared == []
