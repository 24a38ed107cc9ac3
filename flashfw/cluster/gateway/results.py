"""What the id of a job opens without a key: the result of a function that anybody may call, for who called it.

Ids are unguessable, and only the caller is told one. It reads how the job stands and its output, and files of that,
nothing else: neither what was sent, nor the job's story, and it changes nothing.
"""

from __future__ import annotations

from starlette.types import Scope

from flashfw.cluster.gateway.intake import JobTarget
from flashfw.cluster.gateway.routes import Routes, route_of
from flashfw.cluster.jobs.store import JobStore
from flashfw.worker import files

READS = ("status", "status-sync", "stream")


async def is_open(scope: Scope, routes: Routes, store: JobStore) -> bool:
    """Whether a request for one of the server's own pages reads a result of a `public` function.

    Raises:
        StoreError: whose job it is cannot be told.
    """
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    path: str = scope["path"]
    if path.startswith("/v2/"):  # that the job is one of this function's, whoever answers looks at
        route, _, verb = path.removeprefix("/v2").rpartition("/")[0].rpartition("/")
        return verb in READS and _is_public(routes.jobs.get(route))
    place = files.parse_url(path)
    if place is None or not place[1].startswith(files.OF_RESULTS):
        return False
    job = await store.peek(place[0])
    return job is not None and _is_public(routes.jobs.get(route_of(job.function)))


def _is_public(target: JobTarget | None) -> bool:
    return target is not None and target.function.public
