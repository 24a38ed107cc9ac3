"""A cluster with keys, secrets and logs behind its gateway, as `flashfw serve` puts them together."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from starlette.routing import Router

from flashfw.cluster.auth.keys import KeyScope
from flashfw.cluster.auth.pages import KeyPages
from flashfw.cluster.auth.store import Keys
from flashfw.cluster.clock import ManualClock
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.events import all_of
from flashfw.cluster.gateway.app import Gateway
from flashfw.cluster.gateway.guard import KeysGuard
from flashfw.cluster.gateway.intake import Intake
from flashfw.cluster.logs.files import Rotation
from flashfw.cluster.logs.logs import Logs
from flashfw.cluster.logs.pages import LogPages
from flashfw.cluster.secrets.pages import SecretPages
from flashfw.cluster.secrets.store import Secrets, users
from flashfw.cluster.state import FILE, State
from flashfw.manifest import Endpoint
from flashfw.worker.failure import Redaction
from tests.cluster.bench import Call, ClusterBench


class AdminBench(ClusterBench):
    """`a_key` makes a key of either scope, `ask` and `answer` send a request with one."""

    state: State
    keys: Keys
    secrets: Secrets
    logs: Logs

    def a_key(self, scope: KeyScope = "call", name: str = "somebody") -> str:
        return str(self.keys.create(name, scope)[1])

    async def ask(
        self, key: str | None, method: str, path: str, value: Any = None, *, query: str = "", **headers: str
    ) -> Call:
        """A request with a key, once it is over or has begun to answer."""
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        body = None if value is None else json.dumps(value).encode()
        call = await self.call(method, path, body, query=query, **headers)
        with anyio.fail_after(30):
            while not (call.is_over or call.body):  # noqa: ASYNC110 (a thread is at it)
                await anyio.sleep(0.001)
        return call

    async def answer(self, key: str | None, method: str, path: str, value: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and JSON of a request that ends by itself."""
        call = await self.ask(key, method, path, value, **more)
        with anyio.fail_after(30):
            await call.answer
        return call.status, json.loads(call.body)


@asynccontextmanager
async def administering(
    folder: Path, *endpoints: Endpoint, rotation: Rotation | None = None, **site: Any
) -> AsyncIterator[AdminBench]:
    """A server of these endpoints, for as long as the block runs."""
    bench = AdminBench(folder, **site)
    with State(folder / FILE) as state:
        bench.state, bench.keys = state, Keys(state, bench.clock)
        bench.secrets = Secrets(state, folder / "secret.key", bench.clock)
        values = bench.secrets.values
        bench.logs = Logs(
            folder / "logs",
            bench.clock,
            rotation=rotation or Rotation(),
            redact=lambda text: Redaction(values.values())(text),
        )
        emit = all_of(bench.events.append, bench.logs.take)
        bench.site = replace(bench.site, emit=emit, secrets=values)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.logs.run)
            tasks.start_soon(bench.keys.run)
            async with Cluster.running(bench.site, bench.store, grace_s=0.0) as cluster:
                bench.cluster = cluster
                bench.gateway = _gateway(bench)
                bench.apply(*endpoints)
                await bench.settle()
                try:
                    yield bench
                finally:
                    tasks.start_soon(_pass_time, bench.clock)
            tasks.cancel_scope.cancel()


def _gateway(bench: AdminBench) -> Gateway:
    def rolls(names: Collection[str]) -> None:
        manifest = bench.cluster.manifest
        bench.cluster.apply(manifest, root=bench.root, roll=dict.fromkeys(users(manifest, names)))

    def manifest() -> Any:
        return bench.cluster.manifest

    pages = [
        *KeyPages(bench.keys).routes(),
        *SecretPages(bench.secrets, bench.state, manifest=manifest, on_changed=rolls).routes(),
        *LogPages(bench.logs, manifest=manifest).routes(),
    ]
    return Gateway(
        bench.cluster,
        intake=Intake(bench.cluster.watch, bench.clock, bench.store),
        store=bench.store,
        guard=KeysGuard(bench.keys),
        emit=bench.events.append,
        administration=Router(pages),
    )


async def _pass_time(clock: ManualClock) -> None:
    while True:
        clock.advance(0.5)
        await anyio.sleep(0.001)
