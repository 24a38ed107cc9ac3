"""Celery with Redis as broker and for results.

`ECHO_LATE`: a task is acknowledged after it ran, so that none is lost with its worker.
"""

import os

import celery

url = os.environ["ECHO_REDIS"]
app = celery.Celery("app", broker=url, backend=url)
app.conf.update(
    task_acks_late=bool(os.environ.get("ECHO_LATE")),
    worker_prefetch_multiplier=16,
    broker_pool_limit=32,  # as many connections as there are callers, not ten
    task_serializer="json",
    result_serializer="json",
    broker_connection_retry_on_startup=True,
)


@app.task
def echo(body):
    return body
