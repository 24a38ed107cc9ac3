"""What is removed with old releases, and what a worker that has yet to finish keeps from that."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from flashfw.bundle.release import Packages
from flashfw.cluster.releases.layers import UNUSED_S
from flashfw.cluster.releases.store import KEPT
from tests.cluster.bench import an_endpoint
from tests.cluster.releases.releasing import answers, releasing
from tests.cluster.scripted import ScriptedProcess

pytestmark = pytest.mark.anyio

OLD = "f" * 16


async def test_what_a_worker_runs_in_stays_until_it_is_done(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = ScriptedProcess.ready
        made = await bench.release(an_endpoint("gpu"))
        packages = Packages(
            key=OLD, python="3.11", platform="x86_64-manylinux_2_28", layer=await bench.layer({"old.py": ""})
        )
        endpoints = tuple(replace(endpoint, environment=OLD) for endpoint in made.manifest.endpoints)
        old = replace(made, manifest=replace(made.manifest, endpoints=endpoints), packages=(packages,))
        await bench.releases.ship(old, expected=None, removes=(), by="me")
        assert bench.releases.last is not None
        await bench.over(bench.releases.last)
        (worker,) = bench.workers
        environment = bench.folder / "data" / "environments" / OLD
        environment.mkdir(parents=True)
        call = await bench.call("POST", "/gpu", b"{}", authorization=f"Bearer {bench.key}", prefer="respond-async")
        assert call.status == 202

        bench.placement.on_start = answers
        for _ in range(KEPT + 1):
            await bench.shipped(an_endpoint("gpu"))
        layers = bench.releases.layers
        for path in layers.folder.iterdir():
            os.utime(path, (0, bench.clock.now() - UNUSED_S - 1))
        await bench.releases.collect_garbage()
        assert old.id not in [found.id for found in await bench.releases.listed()]
        assert worker in bench.workers
        there = [layers.path(layer.digest).is_dir() for layer in (old.source, packages.layer)]
        assert (there, environment.is_dir()) == ([True, True], True)

        worker.result()
        await bench.settle()
        assert worker not in bench.workers
        await bench.releases.collect_garbage()
        there = [layers.path(layer.digest).is_dir() for layer in (old.source, packages.layer)]
        assert (there, environment.is_dir()) == ([False, False], False)
