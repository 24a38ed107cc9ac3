"""huey with Redis, whose results are announced (`notify_result`), or with SQLite, where both sides poll."""

import os

from huey import RedisHuey, SqliteHuey

if "ECHO_SQLITE" in os.environ:
    # Without `fsync` it is SQLite's own default, which in Python's builds is FULL.
    huey = SqliteHuey("echo", filename=os.environ["ECHO_SQLITE"])
else:
    huey = RedisHuey("echo", url=os.environ["ECHO_REDIS"], notify_result=True)


@huey.task()
def echo(body):
    return body
