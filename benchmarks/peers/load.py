"""What every client of a queue does: callers that submit, wait for the result, and submit again, for some seconds.

Imported by the clients, each in the environment of its peer: the standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable

WARM_S = 0.5
SMALLEST = len(json.dumps({"prompt": "", "steps": 20}))


def payload(size_bytes: int) -> dict[str, object]:
    """An object whose JSON is so long."""
    words = "a cat on a mat "
    length = size_bytes - SMALLEST
    return {"prompt": (words * (length // len(words) + 1))[:length], "steps": 20}


def report(spent_s: list[float], took_s: float, cpu_s: float, *, calls: int) -> None:
    """Print what the benchmark reads; `calls` counts those of the warm-up too."""
    ordered = sorted(spent_s)
    found = {
        "per_s": len(ordered) / took_s,
        "p50_ms": 1000 * statistics.median(ordered),
        "p99_ms": 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "calls": calls,
        "client_cpu_us": 1e6 * cpu_s / len(ordered),
    }
    print(json.dumps(found), flush=True)


def threads(call: Callable[[dict[str, object]], object]) -> None:
    """`CONNECTIONS` threads of this process (`client.py ... CONNECTIONS SECONDS SIZE`), after a short warm-up."""
    count, seconds, body = int(sys.argv[-3]), float(sys.argv[-2]), payload(int(sys.argv[-1]))
    assert call(body) == body

    def turn(seconds: float) -> tuple[list[float], float]:
        spent: list[float] = []
        failed: list[BaseException] = []
        begin = time.perf_counter()

        def caller() -> None:
            try:
                while (now := time.perf_counter()) < begin + seconds:
                    call(body)
                    spent.append(time.perf_counter() - now)
            except BaseException as error:
                failed.append(error)
                raise

        callers = [threading.Thread(target=caller) for _ in range(count)]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
        if failed:
            raise SystemExit(f"{len(failed)} callers failed, first {failed[0]!r}")
        return spent, time.perf_counter() - begin

    warm, _ = turn(WARM_S)
    cpu = time.process_time()
    spent, took_s = turn(seconds)
    report(spent, took_s, time.process_time() - cpu, calls=1 + len(warm) + len(spent))


async def tasks(call: Callable[[dict[str, object]], Awaitable[object]]) -> None:
    """The same with tasks on one loop."""
    count, seconds, body = int(sys.argv[-3]), float(sys.argv[-2]), payload(int(sys.argv[-1]))
    assert await call(body) == body

    async def turn(seconds: float) -> tuple[list[float], float]:
        spent: list[float] = []
        begin = time.perf_counter()

        async def caller() -> None:
            while (now := time.perf_counter()) < begin + seconds:
                await call(body)
                spent.append(time.perf_counter() - now)

        await asyncio.gather(*(caller() for _ in range(count)))
        return spent, time.perf_counter() - begin

    warm, _ = await turn(WARM_S)
    cpu = time.process_time()
    spent, took_s = await turn(seconds)
    report(spent, took_s, time.process_time() - cpu, calls=1 + len(warm) + len(spent))
