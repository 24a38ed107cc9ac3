"""Releases rolled out over a cluster, with workers that get ready, fail and die as each test tells them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flashfw.cluster.jobs.model import State
from flashfw.cluster.releases.rollouts import AT_ONCE, HEAD_START_S
from flashfw.cluster.workers.autoscaler import WorkerState
from flashfw.manifest import Endpoint
from tests.cluster.bench import Call, a_function, an_endpoint, breaks, waits
from tests.cluster.releases.releasing import ReleaseBench, answers, releasing
from tests.cluster.scripted import ScriptedProcess

pytestmark = pytest.mark.anyio


def web(name: str = "api", **changes: Any) -> Endpoint:
    return an_endpoint(name, "http", **{"concurrency": 4, "workers_max": 3, **changes})


async def get(bench: ReleaseBench, path: str = "/api") -> Call:
    return await bench.call("GET", path, authorization=f"Bearer {bench.key}")


def steps(running: Any) -> list[str]:
    return [event.step for event in running.events]


async def test_the_first_release_is_served_once_its_workers_are_ready(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = waits
        running = await bench.ship(web())
        await bench.told(running, "starting")
        await bench.until(lambda: len(bench.workers) == 1)
        assert (await get(bench)).status == 404  # it is not served yet

        bench.worker.ready()
        await bench.over(running)
        call = await get(bench)
        bench.worker.head(200, b"hello")
        await bench.settle()

        assert (call.status, call.body) == (200, b"hello")
        assert steps(running) == ["starting", "ready", "switched"]
        assert running.events[1].text == "api: ready in 0.0 ms (import 100 ms, fixtures 0.0 ms)"
        status = bench.cluster.status()
        assert status["release"] == {
            "id": running.release.id,
            "created": bench.clock.now(),
            "age_s": 0.0,
            "by": "me@here",
        }
        assert (status["project"], status["environment"]) == ("shop", "prod")


async def test_many_endpoints_begin_a_few_at_a_time_and_a_slow_one_holds_up_nobody(tmp_path: Path) -> None:
    """Those that serve need the CPU too."""
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = waits
        running = await bench.ship(*(web(f"api_{number:02}") for number in range(AT_ONCE + 2)))
        await bench.until(lambda: len(bench.workers) == AT_ONCE)
        assert steps(running) == ["starting"] * AT_ONCE

        bench.workers[0].ready()
        await bench.until(lambda: len(bench.workers) == AT_ONCE + 1)
        await bench.settle()
        assert sorted(steps(running)[AT_ONCE:]) == ["ready", "starting"]
        await bench.advance(HEAD_START_S)
        await bench.until(lambda: len(bench.workers) == AT_ONCE + 2)
        for worker in bench.workers[1:]:
            worker.ready()
        await bench.over(running)

        assert running.state == "done"


async def test_by_surge_new_workers_get_ready_beside_the_old_and_take_no_call_before(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        first = await bench.shipped(web(workers_min=2, workers_max=2))
        old = bench.workers
        held = await get(bench)
        bench.placement.on_start = waits
        second = await bench.ship(web(workers_min=2, workers_max=2))
        await bench.until(lambda: len(bench.of(second)) == 2)  # as many as serve now
        new = bench.of(second)
        new[0].ready()
        between = await get(bench)
        assert not new[0].calls
        assert [worker.state for worker in bench.cluster.dispatchers["api"].pool.workers][2:] == [
            WorkerState.INITIALIZING
        ] * 2

        new[1].ready()
        await bench.over(second)
        after = await get(bench)
        assert [len(worker.calls) for worker in new] == [1, 0]
        assert first.release.id != second.release.id
        for worker in (*old, *new):
            for number in list(worker.calls):
                worker.head(200, b"done", number=number)
        await bench.settle()

        assert [call.status for call in (held, between, after)] == [200, 200, 200]
        assert [worker.is_alive for worker in (*old, *new)] == [False, False, True, True]
        assert steps(second)[-2:] == ["switched", "draining"]


async def test_by_replace_the_old_ones_end_first_and_callers_wait(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        await bench.shipped(web(strategy="replace"))
        old = bench.worker
        held = await get(bench)
        bench.placement.on_start = waits
        running = await bench.ship(web(strategy="replace", start_timeout_s=5.0))
        await bench.told(running, "draining")
        waiting = await get(bench)
        assert not waiting.is_over
        assert bench.workers == [old]
        old.head(200, b"old")
        await bench.told(running, "starting")
        await bench.until(lambda: len(bench.of(running)) == 1)
        await bench.advance(4.0)
        assert (held.body, waiting.is_over) == (b"old", False)

        bench.worker.ready()
        await bench.over(running)
        bench.worker.head(200, b"new")
        await bench.settle()

        assert (waiting.status, waiting.body) == (200, b"new")
        assert steps(running) == ["draining", "starting", "ready", "switched"]


async def test_callers_that_wait_for_a_replacement_wait_beyond_start_timeout(tmp_path: Path) -> None:
    """The time that the old ones drain is not the callers'."""
    async with releasing(tmp_path) as bench:
        fields: dict[str, Any] = {"strategy": "replace", "start_timeout_s": 3.0, "drain_timeout_s": 20.0}
        await bench.shipped(web(**fields))
        held = await get(bench)
        running = await bench.ship(web(**fields))
        await bench.told(running, "draining")
        waiting = await get(bench)
        await bench.advance(15.0)
        assert not waiting.is_over

        bench.placement.on_start = answers
        bench.worker.head(200, b"old")
        await bench.over(running)

        assert (held.body, waiting.status) == (b"old", 200)


async def test_a_start_that_fails_changes_nothing_and_is_told_whole(tmp_path: Path) -> None:
    def fails(process: ScriptedProcess) -> None:
        if process.spec.endpoint == "bad":
            process.send_log("loading weights\nno such file")
            process.broken("no weights here")
        else:
            process.ready()

    async with releasing(tmp_path) as bench:
        first = await bench.shipped(web())
        old = bench.worker
        bench.placement.on_start = fails
        running = await bench.ship(web(), web("bad"))
        await bench.over(running)

        assert (running.state, steps(running)[-1]) == ("failed", "failed")
        assert running.failure is not None
        assert (running.failure.endpoint, running.failure.output) == ("bad", ("loading weights", "no such file"))
        assert running.failure.message == "the fixture 'model' failed: RuntimeError: no weights here (f.py:1)"
        assert running.failure.traceback == "Traceback ..."
        await bench.until(lambda: bench.workers == [old])
        assert bench.releases.current == first.release.id
        assert (await get(bench, "/bad")).status == 404
        assert not (await get(bench)).is_over
        assert len(old.calls) == 1


async def test_a_worker_that_dies_while_others_start_fails_the_rollout(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = waits
        running = await bench.ship(web("a"), web("b"))
        await bench.until(lambda: len(bench.workers) == 2)
        bench.workers[0].ready()
        await bench.told(running, "ready")
        bench.workers[0].die(9)
        await bench.over(running)

        assert running.failure is not None
        assert "exited with code 9 after it was ready" in running.failure.message
        await bench.until(lambda: not bench.workers)


async def test_one_that_never_gets_ready_fails_the_rollout(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = waits
        running = await bench.ship(web(start_timeout_s=20.0))
        await bench.until(lambda: len(bench.workers) == 1)
        await bench.advance(21.0)
        await bench.over(running)

        assert running.failure is not None
        assert running.failure.message == "not ready within start_timeout (20 s)"


async def test_a_replacement_that_fails_gives_the_old_release_back(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        first = await bench.shipped(web(strategy="replace"))
        bench.placement.on_start = waits
        running = await bench.ship(web(strategy="replace"))
        await bench.told(running, "starting")
        await bench.until(lambda: len(bench.of(running)) == 1)
        waiting = await get(bench)
        bench.placement.on_start = answers
        bench.of(running)[0].broken()
        await bench.over(running)
        await bench.until(lambda: waiting.is_over)

        assert running.state == "failed"
        assert waiting.status == 200
        assert waiting.body.decode() == first.release.source.digest  # an old worker, anew


async def test_nobody_is_replaced_before_all_that_may_surge_is_ready(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        await bench.shipped(web("a", workers_min=1), web("b", workers_min=1, strategy="replace"))
        old = bench.workers
        bench.placement.on_start = breaks()
        running = await bench.ship(web("a", workers_min=1), web("b", workers_min=1, strategy="replace"))
        await bench.over(running)

        assert running.state == "failed"
        await bench.until(lambda: bench.workers == old)
        assert "draining" not in steps(running)


async def test_an_endpoint_that_did_not_change_keeps_its_worker_and_its_calls(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        same = web("same")
        await bench.shipped(same, web("other"))
        bench.placement.on_start = answers
        held = await get(bench, "/same")
        (worker,) = [worker for worker in bench.workers if worker.calls]
        running = await bench.shipped(same, web("other"))

        assert worker.is_alive
        assert "same" not in {event.endpoint for event in running.events}
        worker.head(200, b"kept")
        await bench.settle()
        assert held.body == b"kept"
        assert bench.cluster.roots() > {bench.releases.layers.path(running.release.source.digest)}


async def test_an_endpoint_may_change_its_kind_and_others_may_go(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = answers
        await bench.shipped(web("a"), web("gone"))
        await bench.shipped(an_endpoint("a"), removes=("gone",))
        posted = await bench.post("/a", 1, authorization=f"Bearer {bench.key}")

        assert posted.status == 200
        assert (await get(bench, "/gone")).status == 404
        await bench.until(lambda: {worker.spec.endpoint for worker in bench.workers} == {"a"})


async def test_jobs_run_by_whatever_release_is_current(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        await bench.shipped(an_endpoint("gpu", strategy="replace"))
        posted = await bench.post("/gpu", 1, authorization=f"Bearer {bench.key}")
        running = await bench.ship(an_endpoint("gpu", strategy="replace"))
        await bench.told(running, "draining")
        waiting = await bench.post("/gpu", 2, authorization=f"Bearer {bench.key}")
        (old,) = bench.workers
        old.result()
        bench.placement.on_start = answers
        await bench.over(running)
        await bench.until(lambda: posted.is_over and waiting.is_over)

        assert (posted.status, waiting.status) == (200, 200)
        jobs = await bench.store.list()
        assert [(job.state, job.deaths) for job in jobs] == [(State.COMPLETED, 0)] * 2


async def test_an_endpoint_whose_maximum_is_no_worker_is_staged_without_any(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        await bench.shipped(web(workers_max=0))

        assert bench.workers == []


async def test_a_changed_secret_rolls_after_the_rollout_that_runs(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        await bench.shipped(web("a", workers_min=1), web("b", workers_min=1))
        before = bench.workers
        bench.releases.roll(["a"])
        await bench.until(lambda: before[0] not in bench.workers)
        assert before[1] in bench.workers
        assert bench.releases.current is not None
        assert bench.cluster.shipped is not None

        bench.placement.on_start = waits
        running = await bench.ship(web("b", workers_min=1), removes=("a",))
        bench.releases.roll(["a", "b"])
        await bench.until(lambda: len(bench.of(running)) == 1)
        bench.placement.on_start = answers
        (new,) = bench.of(running)
        new.ready()
        await bench.over(running)
        await bench.until(lambda: not new.is_alive)

        assert running.state == "done"


@pytest.mark.parametrize("strategy", ["surge", "replace"])
async def test_constant_load_over_rolls_meets_no_failed_request(tmp_path: Path, strategy: str) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = answers
        first = await bench.shipped(web(strategy=strategy, workers_min=1))
        calls: list[Call] = []
        is_over = False

        async def load() -> None:
            while not is_over:
                call = await get(bench)
                await call.answer
                calls.append(call)

        loading = [asyncio.ensure_future(load()) for _ in range(6)]
        await bench.until(lambda: len(calls) > 20)
        roots = {first.release.source.digest}
        for _ in range(3):
            running = await bench.shipped(web(strategy=strategy, workers_min=1))
            roots.add(running.release.source.digest)
            seen = len(calls)
            await bench.until(lambda seen=seen: len(calls) > seen + 20)  # type: ignore[misc]
        is_over = True
        await asyncio.gather(*loading)

        assert {call.status for call in calls} == {200}
        assert {call.body.decode() for call in calls} == roots


async def test_functions_that_are_gone_are_told_to_who_waits(tmp_path: Path) -> None:
    both = (a_function("api", "http"), a_function("api/old", "http"))
    async with releasing(tmp_path) as bench:
        await bench.shipped(web(strategy="replace", functions=both))
        busy = await get(bench)
        running = await bench.ship(web(strategy="replace"))
        await bench.told(running, "draining")
        held = await get(bench, "/api/old")
        assert not held.is_over
        bench.worker.head(200)
        assert not busy.is_over
        bench.placement.on_start = answers
        await bench.over(running)
        await bench.until(lambda: held.is_over)

        assert held.status in (404, 503)
