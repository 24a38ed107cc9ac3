"""What each worker does before its first call, done in the process that workers are forked off: nothing of the user's.

What is imported late, evaluated once or adapted to how it is used lies ready in every worker then.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from flashfw import manifest
from flashfw.worker.encode import dumps
from flashfw.worker.failure import Failures, Redaction
from flashfw.worker.service import Service
from flashfw.worker.threads import Threads

ROUNDS = 3
_NOWHERE = Path("/nowhere")


def whole(input: Any) -> Any:
    """A job's function as many are."""
    return input


def named(prompt: str, steps: int | None = 20) -> dict[str, str]:
    """Another one."""
    return {"prompt": prompt * (steps or 1)}


async def post(body: dict[str, Any]) -> dict[str, Any]:
    """A function of HTTP."""
    return body


async def get(name: str = "", page: int = 1) -> str:
    """Another one."""
    return name * page


def rehearse() -> None:
    """Make endpoints of the functions above ready, as a worker does. It starts no thread and leaves nothing open."""
    loop = asyncio.new_event_loop()
    try:
        for _ in range(ROUNDS):
            for endpoint in (_job(), _http()):
                loop.run_until_complete(_ready(manifest.decode(manifest.Endpoint, manifest.encode(endpoint))))
    finally:
        loop.close()


async def _ready(endpoint: manifest.Endpoint) -> None:
    service = Service(endpoint, _NOWHERE, Threads(1), Failures(_NOWHERE, Redaction(())))
    service.load()
    await service.build()
    for job in service.jobs.values():
        dumps(job.target(**job.binder.bind(b'{"prompt": "a cat", "steps": 20}')))
    await service.close()


def _job() -> manifest.Endpoint:
    functions = [_function("job", name, "/job") for name in ("whole", "named")]
    return _endpoint("job", functions)


def _http() -> manifest.Endpoint:
    functions = [_function("http", name, "/web", method=name.upper()) for name in ("post", "get")]
    return _endpoint("http", functions)


def _function(kind: manifest.Kind, name: str, route: str, method: str = "") -> manifest.Function:
    return manifest.Function(
        id=f"{kind}::{name}",
        kind=kind,
        module=__name__,
        attribute=name,
        file="handler.py",
        line=1,
        route=route,
        method=method,
    )


def _endpoint(kind: manifest.Kind, functions: list[manifest.Function]) -> manifest.Endpoint:
    return manifest.Endpoint(
        id=kind,
        kind=kind,
        directory="endpoints",
        functions=tuple(functions),
        env=(manifest.Variable(name="NAME", value="value"),),
        python="3",
        fingerprint="",
    )
