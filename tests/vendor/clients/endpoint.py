"""What a program with `runpod.Endpoint` does; prints what it was answered as one JSON document."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import runpod

runpod.api_key = "any"


def until(job: Any, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job's record, once it is as wanted, or after 20 s."""
    deadline = time.monotonic() + 20
    while not holds(record := job._fetch_job()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return dict(record)


def main() -> dict[str, Any]:
    said: dict[str, Any] = {"version": runpod.__version__}
    upscale = runpod.Endpoint("gpu/upscale")
    count = runpod.Endpoint("count")
    hold = runpod.Endpoint(sys.argv[1])

    said["run_sync"] = upscale.run_sync({"input": {"width": 8}})
    said["run_sync wraps"] = upscale.run_sync({"width": 8, "factor": 3})
    job = upscale.run({"input": {"width": 8}, "policy": {"executionTimeout": 30_000, "ttl": 60_000}, "s3Config": {}})
    said["output"] = job.output(timeout=20)
    said["status"] = job.status()
    said["record"] = job._fetch_job()

    slow = runpod.Endpoint("slow").run({"seconds": 1.5})
    said["early output"] = slow.output()
    said["late output"] = slow.output(timeout=20)

    said["big"] = len(runpod.Endpoint("big").run_sync({"megabytes": 15}))
    said["nothing"] = runpod.Endpoint("nothing").run_sync({"input": {"__empty": True}})

    failing = runpod.Endpoint("fail").run({"input": {"why": "no such image"}})
    said["failed output"] = failing.output(timeout=20)
    said["failed"] = failing._fetch_job()
    said["failed run_sync"] = runpod.Endpoint("fail").run_sync({"input": {"why": "no such image"}})

    said["stream"] = list(count.run({"input": {"to": 3}}).stream())
    said["stream large"] = [len(item) for item in runpod.Endpoint("chunks").run({"input": {"of": 5}}).stream()]

    held = hold.run({"name": "first"})
    said["held record"] = until(held, lambda record: "output" in record)  # its first progress
    said["held"] = said["held record"]["status"]
    waiting = [hold.run({"name": name}) for name in ("second", "third")]
    said["waiting"] = [job._fetch_job() for job in waiting]
    said["busy health"] = hold.health()
    said["purged"] = hold.purge_queue()
    said["purged status"] = [job.status() for job in waiting]
    said["cancelled"] = held.cancel()
    said["cancelled again"] = held.cancel()
    said["cancelled record"] = held._fetch_job()
    said["health"] = upscale.health()
    said["unknown"] = refused(lambda: runpod.Endpoint("nobody").run({"a": 1}))
    said["policy"] = refused(lambda: upscale.run({"input": {"width": 1}, "policy": {"ttl": 1}}))
    said["webhook"] = refused(lambda: upscale.run({"input": {"width": 1}, "webhook": "ftp://example.com"}))
    return said


def refused(call: Any) -> Any:
    try:
        call()
    except Exception as error:  # whatever this version raises
        response = getattr(error, "response", None)
        return [response.status_code, response.json()] if response is not None else repr(error)
    return "taken"


print(json.dumps(main()))
