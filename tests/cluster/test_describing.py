"""Descriptions: asked once per fingerprint, kept on disk, and no one's downfall when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from flashfw.cluster.describing import Descriptions
from flashfw.worker.frames import Failure, Kind
from tests.cluster.bench import Bench, an_endpoint
from tests.cluster.scripted import ScriptedProcess

pytestmark = pytest.mark.anyio


def says(functions: dict[str, object]) -> Callable[[ScriptedProcess], None]:
    def describe(process: ScriptedProcess) -> None:
        process.send(Kind.DESCRIBED, 0, {"functions": functions})
        process.die(0)

    return describe


def bench(folder: Path, answer: Callable[[ScriptedProcess], None]) -> Bench:
    made = Bench(folder)
    made.placement.on_describe = answer
    return made


async def test_an_endpoint_is_described_once_per_fingerprint_by_any_server(tmp_path: Path) -> None:
    here, endpoint = bench(tmp_path, says({"gpu": {"doc": "Draw."}})), an_endpoint()
    for _ in range(2):
        known = Descriptions(here.site)
        assert await known.describe(endpoint, tmp_path) is None
        assert known.known() == {"gpu": {"doc": "Draw."}}
    assert len(here.placement.processes) == 1

    await known.describe(an_endpoint(), tmp_path)
    assert len(here.placement.processes) == 2
    assert here.workers == []


async def test_an_endpoint_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    here, endpoint = bench(tmp_path, says({"gpu": {}})), an_endpoint()
    known = Descriptions(here.site)
    await known.describe(endpoint, tmp_path)
    before = known.known()
    known.forget(endpoint)

    assert known.known() == {}
    assert before == {"gpu": {}}  # whoever made a document of it tells by the mapping that it is an old one


async def test_a_function_that_cannot_be_described_is_told_and_tried_again(tmp_path: Path) -> None:
    error = Failure(reason="startup", type="ImportError", message="no torch")
    here, endpoint = bench(tmp_path, says({"gpu": {"error": error}})), an_endpoint()
    known = Descriptions(here.site)
    await known.describe(endpoint, tmp_path)
    await known.describe(endpoint, tmp_path)

    assert here.named("described")[0] == {"function": "gpu", "failure": error}
    assert len(here.placement.processes) == 2


async def test_a_process_that_dies_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    def dies(process: ScriptedProcess) -> None:
        process.last_output = "Segmentation fault"
        process.die(-11)

    here = bench(tmp_path, dies)
    failure = await Descriptions(here.site).describe(an_endpoint(), tmp_path)

    assert failure is not None
    assert "killed by SIGSEGV" in failure["message"]
    assert "Segmentation fault" in failure["message"]
    assert here.named("described") == [{"failure": failure}]


async def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    here = bench(tmp_path, lambda process: None)
    await here.store.open("boot")
    describing = asyncio.ensure_future(Descriptions(here.site).describe(an_endpoint(start_timeout_s=5.0), tmp_path))
    await here.settle()
    await here.advance(6.0)
    failure = await describing
    await here.store.close()

    assert failure is not None
    assert "not ready within start_timeout (5 s)" in failure["message"]
    assert here.workers == []


async def test_a_disk_that_is_full_only_costs_the_next_server_time(tmp_path: Path) -> None:
    (tmp_path / ".flashfw").write_text("in the way")
    here = bench(tmp_path, says({"gpu": {"doc": "Draw."}}))
    known = Descriptions(here.site)

    assert await known.describe(an_endpoint(), tmp_path) is None
    assert known.known() == {"gpu": {"doc": "Draw."}}
