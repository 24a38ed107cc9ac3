"""Works on a store until it is killed, and says on stdout what the store has acknowledged.

A line is a verb and a job's id: `submitted`, or `finished` once its terminal record is kept.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.jobs.model import Claimer, End, Job, State
from flashfw.cluster.jobs.sqlite import SqliteStore

FUNCTION = "gpu"
DONE = End(state=State.COMPLETED, output=b'"done"')


def say(verb: str, job: Job) -> None:
    os.write(1, f"{verb} {job.id}\n".encode())  # at once, by nobody's buffer


def new_job(clock: SystemClock) -> Job:
    now = clock.now()
    return Job(
        id=uuid.uuid4().hex,
        function=FUNCTION,
        endpoint=FUNCTION,
        input=os.urandom(500),
        submitted_at=now,
        expires_at=now + 3600,
        timeout_s=60,
        result_ttl_s=3600,
    )


async def work(store: SqliteStore, by: Claimer, *, direct: bool) -> None:
    clock = SystemClock()
    while True:
        job = await store.submit(new_job(clock), max_queue=1_000_000, claim=by if direct else None)
        say("submitted", job)
        for claimed in [job] if direct else await store.claim([FUNCTION], by):
            if await store.finish(claimed.id, claimed.fence, DONE):
                say("finished", claimed)


async def main(path: Path, boot: str) -> None:
    store = SqliteStore(path, clock=SystemClock())
    await store.open(boot)
    by = Claimer(boot=boot, worker="w")
    await asyncio.gather(*(work(store, by, direct=bool(number % 2)) for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
