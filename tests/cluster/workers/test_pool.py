"""Workers started, rolled, retired and replaced: every rule of their life, played by scripted workers."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import pytest

from flashfw.cluster.jobs.model import Reason, State
from flashfw.cluster.workers.autoscaler import WorkerState
from flashfw.worker.frames import Kind
from tests.cluster.bench import a_function, an_endpoint, breaks, dispatching, waits
from tests.cluster.scripted import ScriptedProcess

pytestmark = pytest.mark.anyio


async def test_a_job_starts_a_worker_which_idles_out(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(idle_timeout_s=60.0)) as bench:
        job = await bench.submit()
        assert await bench.state(job) is State.IN_PROGRESS
        bench.worker.result()
        await bench.settle()
        assert await bench.state(job) is State.COMPLETED

        await bench.advance(59.0)
        assert len(bench.workers) == 1
        await bench.advance(2.0)

        assert bench.workers == []
        assert "idle for 60 s" in bench.named("worker")[-1]["why"]


@pytest.mark.parametrize(
    ("code", "words"), [(7, "exited with code 7"), (-signal.SIGSEGV, "killed by SIGSEGV"), (0, "exited with code 0")]
)
async def test_the_third_worker_that_dies_with_a_job_ends_it(tmp_path: Path, code: int, words: str) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        for _ in range(3):
            bench.worker.die(code)
            await bench.advance(1.0)

        ended = await bench.job(job)
        assert (ended.state, ended.reason, ended.deaths) == (State.FAILED, Reason.WORKER_LOST, 3)
        assert words in (ended.error or b"").decode()


async def test_a_worker_whose_link_ended_gets_nothing_more_though_it_lives(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2)) as bench:
        first = await bench.submit()
        worker = bench.worker
        worker.hang_up()
        await bench.settle()
        second = await bench.submit()

        assert await bench.state(first) is State.IN_PROGRESS  # the process lives: nothing is handed on
        assert await bench.state(second) is State.IN_QUEUE
        await bench.advance(2.0)

        assert not worker.is_alive
        assert [(await bench.job(job)).worker for job in (first, second)] == [bench.worker.spec.worker] * 2
        assert (await bench.job(second)).deaths == 0


async def test_a_worker_is_gone_when_its_process_is_though_a_child_holds_the_link(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        dead = bench.worker
        dead.die(9, leaves_link=True)
        await bench.advance(2.0)

        again = await bench.job(job)
        assert (again.state, again.deaths) == (State.IN_PROGRESS, 1)
        assert again.worker == bench.worker.spec.worker
        dead.let_go()


async def test_what_a_worker_sent_before_it_died_counts(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        bench.worker.result()
        bench.placement.processes[0].die(1)
        await bench.advance(2.0)

        assert await bench.state(job) is State.COMPLETED


async def test_silence_is_told_once_and_ends_the_worker_before_its_job_is_handed_on(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2)) as bench:
        job = await bench.submit()
        silent = bench.worker
        await bench.advance(5.5, beats=False)
        assert bench.states().count("SILENT") == 1
        waiting = await bench.submit()
        assert await bench.state(waiting) is State.IN_QUEUE  # a silent worker takes nothing

        await bench.advance(54.0, beats=False)
        assert silent.is_alive
        assert await bench.state(job) is State.IN_PROGRESS
        await bench.advance(1.5, beats=False)

        assert not silent.is_alive
        assert bench.states().count("SILENT") == 1
        assert (await bench.job(job)).deaths == 1
        assert (await bench.job(job)).worker == bench.worker.spec.worker


async def test_one_that_said_it_beats_later_is_silent_later(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        await bench.submit()
        bench.worker.send(Kind.BEAT, 0, {"blocked_s": 0.0, "next_s": 2.0})
        await bench.settle()
        await bench.advance(5.5, beats=False)
        assert "SILENT" not in bench.states()
        await bench.advance(1.0, beats=False)
        assert "SILENT" in bench.states()


async def test_a_worker_that_is_heard_again_takes_calls_again(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(concurrency=2)) as bench:
        await bench.submit()
        await bench.advance(10.0, beats=False)
        second = await bench.submit()
        assert bench.dispatcher.pool.workers[0].state is WorkerState.UNHEALTHY

        bench.worker.beat()
        await bench.settle()

        assert await bench.state(second) is State.IN_PROGRESS
        assert bench.dispatcher.pool.workers[0].state is WorkerState.RUNNING


async def test_a_server_that_stood_still_blames_nobody(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        worker = bench.worker
        bench.clock.advance(1000.0)  # in one step, as after Ctrl-Z and fg
        await bench.settle()

        assert worker.is_alive
        assert "SILENT" not in bench.states()
        assert await bench.state(job) is State.IN_PROGRESS


async def test_three_failed_starts_then_a_pause_that_doubles_up_to_five_minutes(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        bench.placement.on_start = breaks()
        job = await bench.submit()
        await bench.advance(1.0)
        pauses = [fields["retry_in_s"] for fields in bench.named("start_failed")]
        assert pauses[:3] == [0.0, 0.0, 1.0]

        for _ in range(10):
            await bench.advance(pauses[-1] + 1.0)
            pauses = [fields["retry_in_s"] for fields in bench.named("start_failed")]

        assert pauses[2:13] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
        assert await bench.state(job) is State.IN_QUEUE
        assert bench.dispatcher.pool.refusal is not None


async def test_thousands_of_failed_starts_do_no_harm(tmp_path: Path) -> None:
    async with dispatching(tmp_path, start_failures=1, retries_at_call=True) as bench:
        bench.dispatcher.pool.starts.failures = 5000
        bench.placement.on_start = breaks()
        await bench.submit()

        assert bench.named("start_failed")[-1]["retry_in_s"] == 300.0
        assert bench.named("internal") == []


async def test_workers_that_are_kept_warm_are_tried_again_though_nobody_calls(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1), start_failures=1) as bench:
        bench.placement.on_start = breaks()
        await bench.advance(0.5)
        assert len(bench.named("start_failed")) >= 1
        bench.placement.on_start = ScriptedProcess.ready

        await bench.advance(5.0)

        assert len(bench.workers) == 1
        assert bench.dispatcher.pool.refusal is None


@pytest.mark.parametrize(("command", "after_s"), [((), 20.0), (("server",), 30.0)])
async def test_a_start_that_takes_too_long_is_ended(tmp_path: Path, command: tuple[str, ...], after_s: float) -> None:
    """One of a command later: its worker knows the reason, and says it at its own time."""
    endpoint = an_endpoint(start_timeout_s=20.0, command=command)
    async with dispatching(tmp_path, endpoint, start_failures=1) as bench:
        bench.placement.on_start = waits
        await bench.submit()
        slow = bench.worker
        await bench.advance(after_s - 1.0)
        assert slow.is_alive
        await bench.advance(1.5)

        assert not slow.is_alive
        assert "not ready within start_timeout (20 s)" in bench.named("start_failed")[0]["failure"]["message"]


async def test_a_worker_that_dies_at_start_is_quoted(tmp_path: Path) -> None:
    def dies(process: ScriptedProcess) -> None:
        process.last_output = "ModuleNotFoundError: No module named 'torch'"
        process.die(1)

    async with dispatching(tmp_path, start_failures=1) as bench:
        bench.placement.on_start = dies
        await bench.submit()

        message = bench.named("start_failed")[0]["failure"]["message"]
        assert "exited with code 1 before it was ready" in message
        assert "No module named 'torch'" in message


async def test_a_placement_that_refuses_is_a_failed_start(tmp_path: Path) -> None:
    async with dispatching(tmp_path, start_failures=1) as bench:
        bench.placement.refuses = "no such interpreter"
        await bench.submit()
        assert "no such interpreter" in bench.named("start_failed")[0]["failure"]["message"]

        bench.placement.refuses = ""
        await bench.advance(3.0)
        assert len(bench.workers) == 1


async def test_an_error_of_ours_at_start_is_that_workers_alone(tmp_path: Path) -> None:
    async with dispatching(tmp_path, start_failures=1, variables=None) as bench:
        await bench.submit()

        assert bench.named("internal")[0]["where"].startswith("starting w-")
        assert "NoneType" in bench.named("start_failed")[0]["failure"]["message"]


async def test_a_roll_brings_the_new_up_before_the_old_goes(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        running = await bench.submit()
        old = bench.worker
        bench.placement.on_start = waits
        bench.dispatcher.apply(an_endpoint(), tmp_path)
        await bench.settle()
        new = bench.workers[1]
        assert old.said(Kind.DRAIN) == []

        waiting = await bench.submit()
        new.ready()
        await bench.settle()

        assert len(old.said(Kind.DRAIN)) == 1
        assert (await bench.job(waiting)).worker == new.spec.worker
        old.result()
        await bench.settle()
        assert await bench.state(running) is State.COMPLETED
        assert bench.workers == [new]


async def test_a_roll_whose_workers_break_leaves_the_old_ones_at_work(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        await bench.submit()
        bench.worker.result()
        await bench.settle()
        bench.placement.on_start = breaks()
        bench.dispatcher.apply(an_endpoint(), tmp_path)
        await bench.advance(3.0)

        assert bench.dispatcher.pool.failure is not None
        assert bench.dispatcher.pool.refusal is None
        again = await bench.submit()
        assert await bench.state(again) is State.IN_PROGRESS


async def test_a_worker_whose_environment_is_still_made_is_not_started_after_a_roll(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        bench.environments.is_slow = True
        job = await bench.submit()
        old = bench.dispatcher.pool.workers[0]
        bench.dispatcher.apply(an_endpoint(), tmp_path)
        await bench.settle()

        assert old.gone.is_set()
        bench.environments.finish()
        await bench.settle()
        assert [process.spec.worker for process in bench.placement.processes] == [bench.dispatcher.pool.workers[0].id]
        assert await bench.state(job) is State.IN_PROGRESS


async def test_closing_does_not_wait_for_an_environment(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        bench.environments.is_slow = True
        await bench.submit()

        with anyio.fail_after(60):
            await bench.dispatcher.pool.close(1000.0)

        assert bench.dispatcher.pool.workers == []
        assert bench.placement.processes == []


async def test_a_drained_worker_gets_its_time_and_then_its_job_goes_back(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(drain_timeout_s=30.0)) as bench:
        job = await bench.submit()
        old = bench.worker
        bench.dispatcher.apply(an_endpoint(), tmp_path)
        await bench.advance(29.0)
        assert old.is_alive
        assert await bench.state(job) is State.IN_PROGRESS

        await bench.advance(2.0)

        again = await bench.job(job)
        assert not old.is_alive
        assert (again.state, again.worker, again.deaths, again.attempt) == (
            State.IN_PROGRESS,
            bench.worker.spec.worker,
            0,
            1,
        )


async def test_a_job_of_a_new_function_is_not_given_to_an_old_worker(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        await bench.submit()
        bench.worker.result()
        await bench.settle()
        old = bench.worker
        bench.placement.on_start = waits
        bench.dispatcher.apply(an_endpoint(functions=(a_function("gpu"), a_function("gpu/upscale"))), tmp_path)
        await bench.settle()

        job = await bench.submit("gpu/upscale")
        await bench.advance(1.0)
        assert old.calls == {}
        bench.workers[1].ready()
        await bench.settle()

        assert (await bench.job(job)).worker == bench.workers[-1].spec.worker


async def test_an_unfit_worker_is_replaced(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_min=1)) as bench:
        await bench.advance(0.5)
        unfit = bench.worker
        unfit.send(Kind.UNFIT, 0, {"message": "CUDA error: device-side assert"})
        await bench.advance(1.0)

        assert not unfit.is_alive
        assert len(bench.workers) == 1
        assert any("device-side assert" in fields["why"] for fields in bench.named("worker"))


async def test_a_tick_that_fails_is_told_and_the_next_one_comes(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        demand = bench.dispatcher.demand
        bench.dispatcher.demand = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        bench.dispatcher.pool.nudge()
        await bench.settle()
        bench.dispatcher.demand = demand  # type: ignore[method-assign]
        job = await bench.submit()

        assert "ZeroDivisionError" in bench.named("internal")[0]["error"]
        assert await bench.state(job) is State.IN_PROGRESS


async def test_a_frame_that_is_none_ends_the_worker(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as bench:
        job = await bench.submit()
        worker = bench.worker
        worker._own.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await bench.advance(2.0)

        assert not worker.is_alive
        assert (await bench.job(job)).deaths == 1


# Jobs of low priority


async def test_jobs_of_low_priority_start_no_worker_and_run_on_one_that_is_there(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(idle_timeout_s=20.0, workers_max=3)) as bench:
        low = [await bench.submit(priority=-1) for _ in range(2)]
        await bench.advance(30.0)
        assert bench.placement.processes == []
        decision = bench.dispatcher.pool.decision
        assert decision is not None
        assert decision.reason.startswith("2 of low priority wait for a worker that others start")

        normal = await bench.submit()
        await bench.advance(1.0)
        assert await bench.state(normal) is State.IN_PROGRESS
        for job in low:
            bench.worker.result()
            await bench.settle()
            assert await bench.state(job) is State.IN_PROGRESS
        await bench.advance(30.0)
        assert len(bench.placement.processes) == 1, "they make no second one, however long they wait"
        bench.worker.result()
        await bench.advance(21.0)
        assert bench.workers == []


async def test_the_wait_of_low_priority_does_not_hurry_the_start_of_workers_for_others(tmp_path: Path) -> None:
    async with dispatching(tmp_path, an_endpoint(workers_max=3)) as bench:
        await bench.submit()
        await bench.submit(priority=-1)
        await bench.advance(60.0)
        await bench.submit()
        await bench.advance(3.0)
        assert len(bench.workers) == 1
        await bench.advance(2.0)
        assert len(bench.workers) == 2
