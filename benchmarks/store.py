"""What the job stores do per second, and whether a million waiting jobs slow SQLite down.

    python benchmarks/store.py [--only sqlite postgres queued] [--jobs 8000] [--rounds 5] [--queued 1000000]
        [--folder DIR] [--json FILE]

"submit+claim, finish" is a job that meets a free worker: two transactions; "submit, claim, finish" one that waits for
it: three. Each is acknowledged after its commit. The best of the rounds counts, as the one least disturbed by what else
the machine did; the CPU time is of this process, both threads, and includes making the job. PostgreSQL is measured if
its programs are installed: a server of its own, on the loopback, with fsync; alone, and with a second store on the
same schema that hears of every change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.jobs.database import Synchronous
from flashfw.cluster.jobs.model import Claimer, End, Job, State
from flashfw.cluster.jobs.postgres import PostgresStore
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import JobStore

# The server is that of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests import postgres_server

FUNCTION = "gpu"
BY = Claimer(boot="bench", worker="w")
DONE = End(state=State.COMPLETED, output=b'{"label": "cat", "score": 0.98}')
INPUT = json.dumps({"prompt": "a cat on a mat", "steps": 20}).encode()
ROOM = 10_000_000
PARTS = ("sqlite", "postgres", "queued")


@dataclass(frozen=True)
class Figure:
    """One line of the table. Latencies are of one job through all its transactions."""

    what: str
    tasks: int
    synchronous: str
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True)
class Size:
    """How much is measured: jobs per round (an eighth at one task), rounds."""

    jobs: int
    rounds: int


def new_job() -> Job:
    now = time.time()
    return Job(
        id=uuid.uuid4().hex,
        function=FUNCTION,
        endpoint=FUNCTION,
        input=INPUT,
        submitted_at=now,
        expires_at=now + 86_400,
        timeout_s=600,
        result_ttl_s=86_400,
    )


async def direct(store: JobStore) -> None:
    """As when a worker is free."""
    job = await store.submit(new_job(), max_queue=ROOM, claim=BY)
    assert await store.finish(job.id, job.fence, DONE)


async def queued(store: JobStore) -> None:
    """As when all workers are busy: the queue grows by one, and its first job is taken and done."""
    await store.submit(new_job(), max_queue=ROOM)
    (job,) = await store.claim([FUNCTION], BY)
    assert await store.finish(job.id, job.fence, DONE)


async def measure(work: Callable[[], Awaitable[None]], *, times: int, tasks: int) -> tuple[float, float, float, float]:
    """Per second; p50 and p99 in milliseconds; CPU time per job in microseconds."""
    spent: list[float] = []

    async def worker(count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            await work()
            spent.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker(times // tasks) for _ in range(tasks)))
    total, cpu = time.perf_counter() - began, time.process_time() - cpu
    p50, p99 = statistics.median(spent) * 1e3, statistics.quantiles(spent, n=100)[-1] * 1e3
    return len(spent) / total, p50, p99, cpu / len(spent) * 1e6


async def best(work: Callable[[], Awaitable[None]], *, size: Size, tasks: int) -> tuple[float, float, float, float]:
    """The round with the highest rate."""
    times = size.jobs if tasks > 1 else size.jobs // 8
    return max([await measure(work, times=times, tasks=tasks) for _ in range(size.rounds)])


async def rates(store: JobStore, size: Size, name: str) -> list[Figure]:
    figures = []
    await store.open("bench")
    for what, work in (("submit+claim, finish", direct), ("submit, claim, finish", queued)):
        for tasks in (32, 1):
            figures.append(Figure(what, tasks, name, *await best(partial(work, store), size=size, tasks=tasks)))
    await store.close()
    return figures


async def sqlite_rates(folder: Path, size: Size, synchronous: Synchronous) -> list[Figure]:
    store = SqliteStore(folder / f"{synchronous}.sqlite", clock=SystemClock(), synchronous=synchronous)
    return await rates(store, size, synchronous)


async def postgres_rates(size: Size) -> list[Figure]:
    """Nothing where PostgreSQL is not installed."""
    programs = postgres_server.binaries()
    if programs is None:
        return []
    server = postgres_server.PostgresServer(programs, settings=("max_connections=60",))
    try:
        server.start()
        one = PostgresStore(server.url, clock=SystemClock(), schema="bench")
        figures = await rates(one, size, "PG")
        async with listening(server.url, "bench"):
            return figures + await rates(one, size, "PG, 2")
    finally:
        server.remove()


@asynccontextmanager
async def listening(url: str, schema: str) -> AsyncIterator[None]:
    """A second server on the schema."""
    other = PostgresStore(url, clock=SystemClock(), schema=schema)
    await other.open("other", on_change=lambda change: None)
    try:
        yield
    finally:
        await other.close()


async def beside(folder: Path, size: Size, waiting: int) -> list[Figure]:
    """The same work with an empty queue and with `waiting` jobs in it."""
    store = SqliteStore(folder / "million.sqlite", clock=SystemClock())
    await store.open("bench")
    figures = []
    for count in (0, waiting):
        for start in range(0, count, 10_000):
            fill = (store.submit(new_job(), max_queue=ROOM) for _ in range(min(10_000, count - start)))
            await asyncio.gather(*fill)
        for tasks in (32, 1):
            figure = await best(partial(queued, store), size=size, tasks=tasks)
            figures.append(Figure(f"submit, claim, finish beside {count:,} waiting", tasks, "NORMAL", *figure))
    await store.close()
    began = time.perf_counter()
    await store.open("another")
    print(
        f"opened again with {store.pending([FUNCTION]).total:,} waiting in {(time.perf_counter() - began) * 1e3:.1f} ms"
    )
    await store.close()
    return figures


def table(figures: list[Figure]) -> str:
    head = f"{'what':<52}{'tasks':>6}  {'sync':<7}{'jobs/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'cpu µs':>8}"
    rows = (
        f"{f.what:<52}{f.tasks:>6}  {f.synchronous:<7}{f.per_s:>8.0f}{f.p50_ms:>9.2f}{f.p99_ms:>9.2f}{f.cpu_us:>8.0f}"
        for f in figures
    )
    return "\n".join([head, *rows])


async def main(arguments: argparse.Namespace) -> list[Figure]:
    size = Size(arguments.jobs, arguments.rounds)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        figures = []
        if "sqlite" in arguments.only:
            figures += await sqlite_rates(folder, size, "NORMAL")
            figures += await sqlite_rates(folder, size, "FULL")
        if "postgres" in arguments.only:
            figures += await postgres_rates(size)
        if "queued" in arguments.only and arguments.queued:
            figures += await beside(folder, size, arguments.queued)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--jobs", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the databases are made (default: the temporary folder)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    found = asyncio.run(main(options))
    print(table(found))
    machine = {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version, "cpus": os.cpu_count()}
    document = {**machine, "platform": platform.platform(), "figures": [asdict(figure) for figure in found]}
    print(json.dumps(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
