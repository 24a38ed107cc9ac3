"""A project under `flashfw dev` inside the test's own event loop: real workers, real sockets, events as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import httpx

from flashfw.cluster.events import Event
from flashfw.dev import server
from flashfw.project import root
from flashfw.project.select import Selection

DEADLINE_S = 60.0


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a project's files; `flashfw.toml` is added if it is not among them."""
    for name, text in {"flashfw.toml": "", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    return folder


@dataclass
class Served:
    """A served project: its address, a client, and every event so far."""

    folder: Path
    url: str = ""
    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=DEADLINE_S))
    events: list[Event] = field(default_factory=list)
    stopped: anyio.Event = field(default_factory=anyio.Event)
    _news: anyio.Event = field(default_factory=anyio.Event)

    def take(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def event(self, name: str, matches: Callable[[Event], bool] = lambda event: True, *, after: int = 0) -> Event:
        """The first event of that name that matches, once it has happened."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                for event in self.events[after:]:
                    if event.name == name and matches(event):
                        return event
                self._news = anyio.Event()
                await self._news.wait()

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    async def post(self, path: str, value: Any, **headers: str) -> httpx.Response:
        named = {key.replace("_", "-"): text for key, text in headers.items()}
        return await self.client.post(self.url + path, json=value, headers=named)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        named = {key.replace("_", "-"): text for key, text in headers.items()}
        return await self.client.get(self.url + path, headers=named)

    async def status(self, job_id: str, function: str, *, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The record of a job as soon as it is as wanted."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                record: dict[str, Any] = (await self.get(f"/v2/{function}/status/{job_id}")).json()
                if until(record):
                    return record
                seen = len(self.events)
                with anyio.move_on_after(0.05):
                    while len(self.events) == seen:
                        self._news = anyio.Event()
                        await self._news.wait()


def ended(record: dict[str, Any]) -> bool:
    """Whether a job's record is terminal."""
    return record["status"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


@asynccontextmanager
async def serving(
    folder: Path,
    files: Mapping[str, str],
    *,
    environ: Mapping[str, str],
    host: str = "127.0.0.1",
    selection: Selection | None = None,
    cron: bool = False,
    describe_after_s: float = 3600.0,
) -> AsyncIterator[Served]:
    """Serve a project of these files on a free port while the block runs; by default it is not described."""
    write(folder, files)
    served = Served(folder)
    options = server.Options(
        root=root.find(folder),
        host=host,
        port=0,
        variables=environ,
        cache=Path(environ["XDG_CACHE_HOME"]) / "flashfw",
        grace_s=2.0,
        selection=selection or Selection(),
        cron=cron,
        describe_after_s=describe_after_s,
    )

    async def serve() -> None:
        await server.run(options, emit=served.take, stop=served.stopped)

    try:
        async with anyio.create_task_group() as tasks, served.client:
            tasks.start_soon(serve)
            served.url = (await served.event("serving")).fields["url"]
            try:
                yield served
            finally:
                served.stopped.set()
    except BaseException as error:
        raise alone(error) from None


def alone(error: BaseException) -> BaseException:
    """The one error of a group: a `pytest.fail` within a group would end the loop that a module's tests share."""
    while len(errors := getattr(error, "exceptions", ())) == 1:
        error = errors[0]
    return error
