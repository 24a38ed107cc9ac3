"""Releases with real processes, environments and layers on the disk, under load."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.routing import Router

import flashfw
from flashfw.bundle.release import Layer, Packages, Release
from flashfw.cluster.auth.store import Keys
from flashfw.cluster.clock import SystemClock
from flashfw.cluster.cluster import Cluster
from flashfw.cluster.environments.overlay import Overlay
from flashfw.cluster.events import Event
from flashfw.cluster.gateway.app import Gateway
from flashfw.cluster.gateway.guard import KeysGuard
from flashfw.cluster.gateway.intake import Intake
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.placement.process import ProcessPlacement
from flashfw.cluster.releases.pages import ReleasePages
from flashfw.cluster.releases.releases import Host, Releases
from flashfw.cluster.releases.rollouts import Running
from flashfw.cluster.secrets.store import Secrets
from flashfw.cluster.site import Site
from flashfw.cluster.state import FILE, State
from flashfw.project.collect import collect
from flashfw.project.compile import compile as compile_project
from flashfw.project.fingerprint import fingerprint
from flashfw.project.root import find
from tests.cluster.releases.releasing import packed

pytestmark = pytest.mark.anyio

VERSION = ".".join(map(str, sys.version_info[:2]))
KEY = "0123456789abcdef"
PLATFORM = "x86_64-manylinux_2_28"
SHOP = {
    "flashfw.toml": f'[project]\nname = "shop"\npython = "{VERSION}"\n[environments.prod]\nurl = "http://127.0.0.1:1"\n',
    "endpoints/job/handler.py": "def handler(input):\n    return 'NOW'\n",
    "endpoints/job/endpoint.toml": "workers = [1, 2]\n",
    "endpoints/web/handler.py": "def get() -> str:\n    return 'NOW'\n",
    "endpoints/web/endpoint.toml": "workers = [1, 2]\n",
}


def now(text: str, *, strategy: str = "surge") -> dict[str, str]:
    """The shop as it says `text`."""
    files = {name: content.replace("NOW", text) for name, content in SHOP.items()}
    return {
        name: f'strategy = "{strategy}"\n{content}' if name.endswith("endpoint.toml") else content
        for name, content in files.items()
    }


class Server:
    """A server over a data directory, that a client speaks with."""

    def __init__(self, folder: Path, releases: Releases, client: httpx.AsyncClient, events: list[Event]) -> None:
        self.folder = folder
        self.releases = releases
        self.client = client
        self.events = events

    async def ship(self, files: Mapping[str, str]) -> Running:
        """Ship a tree, and wait until its rollout is over."""
        release = await self._built(files)
        await self.releases.ship(release, expected=self.releases.current, removes=(), by="me@here")
        assert self.releases.last is not None
        with anyio.fail_after(60):
            await self.releases.last.changed(1 << 30)
        return self.releases.last

    async def ask(self, path: str) -> tuple[int, str]:
        answer = await (self.client.get(path) if path == "/web" else self.client.post(path, json=1))
        return answer.status_code, answer.json()

    async def _built(self, files: Mapping[str, str]) -> Release:
        folder = self.folder / f"tree-{uuid.uuid4().hex[:8]}"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        manifest, problems = compile_project(collect(find(folder)), environment="prod")
        assert not [problem for problem in problems if problem.level == "error"]
        endpoints = (replace(endpoint, environment=KEY, fingerprint="") for endpoint in manifest.endpoints)
        whole = tuple(replace(endpoint, fingerprint=fingerprint(endpoint)) for endpoint in endpoints)
        site_packages = next(path for path in map(Path, sys.path) if (path / "pydantic").is_dir())
        packages = await self._layer({"here.pth": f"{site_packages}\n"})
        return Release(
            manifest=replace(manifest, endpoints=whole),
            source=await self._layer(files),
            packages=(Packages(key=KEY, python=VERSION, platform=PLATFORM, layer=packages),),
            flashfw=flashfw.__version__,
        )

    async def _layer(self, files: Mapping[str, str]) -> Layer:
        layer, data = packed(self.folder, files)

        async def pieces() -> AsyncIterator[bytes]:
            yield data

        await self.releases.layers.receive(layer, pieces())
        return layer


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    data, clock, events = folder / "data", SystemClock(), list[Event]()
    data.mkdir(exist_ok=True)
    with State(data / FILE) as state:
        keys, secrets = Keys(state, clock), Secrets(state, data / "secret.key", clock)
        releases = Releases(
            state,
            data,
            variables={},
            secrets=secrets,
            clock=clock,
            host=Host(platform=PLATFORM, pythons=(VERSION,)),
            emit=events.append,
        )
        site = Site(
            state=data,
            project="",
            environment="",
            boot=uuid.uuid4().hex,
            placement=ProcessPlacement(data),
            environments=releases.environments,
            overlay=Overlay(data / "overlays").path(),
            variables={},
            secrets=secrets.values,
            clock=clock,
            emit=events.append,
        )
        store = SqliteStore(data / "jobs.sqlite", clock=clock)
        key = str(keys.create("me", "admin")[1])
        async with Cluster.running(site, store, grace_s=1.0) as cluster, releases.running(cluster):
            gateway = Gateway(
                cluster,
                intake=Intake(cluster.watch, clock, store),
                store=store,
                guard=KeysGuard(keys),
                emit=events.append,
                administration=Router(ReleasePages(releases).routes()),
            )
            transport = httpx.ASGITransport(app=gateway)  # type: ignore[arg-type]
            headers = {"authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", headers=headers, timeout=60
            ) as client:
                yield Server(folder, releases, client, events)


async def test_releases_come_and_go_under_load_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    seen: Counter[tuple[str, int, str]] = Counter()
    is_over = False

    async def load(server: Server, path: str) -> None:
        while not is_over:
            seen[(path, *await server.ask(path))] += 1
            await asyncio.sleep(0)

    async with serving(tmp_path) as server:
        first = await server.ship(now("one"))
        assert first.state == "done", first.failure
        loading = [asyncio.ensure_future(load(server, path)) for path in ("/web", "/job")]
        states = [(await server.ship(now("two"))).state, (await server.ship(now("three", strategy="replace"))).state]
        broken = await server.ship(
            {
                **now("four"),
                "endpoints/job/fixtures.py": "def model():\n    print('loading')\n    raise OSError('no weights')\n",
            }
            | {"endpoints/job/handler.py": "def handler(input, model):\n    return 'four'\n"}
        )
        is_over = True
        with anyio.fail_after(60):
            await asyncio.gather(*loading)

        assert states == ["done", "done"]
        assert {(path, status) for path, status, _ in seen} == {("/web", 200), ("/job", 200)}
        assert {text for _, _, text in seen} == {"one", "two", "three"}
        assert broken.failure is not None
        assert broken.failure.endpoint == "job"
        assert broken.failure.message.startswith("the fixture 'model' failed: OSError: no weights")
        assert "endpoints/job/fixtures.py" in broken.failure.traceback
        assert broken.failure.output == ("loading",)
        assert [event for event in server.events if event.name == "internal"] == []
        current = server.releases.current

    async with serving(tmp_path) as server:  # the next server on the same data
        assert server.releases.current == current
        assert [await server.ask(path) for path in ("/web", "/job")] == [(200, "three")] * 2
