"""Ray Serve with one proxy and one replica."""

from __future__ import annotations

import sys
import time

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

QUIET = {"enable_access_log": False}


@serve.deployment(num_replicas=1, max_ongoing_requests=100, logging_config=QUIET)
class Echo:
    async def __call__(self, request: Request) -> JSONResponse:
        return JSONResponse(await request.json())


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, logging_config=QUIET)
    serve.run(Echo.bind(), route_prefix="/echo", name="echo")
    while True:
        time.sleep(3600)
