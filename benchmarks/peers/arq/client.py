"""Submits from tasks on one loop and polls for each result: a lone caller often, many less so, as is best for each."""

import asyncio
import sys

from app import SETTINGS
from arq import create_pool
from load import tasks

POLL_S = 0.001 if sys.argv[-3] == "1" else 0.02


async def main():
    pool = await create_pool(SETTINGS)

    async def call(body):
        job = await pool.enqueue_job("echo", body)
        return await job.result(timeout=30, poll_delay=POLL_S)

    await tasks(call)
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(main())
