"""`flashfw dev --cron`: jobs by the clock, made by a real server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import Tick
from flashfw.cluster.schedules.submitting import lines
from flashfw.project import root
from flashfw.project.collect import collect
from flashfw.project.compile import compile
from tests.served import ended, serving, write

FILES = {
    "endpoints/report/handler.py": "def handler(day: str) -> str:\n    return f'report of {day}'\n",
    "endpoints/report/endpoint.toml": """
        [[schedule]]
        cron = "0 * * * *"
        tz = "Europe/Prague"
        input = {day = "today"}
        catch_up = true
        """,
}

pytestmark = pytest.mark.anyio


async def missed(folder: Path, seconds: float) -> None:
    """As if a server had run until so long ago."""
    manifest, problems = compile(collect(root.find(write(folder, FILES))), environment="dev")
    assert problems == ()
    (line,) = lines(manifest)
    (folder / ".flashfw").mkdir()
    store = SqliteStore(folder / ".flashfw" / "jobs.sqlite", clock=SystemClock())
    await store.open("earlier")
    await store.set_tick(line.key, Tick(time.time() - seconds, None))
    await store.close()


async def test_a_tick_becomes_a_job_that_a_worker_does(tmp_path: Path, dev_environ: Mapping[str, str]) -> None:
    await missed(tmp_path, 3600.0)

    async with serving(tmp_path, FILES, environ=dev_environ, cron=True) as served:
        told = await served.event("schedule")
        record = await served.status(told.fields["job"], "report", until=ended)
        story: dict[str, Any] = (await served.get(f"/_flashfw/jobs/{told.fields['job']}/why")).json()

    assert (told.endpoint, told.fields["function"], told.fields["cron"]) == ("report", "report", "0 * * * *")
    assert record["output"] == "report of today"
    assert "submitted by the schedule '0 * * * *'" in [moment["text"] for moment in story["moments"]]
    (schedules,) = served.named("schedules")
    assert (schedules.fields["on"], schedules.fields["count"], schedules.fields["function"]) == (True, 1, "report")


async def test_without_the_flag_no_job_is_made(tmp_path: Path, dev_environ: Mapping[str, str]) -> None:
    await missed(tmp_path, 3600.0)

    async with serving(tmp_path, FILES, environ=dev_environ) as served:
        assert (await served.post("/report", {"day": "now"})).json() == "report of now"

    assert served.named("schedule") == []
    assert served.named("schedules")[0].fields["on"] is False
