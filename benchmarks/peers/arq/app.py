"""arq: `poll_delay` is how often a worker looks for jobs, half a second by default."""

import os

from arq.connections import RedisSettings

SETTINGS = RedisSettings(port=int(os.environ["ECHO_REDIS_PORT"]))


async def echo(context, body):
    return body


class WorkerSettings:
    functions = [echo]
    redis_settings = SETTINGS
    max_jobs = 100
    poll_delay = 0.001
    keep_result = 60
    log_results = False
