"""Metrics over HTTP, for Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flashfw.cluster.metrics.metrics import Metrics


def metrics_route(metrics: Metrics) -> BaseRoute:
    """`GET /_flashfw/metrics`, for keys with the scope `admin`."""

    async def answer(request: Request) -> Response:  # async, so that it reads on the loop that counts
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    return Route("/_flashfw/metrics", answer, methods=["GET"])
