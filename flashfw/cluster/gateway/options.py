"""What a caller asks for one job, by headers of a plain POST or fields of Runpod's API; all faults are told at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import Scope

from flashfw import durations
from flashfw.cluster.auth.keys import Principal
from flashfw.cluster.gateway.answers import Refused, refusal
from flashfw.cluster.gateway.bodies import header
from flashfw.cluster.gateway.guard import PRINCIPAL
from flashfw.cluster.jobs.making import DEFAULT_OPTIONS, Options
from flashfw.cluster.webhooks.addresses import check_url
from flashfw.errors import FlashfwError

TIMEOUT_S = (5.0, 7 * 86_400.0)
TTL_S = (10.0, 7 * 86_400.0)
PRIORITIES = {"low": -1, "normal": 0, "high": 1}
KEY_LENGTH = 255

IDEMPOTENCY_KEY = "Idempotency-Key"
TIMEOUT, TTL, PRIORITY, WEBHOOK = "Flashfw-Timeout", "Flashfw-Ttl", "Flashfw-Priority", "Flashfw-Webhook"

OPTION_HEADERS = {name.lower().encode(): name for name in (TIMEOUT, TTL, PRIORITY, WEBHOOK, IDEMPOTENCY_KEY)}


class _Wrong(Exception):
    """A value that an option does not take; the message comes after its name."""


def of_headers(scope: Scope, *, local_webhooks: bool) -> Options:
    """The options of a plain POST. With `local_webhooks` a webhook may be of this machine.

    Raises:
        Refused: 422 with every header that is wrong.
    """
    # Nearly every call has none, and this is on the way of each.
    given = {name: value for name, value in scope["headers"] if name in OPTION_HEADERS}
    principal = principal_of(scope)
    if not given:
        return Options(principal=principal) if principal else DEFAULT_OPTIONS
    faults: list[tuple[str, str]] = []
    read = _Reader(faults)
    texts = {name: _text(given[key]) if key in given else None for key, name in OPTION_HEADERS.items()}
    options = Options(
        timeout_s=read(TIMEOUT, lambda text: _duration(text, TIMEOUT_S, "5s to 7d"), texts[TIMEOUT]),
        ttl_s=read(TTL, lambda text: _duration(text, TTL_S, "10s to 7d"), texts[TTL]),
        priority=read(PRIORITY, _priority, texts[PRIORITY]) or 0,
        webhook=read(WEBHOOK, _webhook(local_webhooks), texts[WEBHOOK]),
        idempotency_key=read(IDEMPOTENCY_KEY, _key, texts[IDEMPOTENCY_KEY]),
        principal=principal,
    )
    if faults:
        raise _refused(422, "header", faults)
    return options


def of_request(scope: Scope, body: dict[str, Any], *, local_webhooks: bool) -> Options:
    """The options of a request to `/v2`: `webhook` and `policy` of its body, and the header with the idempotency key.

    Raises:
        Refused: 400 with every field that is wrong.
    """
    faults: list[tuple[str, str]] = []
    read = _Reader(faults)
    policy = read("policy", _policy, body.get("policy")) or {}
    key = header(scope, IDEMPOTENCY_KEY.lower().encode())
    most = 7 * 86_400_000
    options = Options(
        timeout_s=read(
            "policy.executionTimeout", lambda value: _milliseconds(value, 5_000, most), policy.get("executionTimeout")
        ),
        ttl_s=read("policy.ttl", lambda value: _milliseconds(value, 10_000, most), policy.get("ttl")),
        priority=read("policy.lowPriority", _low_priority, policy.get("lowPriority")) or 0,
        webhook=read("webhook", _webhook(local_webhooks), body.get("webhook")),
        idempotency_key=read(IDEMPOTENCY_KEY, _key, None if key is None else _text(key)),
        principal=principal_of(scope),
    )
    if faults:
        raise _refused(400, "body", faults)
    return options


def principal_of(scope: Scope) -> str:
    """The id of the key that a request came with; empty where it needed none."""
    principal: Principal | None = scope.get(PRINCIPAL)
    return "" if principal is None else principal.id


class _Reader:
    """Reads options one after the other and notes what is wrong with each. What is absent stays None."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        self._faults = faults

    def __call__(self, name: str, read: Any, value: Any) -> Any:
        if value is None:
            return None
        try:
            return read(value)
        except _Wrong as wrong:
            self._faults.append((name, str(wrong)))
            return None


def _refused(status: int, where: str, faults: Iterable[tuple[str, str]]) -> Refused:
    places = [(name, "header" if name == IDEMPOTENCY_KEY else where, text) for name, text in faults]
    errors = [{"loc": [place, *name.split(".")], "msg": text, "type": "option"} for name, place, text in places]
    return refusal(status, "validation", "; ".join(f"{name} {text}" for name, _, text in places), errors=errors)


def _text(value: bytes) -> str:
    """A header's value as its sender sees it: most send UTF-8."""
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _duration(text: str, limits: tuple[float, float], words: str) -> float:
    seconds = durations.parse(text, bare=True)
    if seconds is None:
        raise _Wrong(f'is {text!r}; it takes a duration such as "90s" or "10m", or a number of seconds')
    if not limits[0] <= seconds <= limits[1]:
        raise _Wrong(f"is {text!r}; it takes {words}")
    return seconds


def _milliseconds(value: Any, least: int, most: int) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not least <= value <= most:
        raise _Wrong(f"is {_shown(value)}; it takes milliseconds from {least} to {most}")
    return float(value) / 1000


def _priority(text: str) -> int:
    if text.lower() not in PRIORITIES:
        raise _Wrong(f"is {text!r}; it takes low, normal or high")
    return PRIORITIES[text.lower()]


def _low_priority(value: Any) -> int:
    if not isinstance(value, bool):
        raise _Wrong(f"is {_shown(value)}; it takes true or false")
    return PRIORITIES["low"] if value else PRIORITIES["normal"]


def _policy(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong("must be an object")
    return value


def _webhook(allow_loopback: bool) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise _Wrong(f"is {_shown(value)}; it takes a URL")
        try:
            check_url(value, allow_loopback=allow_loopback)
        except FlashfwError as error:
            raise _Wrong(f"is {value[:200]!r}: {error}") from error
        return value

    return read


def _key(text: str) -> str:
    if odd := [char for char in text if not (char.isascii() and char.isprintable())]:
        raise _Wrong(f"holds {odd[0]!r}; it takes 1 to {KEY_LENGTH} characters of printable ASCII")
    if not 0 < len(text) <= KEY_LENGTH:
        raise _Wrong(f"has {len(text)} characters; it takes 1 to {KEY_LENGTH} of printable ASCII")
    return text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
