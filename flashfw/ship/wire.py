"""The documents of a server's administration, read into records; what does not fit is told as another version's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from flashfw.bundle import release as releases
from flashfw.bundle.release import Release
from flashfw.errors import ManifestError, TargetError
from flashfw.ship.refusals import seconds
from flashfw.ship.target import Event, Failure, Host, Rollout, Shipped

Json = Any
Record = TypeVar("Record")


def read(url: str, parse: Callable[[Json], Record], document: Json) -> Record:
    """What `parse` makes of a document.

    Raises:
        TargetError: it is not as this flashfw knows it.
    """
    try:
        return parse(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{url} answers as another flashfw does: {type(error).__name__}: {error}"
        raise TargetError(what, hint="use the same flashfw on both sides") from error
    except ManifestError as error:
        raise TargetError(
            f"{url} serves a release that this flashfw cannot read: {error.what}", hint=error.hint
        ) from error


def host(value: Json) -> Host:
    return Host(
        flashfw=str(value["flashfw"]),
        api=int(value["api"]),
        project=value.get("project"),
        environment=value.get("environment"),
        pythons=tuple(map(str, value.get("python") or ())),
        platform=str(value.get("platform") or ""),
    )


def shipped(value: Json) -> Shipped:
    return Shipped(
        id=str(value["id"]),
        created=seconds(value.get("created")) or 0.0,
        by=str(value.get("by") or ""),
        state=str(value.get("state") or ""),
    )


def release(value: Json) -> Release:
    return releases.loads(json.dumps(value["release"]))


def rollout(value: Json) -> Rollout:
    return Rollout(
        number=int(value["number"]),
        release=str(value["release"]),
        by=str(value.get("by") or ""),
        state=value["state"],
        before=value.get("from"),
        started=seconds(value.get("started")),
        events=tuple(_event(found) for found in value.get("events") or ()),
        failure=_failure(value["failure"]) if value.get("failure") else None,
    )


def jobs(status: Json) -> dict[str, int]:
    """How many jobs wait or run, by function, from the document of `/_flashfw/status`."""
    queues = (queue for endpoint in status["endpoints"] for queue in endpoint.get("queues") or ())
    waiting = ("claimable", "parked", "low", "running")
    return {queue["function"]: sum(int(queue.get(name) or 0) for name in waiting) for queue in queues}


def _event(value: Json) -> Event:
    return Event(
        seq=int(value["seq"]),
        at=seconds(value.get("at")) or 0.0,
        text=str(value.get("text") or ""),
        endpoint=str(value.get("endpoint") or ""),
        step=str(value.get("step") or ""),
    )


def _failure(value: Json) -> Failure:
    return Failure(
        endpoint=str(value.get("endpoint") or ""),
        message=str(value.get("message") or ""),
        traceback=str(value.get("traceback") or ""),
        output=tuple(map(str, value.get("output") or ())),
    )
