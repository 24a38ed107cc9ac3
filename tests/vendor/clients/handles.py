"""What a program with the handles of 2.0 does (`runpod.Queue`), sync and async; prints it as one JSON document."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import runpod


def queue(name: str) -> Any:
    return runpod.Queue(app="shop", name=name)


def raised(call: Any) -> str:
    try:
        return f"returned {call()!r}"
    except Exception as error:  # whatever this version raises
        return f"{type(error).__name__}: {error}"


def sync() -> dict[str, Any]:
    said: dict[str, Any] = {"version": runpod.__version__}
    upscale = queue("gpu/upscale")
    said["remote"] = upscale.remote(width=8)
    optioned = upscale.with_options(execution_timeout=30_000, ttl=60_000, low_priority=False)
    said["options"] = optioned.remote(width=8, factor=3)
    said["nothing"] = queue("nothing").remote()

    job = upscale.spawn(width=5)
    said["result"] = job.result()
    said["status"] = job.status()
    said["attached"] = upscale.job(job.id).result()

    said["failed"] = raised(lambda: queue("fail").remote(why="no such image"))
    failing = queue("fail").spawn(why="no such image")
    raised(failing.result)
    said["retried"] = failing.retry()._data["status"]
    said["failed again"] = raised(failing.result)

    said["stream"] = list(queue("count").stream(to=3))
    said["stream large"] = [len(item) for item in queue("chunks").stream(of=5)]
    broken: list[int] = []
    said["stream broken"] = raised(lambda: broken.extend(queue("breaks").stream(to=2)))
    said["stream broken items"] = broken

    held = queue(sys.argv[1]).spawn(name="first")
    while held.status() != "IN_PROGRESS":
        time.sleep(0.05)
    said["cancelled"] = held.cancel()._data["status"]
    said["unknown"] = raised(lambda: queue("nobody").remote(a=1))
    return said


async def main() -> dict[str, Any]:
    upscale = queue("gpu/upscale")
    said: dict[str, Any] = {"remote": await upscale.remote.aio(width=8)}
    jobs = await asyncio.gather(*(upscale.spawn.aio(width=width) for width in range(5)))
    said["results"] = await asyncio.gather(*(job.result.aio() for job in jobs))
    said["stream"] = [item async for item in queue("count").stream.aio(to=3)]
    held = await queue(sys.argv[1]).spawn.aio(name="second")
    while await held.status.aio() != "IN_PROGRESS":  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await held.cancel.aio()
    said["cancelled"] = await held.status.aio()
    return said


print(json.dumps({"sync": sync(), "async": asyncio.run(main())}))
