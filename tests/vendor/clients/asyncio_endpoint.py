"""What a program with `runpod.AsyncioEndpoint` does; prints what it was answered as one JSON document."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiohttp
import runpod
from runpod import AsyncioEndpoint

runpod.api_key = "any"


async def until(job: Any, state: str) -> str:
    for _ in range(400):
        if (found := (await job._fetch_job())["status"]) == state:
            break
        await asyncio.sleep(0.05)
    return str(found)


async def main() -> dict[str, Any]:
    said: dict[str, Any] = {"version": runpod.__version__}
    async with aiohttp.ClientSession() as session:
        upscale = AsyncioEndpoint("gpu/upscale", session)
        many = await asyncio.gather(*(upscale.run({"width": width}) for width in range(20)))
        said["outputs"] = await asyncio.gather(*(job.output(timeout=20) for job in many))
        said["status"] = await many[0].status()
        said["record"] = await many[0]._fetch_job()

        failing = await AsyncioEndpoint("fail", session).run({"why": "no such image"})
        said["failed output"] = await failing.output(timeout=20)
        said["failed"] = await failing._fetch_job()

        stream = (await AsyncioEndpoint("count", session).run({"to": 3})).stream()
        said["stream"] = [item async for item in stream]

        hold = AsyncioEndpoint(sys.argv[1], session)
        held = await hold.run({"name": "first"})
        said["held"] = await until(held, "IN_PROGRESS")
        await hold.run({"name": "second"})
        said["purged"] = await hold.purge_queue()
        said["cancelled"] = await held.cancel()
        said["cancelled status"] = await held.status()
        said["health"] = await upscale.health()
    return said


print(json.dumps(asyncio.run(main())))
