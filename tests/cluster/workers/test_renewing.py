"""Saved files and running workers, which are scripted: who is asked, who is replaced, what is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import pytest

from flashfw.cluster.jobs.model import State
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Kind
from tests.cluster.bench import JobBench, a_function, an_endpoint, breaks, dispatching, waits

pytestmark = pytest.mark.anyio

FIXTURES = "endpoints/gpu/fixtures.py"


async def save(bench: JobBench, *files: str, endpoint: Endpoint | None = None) -> None:
    now = dataclasses.replace(endpoint or bench.dispatcher.endpoint, fingerprint=f"saved {files} {len(bench.events)}")
    bench.dispatcher.apply(now, bench.root, None, files or ("lib.py",))
    await bench.settle()


def told(bench: JobBench, name: str) -> list[Collection[str]]:
    return [fields["files"] for fields in bench.named(name)]


async def test_a_worker_that_takes_a_save_in_goes_on_as_one_of_the_new_code(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        await save(bench)
        (asked,) = bench.worker.said(Kind.RELOAD)
        assert asked.meta["files"] == ["lib.py"]
        assert told(bench, "renewed") == []  # the old code serves until it says so

        bench.worker.reloaded()
        bench.worker.result()
        await bench.advance(5.0)

        (worker,) = bench.dispatcher.pool.workers
        assert (worker.generation, worker.endpoint) == (bench.dispatcher.pool.generation, bench.dispatcher.endpoint)
        assert await bench.state(job) is State.COMPLETED
        assert told(bench, "renewed") == [["lib.py"]]
        assert bench.named("replacing") == bench.named("rolled") == []
        assert len(bench.placement.processes) == 1


async def test_a_save_is_taken_in_when_every_worker_has(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=2, workers_max=2)) as bench:
        await bench.settle()
        first, second = bench.workers
        await save(bench)
        first.reloaded()
        await bench.settle()
        assert told(bench, "renewed") == []
        second.reloaded()
        await bench.settle()
        assert told(bench, "renewed") == [["lib.py"]]


async def test_a_worker_that_cannot_is_replaced_and_works_until_then(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=2, workers_max=2)) as bench:
        await bench.settle()
        first, second = bench.workers
        bench.placement.on_start = waits
        await save(bench)
        first.reloaded(f"{FIXTURES}: fixtures are built anew")
        second.reloaded("the same")
        await bench.until(lambda: len(bench.workers) == 4)
        job = await bench.submit()
        assert await bench.state(job) is State.IN_PROGRESS
        assert first.calls or second.calls

        bench.workers[2].ready()
        await bench.settle()
        assert [len(old.said(Kind.DRAIN)) for old in (first, second)] == [1, 1]
        (first if first.calls else second).result()
        await bench.settle()
        assert await bench.state(job) is State.COMPLETED
        assert [fields["why"] for fields in bench.named("replacing")] == [f"{FIXTURES}: fixtures are built anew"]
        assert len(bench.named("rolled")) == 1
        assert told(bench, "renewed") == []


async def test_a_worker_that_cannot_takes_no_calls_once_another_has(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=2, workers_max=2)) as bench:
        await bench.settle()
        first, second = bench.workers
        bench.placement.on_start = waits
        await save(bench)
        first.reloaded()
        await bench.settle()
        second.reloaded("RuntimeError as it was taken into the running worker")
        await bench.until(lambda: len(bench.placement.processes) == 3)

        assert [len(worker.said(Kind.DRAIN)) for worker in (first, second)] == [0, 1]
        await bench.submit()
        assert [len(worker.calls) for worker in (first, second)] == [1, 0]


async def test_a_worker_that_does_not_answer_is_replaced(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1)) as bench:
        await bench.settle()
        silent = bench.worker
        await save(bench)
        await bench.advance(11.0)

        assert "within 10 s" in bench.named("replacing")[0]["why"]
        assert bench.worker is not silent
        assert bench.worker.said(Kind.RELOAD) == []


async def test_a_changed_configuration_asks_nobody(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1)) as bench:
        await bench.settle()
        old = bench.worker
        await save(bench, "endpoints/gpu/endpoint.toml", endpoint=an_endpoint(workers_min=1, concurrency=2))
        await bench.until(lambda: bench.workers != [old])

        assert old.said(Kind.RELOAD) == []
        assert [fields["why"] for fields in bench.named("replacing")] == ["its configuration changed"]


async def test_a_worker_that_starts_takes_the_save_in_before_its_first_call(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        bench.placement.on_start = waits
        job = await bench.submit()
        starting = bench.worker
        await save(bench)
        assert starting.said(Kind.RELOAD) == []

        starting.ready()
        await bench.settle()
        assert len(starting.said(Kind.RELOAD)) == 1
        assert await bench.state(job) is State.IN_QUEUE
        starting.reloaded()
        await bench.settle()
        assert await bench.state(job) is State.IN_PROGRESS
        assert bench.states()[-1] == "IDLE"
        assert bench.placement.processes == [starting]


async def test_a_worker_that_starts_and_cannot_take_the_save_in_never_serves(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        bench.placement.on_start = waits
        job = await bench.submit()
        starting = bench.worker
        await save(bench)
        starting.ready()
        await bench.settle()
        bench.placement.on_start = type(starting).ready
        starting.reloaded("it is not written in Python")
        await bench.until(lambda: not starting.is_alive and bool(bench.workers) and bool(bench.worker.calls))

        assert starting.said(Kind.CALL) == []
        assert await bench.state(job) is State.IN_PROGRESS


async def test_a_worker_that_builds_changed_fixtures_starts_anew(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        bench.placement.on_start = waits
        await bench.submit()
        building = bench.worker
        await save(bench, FIXTURES)
        await bench.until(lambda: not building.is_alive and len(bench.workers) == 1)


async def test_a_start_that_failed_on_the_code_before_a_save_is_tried_again(tmp_path: Path) -> None:
    async with dispatching(tmp_path, start_failures=1) as bench:
        bench.placement.on_start = waits
        job = await bench.submit()
        failing = bench.worker
        await save(bench)
        bench.placement.on_start = type(failing).ready
        breaks()(failing)
        await bench.until(lambda: bool(bench.workers) and bool(bench.worker.calls))

        assert bench.named("start_failed") == []
        assert await bench.state(job) is State.IN_PROGRESS


async def test_of_two_saves_the_second_names_what_the_first_left(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1), start_failures=1) as bench:
        await bench.settle()
        worker = bench.worker
        await save(bench, "a.py")
        await save(bench, "b.py")
        first, second = worker.said(Kind.RELOAD)
        assert second.meta["files"] == ["a.py", "b.py"]

        late = {"number": first.meta["number"], "files": [], "took_s": 0.0}
        worker.send(Kind.RELOADED, 0, late)
        await bench.settle()
        assert told(bench, "renewed") == []
        worker.reloaded()
        await bench.settle()
        assert told(bench, "renewed") == [["a.py", "b.py"]]

        bench.placement.on_start = breaks()
        await save(bench, "c.py")
        worker.reloaded("SyntaxError")
        await bench.until(lambda: bool(bench.named("start_failed")))
        await save(bench, "d.py")
        assert worker.said(Kind.RELOAD)[-1].meta["files"] == ["c.py", "d.py"]
        worker.reloaded()
        await bench.settle()
        assert told(bench, "renewed")[1:] == [["d.py"]]
        assert bench.dispatcher.pool.failure is None


async def test_functions_of_the_new_code_wait_for_it(tmp_path: Path) -> None:
    both = (a_function("gpu"), a_function("late"), a_function("changed", timeout_s=5.0))
    before = an_endpoint(workers_min=1, concurrency=5, functions=(a_function("gpu"), a_function("changed")))
    async with dispatching(tmp_path, before) as bench:
        await bench.settle()
        await save(bench, endpoint=dataclasses.replace(before, functions=both))
        jobs = [await bench.submit(name) for name in ("gpu", "late", "changed")]
        states = [await bench.state(job) for job in jobs]
        bench.worker.reloaded()
        await bench.settle()

        assert states == [State.IN_PROGRESS, State.IN_QUEUE, State.IN_QUEUE]
        assert [await bench.state(job) for job in jobs] == [State.IN_PROGRESS] * 3
        assert len(bench.placement.processes) == 1


async def test_a_worker_that_dies_when_asked_is_replaced_by_one_of_the_new_code(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1)) as bench:
        await bench.settle()
        old = bench.worker
        await save(bench)
        old.die(9)
        await bench.until(lambda: bool(bench.workers))

        assert bench.worker.said(Kind.RELOAD) == []
        assert bench.dispatcher.pool.workers[-1].endpoint == bench.dispatcher.endpoint
        assert bench.named("renewed") == []
        assert [fields["why"] for fields in bench.named("replacing")] == [
            "the running worker ended before it had taken that in"
        ]
