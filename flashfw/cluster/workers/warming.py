"""Processes that workers are forked off, made ahead of the first worker and kept for the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio

from flashfw.cluster.clock import limit, sleep
from flashfw.cluster.site import Site
from flashfw.cluster.workers.launch import worker_spec
from flashfw.errors import FlashfwError
from flashfw.manifest import Endpoint

AGAIN_S = 300.0
"""How often it is looked at again, which is before a warm process that nobody used would end."""


class Warming:
    """Has the placement prepare for the workers of what is served. Lives as long as its cluster.

    Endpoints with the same packages and the same `preload` share what is prepared. Of the first `site.warm_ahead` such
    groups something is kept warm; for others it is made when their first worker starts.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._served: tuple[Endpoint, ...] = ()
        self._root = Path()
        self._changed = anyio.Event()

    def serve(self, endpoints: tuple[Endpoint, ...], root: Path) -> None:
        """These endpoints are served from now on; their files lie at `root`."""
        self._served, self._root = endpoints, root
        self._changed.set()

    async def run(self) -> None:
        """Keep warm what is served, until cancelled."""
        while self._site.warm_ahead:
            with limit(self._site.clock, AGAIN_S):
                await self._changed.wait()
            self._changed = anyio.Event()
            if self._site.describe_after_s:  # whoever is waited for starts alone
                await sleep(self._site.clock, self._site.describe_after_s)
            for endpoint in list(self._firsts()):
                with suppress(FlashfwError, OSError):  # whoever starts a worker is told
                    await self._prepare(endpoint)

    def _firsts(self) -> Iterator[Endpoint]:
        """One endpoint of each group, as many as are kept warm."""
        seen: set[object] = set()
        for endpoint in self._served:
            group = (endpoint.python, endpoint.environment, endpoint.dependencies, endpoint.preload)
            if group not in seen and len(seen) < self._site.warm_ahead:
                seen.add(group)
                yield endpoint

    async def _prepare(self, endpoint: Endpoint) -> None:
        environment = await self._site.environments.ensure(endpoint, self._root)
        spec = worker_spec("", endpoint, self._site, environment.python, root=self._root)
        await self._site.placement.prepare(spec)
