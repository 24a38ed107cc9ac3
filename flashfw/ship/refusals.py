"""Answers of a server's administration that are no result, and connections that are none, to the errors that say so."""

from __future__ import annotations

from typing import Any

import httpx

from flashfw.client import reaching
from flashfw.client.failures import key_refused
from flashfw.errors import TargetError
from flashfw.project.settings import LOCAL
from flashfw.ship.target import BusyError, ConflictError, NoEntryError, RefusedError, UnansweredError

Json = Any


def unreachable(url: str, error: httpx.TransportError, *, environment: str = "") -> TargetError:
    """The error for a server that could not be asked, or whose answer did not come."""
    if trouble := reaching.tls_trouble(url, error):
        return TargetError(trouble[0], hint=trouble[1])
    text = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        hint = (
            "`flashfw ship local` starts it"
            if environment == LOCAL
            else "start it with `flashfw serve`, or mend the url"
        )
        return TargetError(f"no server answers at {url}: {text}", hint=hint)
    if isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError):
        return TargetError(f"{url} cannot be asked: {text}")
    return UnansweredError(f"the connection to {url} broke: {text}", hint=reaching.in_clear(url, error))


def refused(url: str, response: httpx.Response, *, environment: str = "ENV") -> TargetError:
    """The error that an answer with an error status stands for."""
    error = _error(response)
    said = str(error.get("message") or response.text.strip()[:200] or response.reason_phrase)
    status, reason = response.status_code, error.get("reason")
    if status in (401, 403):
        hint = f"keep an admin's: flashfw key save {environment}; `flashfw key create ENV NAME --scope admin` makes one"
        return NoEntryError(key_refused(url, response, said), hint=hint)
    if status == 409 and reason == "conflict":
        return ConflictError(
            said, current=error.get("current"), by=str(error.get("by") or ""), created=seconds(error.get("created"))
        )
    if status == 409 and reason == "busy":
        return BusyError(
            said,
            rollout=error.get("rollout"),
            release=error.get("release"),
            by=str(error.get("by") or ""),
            since=seconds(error.get("since")),
        )
    if status == 503 and reason == "draining":  # the next one answers
        return UnansweredError(f"{url} is about to end, or to start anew")
    if status == 507:
        return RefusedError(f"{url} cannot keep it: {said}", hint="nothing changed")
    if not error or status == 404 and reason is None or 300 <= status < 400:
        return stranger(url, response)
    hint = f"flashfw secret set {environment} NAME" if reason == "secrets" else _HINTS.get(str(reason), "")
    return RefusedError(f"{url} refused: {_with_names(said, error)}", hint=hint)


def stranger(url: str, response: httpx.Response) -> TargetError:
    """The error for a server that answers, and not as one of flashfw does that takes releases."""
    what = f"{url} takes no releases: {response.request.url.path} answered {response.status_code}"
    return TargetError(
        f"{what} {response.reason_phrase}", hint="it is no `flashfw serve`, or one older than this flashfw"
    )


def seconds(value: Json) -> float | None:
    """A time of the wire, in seconds since the epoch; None for what is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


_HINTS = {
    "removes": "what would go is not what was agreed to: ship again",
    "layers": "ship again: what is missing is sent then",
}


def _with_names(said: str, error: dict[str, Json]) -> str:
    """The message with the names that come beside it and that it does not hold."""
    names = [name for key in ("secrets", "removes") for name in error.get(key) or () if str(name) not in said]
    return f"{said} ({', '.join(map(str, names))})" if names else said


def _error(response: httpx.Response) -> dict[str, Json]:
    try:
        body = response.json()
    except ValueError:
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}
