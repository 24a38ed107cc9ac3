"""GPUs of a server given to one worker at a time: waited for, yielded, given again once their memory is free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.explaining.standing import standing
from flashfw.cluster.workers.autoscaler import WorkerState
from flashfw.cluster.workers.devices import COOLING_S, VISIBLE, Devices, _visible
from flashfw.cluster.workers.gpus import Gpu, Gpus
from flashfw.manifest import Endpoint
from tests.cluster.bench import ClusterBench, an_endpoint, clustering, dispatching, waits
from tests.cluster.releases.releasing import answers, releasing
from tests.cluster.scripted import ScriptedProcess

pytestmark = pytest.mark.anyio

GB = 1_000_000_000
A100, L4 = "NVIDIA A100 80GB PCIe", "NVIDIA L4"


def gpus(*names: str, cuda: str = "12.8") -> Gpus:
    devices = tuple(
        Gpu(index=index, uuid=f"GPU-{index}", name=name, memory_bytes=80 * GB, free_bytes=79 * GB, capability="8.0")
        for index, name in enumerate(names)
    )
    return Gpus(devices=devices, driver="570", cuda=cuda)


def devices(*names: str, **how: Any) -> Devices:
    """Those of a site, whose clock they get."""
    return Devices(gpus(*names), clock=ManualClock(), **how)


def wanting(name: str = "gpu", count: int = 1, **changes: Any) -> Endpoint:
    return an_endpoint(name, gpu=(A100,), gpu_count=count, **{"workers_max": 3, **changes})


def seen(process: ScriptedProcess) -> str:
    return process.spec.environ[VISIBLE]


def states(bench: ClusterBench, name: str) -> list[WorkerState]:
    return [worker.state for worker in bench.cluster.dispatchers[name].pool.workers]


async def test_each_worker_sees_its_own_gpus_and_a_cpu_endpoint_none(tmp_path: Path) -> None:
    endpoints = wanting("a", workers_min=2), wanting("b", 2, workers_min=1), an_endpoint("cpu", workers_min=1)
    async with clustering(tmp_path, *endpoints, devices=devices(A100, A100, A100, A100)) as bench:
        found = sorted((worker.spec.endpoint, seen(worker)) for worker in bench.workers)
        given = sorted(uuid for endpoint, uuids in found if endpoint != "cpu" for uuid in uuids.split(","))

        assert [endpoint for endpoint, _ in found] == ["a", "a", "b", "cpu"]
        assert given == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
        assert dict(found)["cpu"] == ""


async def test_a_server_without_gpus_runs_them_on_the_cpu(tmp_path: Path) -> None:
    async with clustering(tmp_path, wanting(workers_min=1), devices=devices()) as bench:
        assert VISIBLE not in bench.worker.spec.environ


async def test_in_dev_all_workers_share_what_there_is(tmp_path: Path) -> None:
    async with clustering(tmp_path, wanting("a", workers_min=1), wanting("b", workers_min=1)) as bench:
        assert [VISIBLE in worker.spec.environ for worker in bench.workers] == [False, False]


async def test_none_free_is_throttled_and_says_why_until_one_is(tmp_path: Path) -> None:
    async with clustering(
        tmp_path, wanting("a", workers_min=1), wanting("b", workers_min=1), devices=devices(A100)
    ) as bench:
        assert (states(bench, "a"), states(bench, "b")) == ([WorkerState.IDLE], [WorkerState.THROTTLED])
        shown = standing("b", bench.cluster.dispatchers["b"], clock=bench.clock)["workers"]
        assert isinstance(shown, list)
        assert (shown[0]["state"], shown[0]["why"]) == (
            "THROTTLED",
            "no GPU is free for it: 1 worker has those of this server",
        )
        assert [fields["why"] for fields in bench.named("worker") if fields["state"] == "THROTTLED"] != []

        bench.apply(wanting("b", workers_min=1, fingerprint=bench.cluster.manifest.endpoints[1].fingerprint))
        await bench.advance(1.0)

        assert states(bench, "b") == [WorkerState.IDLE]
        assert seen(bench.worker) == "GPU-0"


async def test_an_idle_worker_above_min_yields_to_one_that_waits(tmp_path: Path) -> None:
    async with clustering(
        tmp_path, wanting("kept", workers_min=1), wanting("a"), wanting("b"), devices=devices(A100, A100)
    ) as bench:
        bench.placement.on_start = answers
        assert (await bench.post("/a", 1)).status == 200
        (idle,) = [worker for worker in bench.workers if worker.spec.endpoint == "a"]
        waiting = await bench.post("/b", 1)
        await bench.until(lambda: waiting.is_over)

        assert waiting.status == 200
        assert not idle.is_alive
        assert "its GPU is for b, which waits for one" in [fields["why"] for fields in bench.named("worker")]
        assert {worker.spec.endpoint for worker in bench.workers} == {"kept", "b"}


async def test_a_busy_worker_keeps_its_gpu_and_whose_calls_end_wait_no_more(tmp_path: Path) -> None:
    async with clustering(tmp_path, wanting("a"), wanting("b"), devices=devices(A100)) as bench:
        busy = await bench.post("/a", 1)
        waiting = await bench.post("/b", 1)
        await bench.advance(5.0)
        assert states(bench, "b") == [WorkerState.THROTTLED]
        bench.worker.result()
        await bench.advance(1.0)
        bench.worker.result()
        await bench.until(lambda: waiting.is_over)

        assert (busy.status, waiting.status) == (200, 200)


async def test_a_gpu_is_given_again_once_its_memory_is_free(tmp_path: Path) -> None:
    free = {"GPU-0": 5 * GB}

    async def free_bytes() -> Mapping[str, int]:
        return free

    async with dispatching(tmp_path, wanting(workers_min=1), devices=devices(A100, free_bytes=free_bytes)) as bench:
        await bench.settle()
        bench.worker.die(9)
        await bench.advance(3.0)
        assert [worker.state for worker in bench.dispatcher.pool.workers] == [WorkerState.THROTTLED]

        free["GPU-0"] = 79 * GB
        await bench.advance(1.0)
        assert len(bench.workers) == 1

        bench.worker.die(9)
        free["GPU-0"] = 5 * GB  # another program has it: the next worker says so better
        await bench.advance(COOLING_S + 2.0)
        assert len(bench.workers) == 1


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (wanting(count=3, workers_min=1), "gpu wants 3 GPUs, and this server has 2 for it"),
        (wanting(cuda="13.0", workers_min=1), "gpu wants CUDA 13.0, and this server's driver runs CUDA up to 12.8"),
    ],
)
async def test_what_the_server_can_never_give_is_a_failed_start(tmp_path: Path, endpoint: Endpoint, words: str) -> None:
    async with clustering(tmp_path, endpoint, devices=devices(A100, A100), start_failures=1) as bench:
        failure = bench.named("start_failed")[0]["failure"]

        assert words in failure["message"]


async def test_types_go_by_preference_where_the_server_has_any_of_them(tmp_path: Path) -> None:
    have = devices(L4, A100, L4)
    chosen = [
        await have.lease(an_endpoint(gpu=names), f"w{number}", on_wait=lambda why: None)
        for number, names in enumerate([(A100, L4), (L4,), ("NVIDIA L40S",)])
    ]

    assert [gpu.uuid for (gpu,) in chosen] == ["GPU-1", "GPU-0", "GPU-2"]
    assert have.room(an_endpoint(gpu=(L4,))) == 0
    assert have.room(an_endpoint()) == float("inf")


def test_a_server_uses_the_gpus_that_it_was_started_with() -> None:
    kept = _visible(gpus(A100, A100, L4), "2,GPU-0")
    none = _visible(gpus(A100), "")

    assert [gpu.uuid for gpu in kept.devices] == ["GPU-0", "GPU-2"]
    assert (none.devices, none.why) == ((), f"the server was started with {VISIBLE}=")


async def test_a_release_is_rolled_by_replace_where_its_gpus_are_not_there_twice(tmp_path: Path) -> None:
    async with releasing(tmp_path, devices=devices(A100)) as bench:
        bench.placement.on_start = answers
        await bench.shipped(wanting(workers_min=1))
        old = bench.worker
        running = await bench.shipped(wanting(workers_min=1))

        assert [event.step for event in running.events] == ["draining", "starting", "ready", "switched"]
        assert "no GPU is free beside them" in running.events[0].text
        assert (old.is_alive, seen(bench.worker)) == (False, "GPU-0")


async def test_where_there_is_room_it_surges(tmp_path: Path) -> None:
    async with releasing(tmp_path, devices=devices(A100, A100, A100)) as bench:
        bench.placement.on_start = answers
        await bench.shipped(wanting("a", workers_min=1), wanting("b", workers_min=1))
        running = await bench.shipped(wanting("a", workers_min=1), wanting("b", workers_min=1))
        steps = {(event.endpoint, event.step) for event in running.events[:-2]}

        assert ("a", "draining") not in steps  # the third is for the first; no fourth is there for the second
        assert ("b", "draining") in steps


async def test_a_release_does_not_wait_for_a_gpu_for_ever(tmp_path: Path) -> None:
    async with releasing(tmp_path, devices=devices(A100)) as bench:
        await bench.shipped(wanting("a", workers_min=1))
        kept = bench.cluster.manifest.endpoints[0]
        running = await bench.ship(kept, wanting("b", start_timeout_s=20.0))
        await bench.told(running, "starting")
        await bench.advance(25.0)
        await bench.over(running)

        assert running.failure is not None
        assert running.failure.message.startswith("within 20 s no GPU is free for it")


async def test_a_saved_secret_rolls_in_place_where_only_one_fits(tmp_path: Path) -> None:
    async with releasing(tmp_path, devices=devices(A100)) as bench:
        bench.placement.on_start = waits
        running = await bench.ship(wanting(workers_min=1))
        await bench.until(lambda: len(bench.workers) == 1)
        bench.worker.ready()
        await bench.over(running)
        old = bench.worker
        bench.placement.on_start = answers
        bench.releases.roll(["gpu"])
        await bench.until(lambda: bool(bench.workers) and old not in bench.workers)

        assert seen(bench.worker) == "GPU-0"
