"""What a caller may ask for one job, as keyword arguments, and as the headers that carry it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypedDict

from flashfw.client.files import Files
from flashfw.errors import UsageError

PRIORITIES = ("low", "normal", "high")


class CallOptions(TypedDict, total=False):
    """What a caller may ask for one job; what is absent is as the function's configuration says.

    `timeout_s` is for one attempt (5 s to 7 d), `ttl_s` for the wait in the queue (10 s to 7 d). `priority` is `"low"`,
    `"normal"` or `"high"`. `webhook` is the URL that is told of the job's end. Calls with one `idempotency_key` and the
    same input are one job. `files` are paths by the parameters that take files.
    """

    timeout_s: float
    ttl_s: float
    priority: str
    webhook: str
    idempotency_key: str
    files: Files


def headers(options: CallOptions) -> dict[str, str]:
    """The headers that carry these options; None counts as absent.

    >>> headers({"timeout_s": 30, "priority": "low"})
    {'flashfw-timeout': '30', 'flashfw-priority': 'low'}

    Raises:
        UsageError: a value is of a kind that no server takes.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if name != "files"}
    for name in given.keys() - _HEADERS.keys():
        raise UsageError(f"there is no option {name!r}", hint=f"it can be {', '.join(_HEADERS)}")
    return {_HEADERS[name][0]: _HEADERS[name][1](name, value) for name, value in given.items() if value is not None}


def _seconds(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise UsageError(f"{name} is {value!r}", hint="it takes a number of seconds")
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _priority(name: str, value: Any) -> str:
    if value not in PRIORITIES:
        raise UsageError(f"{name} is {value!r}", hint=f"it takes {', '.join(PRIORITIES)}")
    return str(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value.strip():
        raise UsageError(f"{name} is {value!r}", hint="it takes printable ASCII characters")
    return value


_HEADERS: dict[str, tuple[str, Callable[[str, Any], str]]] = {
    "timeout_s": ("flashfw-timeout", _seconds),
    "ttl_s": ("flashfw-ttl", _seconds),
    "priority": ("flashfw-priority", _priority),
    "webhook": ("flashfw-webhook", _text),
    "idempotency_key": ("idempotency-key", _text),
}
