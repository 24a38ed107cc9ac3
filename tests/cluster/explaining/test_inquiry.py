"""What `why` knows of a job whose function its server does not serve."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.manifest import Manifest
from tests.cluster.bench import a_function, an_endpoint, clustering

pytestmark = pytest.mark.anyio


class Shared(SqliteStore):
    """A store with other servers on it, which have these functions; None where that cannot be told."""

    elsewhere: frozenset[str] | None = frozenset()

    async def serve(self, functions: Collection[str] | None) -> frozenset[str] | None:
        return self.elsewhere


@pytest.mark.parametrize(
    ("kept", "elsewhere", "text"),
    [
        (
            (),
            frozenset(),
            "no server serves gpu/a any more: it was removed or renamed. Bring it back, or the job ends in 5",
        ),
        (("gpu/a",), frozenset(), "this server does not serve gpu/a now. Mend its code"),
        (None, frozenset(), "this server does not serve gpu/a now. Mend its code"),
        ((), frozenset({"gpu/a"}), "gpu/a is served by another server on the same store, not by this one. Ask that"),
        ((), None, "this server does not serve gpu/a; another one on the same store may. Ask that server, or bring"),
    ],
)
async def test_a_job_of_a_function_that_is_not_served_waits_for_what_is_so(
    tmp_path: Path, kept: tuple[str, ...] | None, elsewhere: frozenset[str] | None, text: str
) -> None:
    def store(clock: ManualClock) -> Shared:
        made = Shared(None, clock=clock)
        made.elsewhere = elsewhere
        return made

    async with clustering(tmp_path, an_endpoint("gpu", functions=(a_function("gpu/a"),)), store=store) as bench:
        call = await bench.post("/gpu/a", {}, prefer="respond-async")
        job = call.headers["flashfw-job"]
        bench.cluster.apply(
            Manifest(project="shop", environment="dev", endpoints=()), root=bench.root, roll=None, kept=kept
        )
        await bench.store.release(job, 1)
        await bench.advance(4.0)
        story = await bench.cluster.why(job)

    assert story is not None
    assert story["moments"][-1]["text"].startswith(f"waits: {text}")
