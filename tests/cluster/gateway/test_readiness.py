"""What a load balancer is told, and what the gateway hands on to the administration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from flashfw.cluster.auth.store import Keys
from flashfw.cluster.events import Event
from flashfw.cluster.gateway.answers import refusal, send_json
from flashfw.cluster.gateway.app import Gateway
from flashfw.cluster.gateway.guard import Guard, KeyGuard, KeysGuard
from flashfw.cluster.gateway.intake import Intake
from flashfw.cluster.gateway.readiness import STORE_FAILED_FOR_S, Readiness
from flashfw.cluster.state import State
from tests.cluster.bench import ClusterBench, an_endpoint, clustering

pytestmark = pytest.mark.anyio

DEV = KeyGuard("k")


async def administration(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/_flashfw/no":
        raise refusal(409, "conflict", "not now")
    await send_json(send, 202, {"asked": [scope["method"], scope["path"]]})


def a_server(bench: ClusterBench, readiness: Readiness | None = None, guard: Guard = DEV) -> None:
    bench.gateway = Gateway(
        bench.cluster,
        intake=Intake(bench.cluster.watch, bench.clock, bench.store),
        store=bench.store,
        guard=guard,
        emit=bench.events.append,
        administration=administration,
        readiness=readiness,
    )


async def test_ready_says_why_not_and_needs_no_key(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        readiness = Readiness(bench.clock, "starting")
        a_server(bench, readiness)

        starting = await bench.call("GET", "/_flashfw/ready")
        assert (starting.status, starting.error["message"]) == (503, "starting")
        assert (await bench.call("GET", "/_flashfw/live")).status == 200
        readiness.phase = None
        assert (await bench.call("GET", "/_flashfw/ready")).status == 200
        assert (await bench.call("GET", "/_flashfw/status")).status == 401


async def test_ready_is_told_of_a_store_that_fails_and_of_its_return(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        readiness = Readiness(bench.clock)
        a_server(bench, readiness)

        readiness.take(Event("store_failed", None, {"error": "disk full"}))
        failing = await bench.call("GET", "/_flashfw/ready")
        assert (failing.status, failing.error["message"]) == (503, "the job store fails: disk full")
        readiness.take(Event("store_back"))
        assert (await bench.call("GET", "/_flashfw/ready")).status == 200
        readiness.take(Event("store_failed", None, {"error": "disk full"}))
        bench.clock.advance(STORE_FAILED_FOR_S)
        assert (await bench.call("GET", "/_flashfw/ready")).status == 200


async def test_the_administration_answers_what_the_gateway_does_not_know(tmp_path: Path) -> None:
    key: dict[str, Any] = {"authorization": "Bearer k"}
    async with clustering(tmp_path, an_endpoint()) as bench:
        a_server(bench)

        made = await bench.call("POST", "/_flashfw/releases", b"{}", **key)
        assert (made.status, made.body) == (202, b'{"asked": ["POST", "/_flashfw/releases"]}')
        refused = await bench.call("GET", "/_flashfw/no", **key)
        assert (refused.status, refused.error["reason"]) == (409, "conflict")
        assert (await bench.call("GET", "/_flashfw/no")).status == 401
        assert (await bench.call("GET", "/nowhere", **key)).status == 404
        assert (await bench.call("POST", "/_flashfw/status", b"{}", **key)).status == 405


async def test_a_request_is_told_with_its_function(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        await bench.post("/gpu", {}, prefer="respond-async")
        await bench.call("GET", "/_flashfw/live")

        told = [event.fields["function"] for event in bench.events if event.name == "request"]
        assert told == ["gpu", None]


async def test_what_tells_of_everything_needs_another_key_than_calls_do(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_endpoint()) as bench:
        with State(tmp_path / "state.sqlite") as state:
            keys = Keys(state, bench.clock)
            key: dict[str, Any] = {"authorization": f"Bearer {keys.create('app', 'call')[1]}"}
            a_server(bench, guard=KeysGuard(keys))

            made = await bench.post("/gpu", {}, prefer="respond-async", **key)
            assert made.status == 202
            job = json.loads(made.body)["id"]
            statuses = {
                path: (await bench.call("GET", path, **key)).status
                for path in (f"/_flashfw/jobs/{job}", "/openapi.json", "/_flashfw/server", "/_flashfw/jobs")
            }
            assert list(statuses.values()) == [200, 200, 202, 403]
            assert (await bench.call("POST", "/_flashfw/releases", b"{}", **key)).status == 403
            admin: dict[str, Any] = {"authorization": f"Bearer {keys.create('me', 'admin')[1]}"}
            assert (await bench.call("GET", "/_flashfw/status", **admin)).status == 200
