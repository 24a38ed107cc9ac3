"""A WebSocket at a gateway: what its end means for the worker that has it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flashfw.cluster.dispatch.runs import CANCEL_GRACE_S
from flashfw.cluster.workers.autoscaler import WorkerState
from flashfw.worker.sockets import LEAVE_S
from tests.cluster.bench import Call, a_function, an_endpoint, clustering

pytestmark = pytest.mark.anyio


async def test_a_function_has_time_to_notice_that_its_client_left(tmp_path: Path) -> None:
    socket = a_function("api", "http", id="api::websocket", method="WEBSOCKET")
    async with clustering(tmp_path, an_endpoint("api", "http", functions=(socket,), workers_min=1)) as bench:
        await bench.advance(0.5)
        bench.worker.is_obedient = False
        incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        incoming.put_nowait({"type": "websocket.connect"})
        scope = {**Call("GET", "/api", {}).scope, "type": "websocket", "subprotocols": []}
        del scope["method"]

        async def send(message: Any) -> None:
            """Nobody listens."""

        serving = asyncio.ensure_future(bench.gateway(scope, incoming.get, send))
        await bench.settle()
        assert len(bench.worker.calls) == 1
        incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await bench.settle()
        assert serving.done()
        (worker,) = bench.cluster.dispatchers["api"].pool.workers
        await bench.advance(LEAVE_S + CANCEL_GRACE_S - 1.0)
        assert worker.state is WorkerState.RUNNING
        await bench.advance(2.0)

        assert worker.state is WorkerState.UNHEALTHY
