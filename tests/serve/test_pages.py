"""Who may ask for which page of a server: every route that there is, with no key and with each kind of key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.routing import BaseRoute, Route

from flashfw.cluster.gateway.app import Gateway
from flashfw.cluster.gateway.guard import KeysGuard
from flashfw.cluster.gateway.intake import Intake
from flashfw.cluster.metrics.metrics import Metrics
from flashfw.serve.pages import Administration
from flashfw.serve.server import routes
from tests.cluster.administered import AdminBench, administering
from tests.cluster.bench import an_endpoint

pytestmark = pytest.mark.anyio

OF_EVERY_KEY = {("GET", "/_flashfw/server")}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def all_routes(bench: AdminBench) -> list[BaseRoute]:
    """Those of `flashfw serve`. Releases are never asked here: who may not is refused before."""
    releases: Any = SimpleNamespace(roll_users=None, host=SimpleNamespace(platform="", pythons=()))
    return routes(
        bench.cluster,
        state=bench.state,
        keys=bench.keys,
        secrets=bench.secrets,
        logs=bench.logs,
        releases=releases,
        metrics=Metrics(),
    )


def asked(found: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Each method and path of the routes, with something in the place of parameters."""
    for route in found:
        assert isinstance(route, Route)
        path = re.sub(r"\{[^}]*\}", "1", route.path)
        yield from ((method, path) for method in sorted(route.methods or METHODS) if method != "HEAD")


async def test_every_page_of_the_administration_needs_an_admin_key(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        found = all_routes(bench)
        bench.gateway = Gateway(
            bench.cluster,
            intake=Intake(bench.cluster.watch, bench.clock, bench.store),
            store=bench.store,
            guard=KeysGuard(bench.keys),
            emit=bench.events.append,
            administration=Administration(found),
        )
        caller, admin = bench.a_key("call"), bench.a_key("admin")
        pages = [*asked(found), *((method, "/_flashfw/nothing") for method in METHODS)]
        pages += [(method, path) for path in ("/_flashfw/status", "/_flashfw/jobs") for method in METHODS]
        assert len(pages) > 30

        answers = {page: [(await bench.ask(key, *page)).status for key in (None, caller)] for page in pages}

        assert {page for page, (nobody, _) in answers.items() if nobody != 401} == set()
        assert {page for page, (_, call) in answers.items() if call != 403} == OF_EVERY_KEY
        assert answers["GET", "/_flashfw/server"] == [401, 200]
        assert (await bench.ask(admin, "GET", "/_flashfw/metrics")).status == 200


async def test_what_a_path_is_made_to_look_like_lets_nobody_in(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        caller = bench.a_key("call")
        for path in (
            "/_flashfw/jobs/../keys",
            "/_flashfw/jobs//keys",
            "//_flashfw/keys",
            "/_flashfw//keys",
            "/_flashfw/keys/",
            "/_flashfw/server/../keys",
            "/_FLASHFW/keys",
            "/v2/../_flashfw/keys",
            "/docs/../_flashfw/keys",
            "/_flashfw/live/../keys",
        ):
            assert (await bench.ask(None, "GET", path)).status in (401, 404), path
            assert (await bench.ask(caller, "GET", path)).status in (403, 404), path
