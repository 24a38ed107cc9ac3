"""Whatever happens to workers while releases come, callers are answered, and never by a release that failed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.cluster.releases.rollouts import Running
from flashfw.worker.frames import Kind
from tests.cluster.bench import Call, an_endpoint
from tests.cluster.releases.releasing import ReleaseBench, answers, releasing
from tests.cluster.scripted import ScriptedProcess

steps = st.sampled_from(["surge", "replace", "ready", "ready", "ready", "break", "die", "call", "call", "time"])


class Play:
    """One server, whose workers start only when a step tells them to; once ready they answer at once."""

    def __init__(self, bench: ReleaseBench) -> None:
        self.bench = bench
        self.started: list[ScriptedProcess] = []
        self.shipped: list[Running] = []
        self.calls: list[Call] = []
        bench.placement.on_start = self.started.append

    async def step(self, name: str) -> None:
        bench, waiting = self.bench, [worker for worker in self.started if worker.is_alive]
        if name in ("surge", "replace") and not bench.releases.is_busy:
            endpoint = an_endpoint("api", "http", strategy=name, workers_min=1, workers_max=2, concurrency=4)
            self.shipped.append(await bench.ship(endpoint))
        elif name == "ready" and waiting:
            self.let_go(waiting[0])
        elif name == "break" and waiting:
            self.started.remove(waiting[0])
            waiting[0].broken()
        elif name == "die" and bench.releases.is_busy:
            for worker in bench.of(self.shipped[-1])[:1]:
                worker.die(9)
        elif name == "call" and bench.releases.current:
            call = await bench.call("GET", "/api", authorization=f"Bearer {bench.key}")
            self.calls.append(call)
        elif name == "time":
            await bench.advance(1.0)
        await bench.settle(2)

    def let_go(self, worker: ScriptedProcess) -> None:
        self.started.remove(worker)
        answers(worker)

    async def end(self) -> None:
        """From now on all goes well."""
        self.bench.placement.on_start = answers
        for worker in [worker for worker in self.started if worker.is_alive]:
            self.let_go(worker)
        for running in self.shipped:
            await self.bench.over(running)
        await self.bench.until(lambda: all(call.is_over for call in self.calls))


async def play(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with releasing(Path(folder), start_failures=1000) as bench:
            played = Play(bench)
            for name in names:
                await played.step(name)
            await played.end()
            check(played)


def check(played: Play) -> None:
    done = [running.release for running in played.shipped if running.state == "done"]
    assert played.bench.releases.current == (done[-1].id if done else None)
    assert {call.status for call in played.calls} <= {200}
    assert {call.body.decode() for call in played.calls} <= {release.source.digest for release in done}
    assert played.bench.named("internal") == []
    for running in played.shipped:
        assert (running.failure is None) == (running.state == "done")
    drained = [worker for worker in played.bench.workers if worker.said(Kind.DRAIN) and not worker.calls]
    assert drained == []


@given(st.lists(steps, max_size=30))
@settings(max_examples=25)
def test_in_any_order_callers_are_answered_by_releases_that_were_ready(names: list[str]) -> None:
    run: Any = play
    anyio.run(run, ["surge", "ready", *names])
