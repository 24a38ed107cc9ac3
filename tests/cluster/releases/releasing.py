"""A server that takes releases, with workers that do as they are told, and layers that are really on the disk."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from starlette.routing import Router

from flashfw.bundle.archive import Entry, pack
from flashfw.bundle.release import Layer, Packages, Release
from flashfw.cluster.auth.store import Keys
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.environments.base import Environment
from flashfw.cluster.gateway.app import Gateway
from flashfw.cluster.gateway.guard import KeysGuard
from flashfw.cluster.gateway.intake import Intake
from flashfw.cluster.releases.environments import ReleaseEnvironments
from flashfw.cluster.releases.pages import ReleasePages
from flashfw.cluster.releases.releases import Host, Releases
from flashfw.cluster.releases.rollouts import Running
from flashfw.cluster.secrets.store import Secrets
from flashfw.cluster.state import FILE, State
from flashfw.manifest import Endpoint, Manifest
from flashfw.worker.frames import Kind
from tests.cluster.bench import STEP_S, Call, ClusterBench
from tests.cluster.scripted import ScriptedProcess

KEY = "0123456789abcdef"
HOST = Host(platform="x86_64-manylinux_2_39", pythons=("3.11",))


class NoEnvironments(ReleaseEnvironments):
    """Environments that need no interpreter, since no process is started."""

    async def made(self, packages: Packages) -> Environment:
        return Environment(Path("python"), packages.key)


class ReleaseBench(ClusterBench):
    """`ship` sends a release of some endpoints and begins its rollout; `shipped` waits for its end as well."""

    releases: Releases
    secrets: Secrets
    folder: Path
    key: str

    async def release(
        self, *endpoints: Endpoint, project: str = "shop", environment: str = "prod", **files: str
    ) -> Release:
        """A release of these endpoints, whose layers the server has."""
        source = await self.layer({"lib.py": repr(sorted(endpoint.fingerprint for endpoint in endpoints)), **files})
        packages = Packages(
            key=KEY, python="3.11", platform="x86_64-manylinux_2_28", layer=await self.layer({"six.py": ""})
        )
        manifest = Manifest(
            project=project,
            environment=environment,
            endpoints=tuple(replace(endpoint, environment=KEY) for endpoint in endpoints),
        )
        return Release(manifest=manifest, source=source, packages=(packages,), flashfw="0.1.0")

    async def layer(self, files: Mapping[str, str]) -> Layer:
        """A layer of these files, received by the server."""
        layer, data = packed(self.folder, files)

        async def pieces() -> AsyncIterator[bytes]:
            yield data

        await self.releases.layers.receive(layer, pieces())
        return layer

    async def ship(self, *endpoints: Endpoint, removes: tuple[str, ...] = (), by: str = "me@here") -> Running:
        release = await self.release(*endpoints)
        await self.releases.ship(release, expected=self.releases.current, removes=removes, by=by)
        assert self.releases.last is not None
        return self.releases.last

    async def shipped(self, *endpoints: Endpoint, removes: tuple[str, ...] = ()) -> Running:
        running = await self.ship(*endpoints, removes=removes)
        await self.over(running)
        assert running.state == "done", running.failure
        return running

    async def over(self, running: Running) -> None:
        """Wait until a rollout is over, and what follows has been done."""
        with anyio.fail_after(30):
            await running.changed(1 << 30)
        await self.settle()

    async def told(self, running: Running, step: str) -> None:
        """Wait until a rollout has told of a step."""
        with anyio.fail_after(30):
            while not any(event.step == step for event in running.events):
                assert running.state == "running", running.failure
                await running.changed(len(running.events))
        await self.settle()

    def of(self, running: Running) -> list[ScriptedProcess]:
        """The workers that live and serve, or shall serve, the files of a rollout's release."""
        root = self.releases.layers.path(running.release.source.digest)
        return [worker for worker in self.workers if worker.spec.root == root]

    async def ask(
        self, method: str, path: str, value: Any = None, *, raw: bytes | None = None, query: str = ""
    ) -> Call:
        body = raw if raw is not None else None if value is None else json.dumps(value).encode()
        headers = {"authorization": f"Bearer {self.key}"}
        call = await self.call(method, f"/_flashfw/{path}", body, query=query, **headers)
        with anyio.fail_after(30):
            await call.answer
        return call

    async def answer(self, method: str, path: str, value: Any = None, **more: Any) -> tuple[int, Any]:
        call = await self.ask(method, path, value, **more)
        return call.status, json.loads(call.body)


def packed(folder: Path, files: Mapping[str, str]) -> tuple[Layer, bytes]:
    """A layer of these files, and its archive."""
    to = folder / "archive.tar.zst"
    entries = [Entry(name, text.encode()) for name, text in files.items()]
    layer = pack(entries, to)
    return layer, io.BytesIO(to.read_bytes()).getvalue()


def answers(process: ScriptedProcess) -> None:
    """What a worker does that is ready at once, and answers each call as soon as it comes."""
    process.ready()
    take = process._take

    def answering(frame: Any) -> None:
        take(frame)
        if frame.kind is Kind.REQUEST:
            process.head(200, process.spec.root.name.encode(), number=frame.call)
        elif frame.kind is Kind.CALL:
            process.result(frame.call)

    process._take = answering  # type: ignore[method-assign]


@asynccontextmanager
async def releasing(folder: Path, *, over: str = "data", **site: Any) -> AsyncIterator[ReleaseBench]:
    """A server over the data directory `over` of a folder, for as long as the block runs."""
    bench = ReleaseBench(folder, **{"project": "", "environment": "", **site})
    bench.folder, data = folder, folder / over
    data.mkdir(exist_ok=True)
    with State(data / FILE) as state:
        keys = Keys(state, bench.clock)
        bench.key = str(keys.create("me", "admin")[1])
        bench.secrets = Secrets(state, data / "secret.key", bench.clock)
        bench.releases = releases = Releases(
            state,
            data,
            variables={},
            secrets=bench.secrets,
            clock=bench.clock,
            host=HOST,
            emit=bench.events.append,
        )
        releases.environments = NoEnvironments(data / "environments", releases.layers.path, {})
        bench.site = replace(bench.site, environments=releases.environments, secrets=bench.secrets.values)
        async with Cluster.running(bench.site, bench.store, grace_s=0.0) as cluster:
            bench.cluster = cluster
            async with releases.running(cluster):
                bench.gateway = _gateway(bench, keys)
                await bench.settle()
                try:
                    yield bench
                finally:
                    ending = asyncio.ensure_future(_pass_time(bench))
        ending.cancel()


def _gateway(bench: ReleaseBench, keys: Keys) -> Gateway:
    return Gateway(
        bench.cluster,
        intake=Intake(bench.cluster.watch, bench.clock, bench.store),
        store=bench.store,
        guard=KeysGuard(keys),
        emit=bench.events.append,
        administration=Router(ReleasePages(bench.releases).routes()),
    )


async def _pass_time(bench: ReleaseBench) -> None:
    while True:
        bench.clock.advance(STEP_S)
        await asyncio.sleep(0.001)
