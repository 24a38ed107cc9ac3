"""Describing: a process that imports the handlers of an endpoint, builds no fixture, and tells their schemas."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from flashfw import whole
from flashfw.cluster.events import Event
from flashfw.cluster.site import Site
from flashfw.cluster.workers.launch import Launch, launch
from flashfw.cluster.workers.worker import Worker
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Description, Failure


class Descriptions:
    """What is known of functions, by the fingerprint of their endpoint; kept on disk, so made once per fingerprint."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._folder = site.state / "descriptions"
        self._known: dict[str, Description] = {}

    def known(self) -> dict[str, Description]:
        """The descriptions of all functions described so far, by node id; another mapping once they changed."""
        return self._known

    def forget(self, endpoint: Endpoint) -> None:
        """Stop showing an endpoint that is served no more."""
        gone = {function.id for function in endpoint.functions}
        self._known = {name: known for name, known in self._known.items() if name not in gone}

    async def describe(self, endpoint: Endpoint, root: Path) -> Failure | None:
        """Describe an endpoint, whose files lie at `root`, unless that was done before; None, or why it failed.

        A failure stops nothing else.
        """
        found = _read(self._folder / f"{endpoint.fingerprint}.json")
        if found is None:
            found, failure = await _ask(endpoint, root, self._site)
            if failure is not None:
                self._emit(endpoint, failure=dict(failure))
                return failure
            _write(self._folder / f"{endpoint.fingerprint}.json", found)
        self._known = {**self._known, **found}
        for function_id, description in found.items():
            if error := description.get("error"):
                self._emit(endpoint, function=function_id, failure=dict(error))
        self._emit(endpoint, functions=sorted(found))
        return None

    def _emit(self, endpoint: Endpoint, **fields: object) -> None:
        self._site.emit(Event("described", endpoint.id, fields))


async def _ask(endpoint: Endpoint, root: Path, site: Site) -> tuple[dict[str, Description], Failure | None]:
    worker = Worker(f"d-{secrets.token_hex(4)}", endpoint, 0, site.clock.monotonic(), root=root)
    attempt = Launch(worker, site.clock, on_frame=lambda frame: None)
    try:
        failure = await launch(worker, site, attempt, describe=True)
    finally:
        if worker.process is not None:
            worker.process.kill()
    await attempt.ended()
    return cast("dict[str, Description]", attempt.described or {}), failure


def _read(path: Path) -> dict[str, Description] | None:
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, found: dict[str, Description]) -> None:
    if any("error" in description for description in found.values()):
        return
    with suppress(OSError):  # a full disk: what cannot be kept is described anew the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, json.dumps(found))
