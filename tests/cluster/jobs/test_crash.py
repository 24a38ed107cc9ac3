"""kill -9 at any moment: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from tests.cluster.jobs import crash_child

ROUNDS = 5
SEED = 20_240


def test_what_was_acknowledged_outlives_five_kills(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    path = tmp_path / "jobs.sqlite"
    submitted: set[str] = set()
    finished: set[str] = set()
    for number in range(ROUNDS):
        lines = _work_until_killed(path, f"boot-{number}", after=dice.randint(1, 3000))
        submitted |= {job_id for verb, job_id in lines if verb == "submitted"}
        ends = [job_id for verb, job_id in lines if verb == "finished"]
        assert len(ends) == len(set(ends))
        assert finished.isdisjoint(ends), "a job ended in two rounds"
        finished |= set(ends)
        jobs = asyncio.run(_jobs_after(path, f"boot-{number} looked at"))

        assert submitted <= jobs.keys()
        assert {jobs[job_id].state for job_id in finished} <= {State.COMPLETED}
        assert {job.state for job in jobs.values()} <= {State.COMPLETED, State.IN_QUEUE}
        assert all(job.output == b'"done"' for job in jobs.values() if job.state is State.COMPLETED)
    assert len(finished) > ROUNDS


def test_a_look_into_the_file_by_another_program_costs_no_job(tmp_path: Path) -> None:
    """The last connection that closes deletes the write-ahead log: it must know that ours is open."""
    path = tmp_path / "jobs.sqlite"
    look = f"import sqlite3; d = sqlite3.connect({str(path)!r}); d.execute('SELECT id FROM jobs').fetchall(); d.close()"
    with subprocess.Popen(
        [sys.executable, crash_child.__file__, str(path), "boot"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        subprocess.run([sys.executable, "-c", look], check=True)
        lines = [process.stdout.readline() for _ in range(500)]
        process.kill()
        process.stdout.read()

    jobs = asyncio.run(_jobs_after(path, "looked at"))

    assert {job_id for _, job_id in map(str.split, lines)} <= jobs.keys()


def _work_until_killed(path: Path, boot: str, *, after: int) -> list[tuple[str, str]]:
    """What the process said before it was killed, upon its line number `after`."""
    command = [sys.executable, crash_child.__file__, str(path), boot]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after)]
        process.kill()
        lines += process.stdout.readlines()
    # The last may be cut in the middle: then nobody was told.
    return [(verb, job_id) for verb, job_id in (line.split() for line in lines if line.endswith("\n"))]


async def _jobs_after(path: Path, boot: str) -> dict[str, Job]:
    store = SqliteStore(path, clock=SystemClock())
    await store.open(boot)
    whole = [await store.get(job.id) for job in await store.list(limit=1_000_000)]
    jobs = {job.id: job for job in whole if job is not None}
    counts = {count.state.value: count.jobs for count in await store.counts()}
    await store.close()
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert dict(file.execute("SELECT state, COUNT(*) FROM jobs GROUP BY 1")) == counts
    return jobs
