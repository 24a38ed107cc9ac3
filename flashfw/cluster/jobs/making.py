"""A new job's record: its id, what its caller may ask for it, and the digest that tells one input from another."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass

from flashfw.cluster.jobs.model import Job, fresh
from flashfw.errors import FlashfwError
from flashfw.manifest import Function


class TooDeep(FlashfwError):
    """An input is nested too deeply."""


@dataclass(frozen=True, slots=True)
class Upload:
    """Files that came with a job: the id they lie under, the digest of an input that refers to them, their folder."""

    job_id: str
    digest: str
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller may ask for one job; None takes the function's own value."""

    timeout_s: float | None = None
    ttl_s: float | None = None
    priority: int = 0
    webhook: str | None = None
    idempotency_key: str | None = None
    principal: str = ""
    upload: Upload | None = None


DEFAULT_OPTIONS = Options()


def new_job(function: Function, endpoint: str, body: bytes, now: float, options: Options = DEFAULT_OPTIONS) -> Job:
    """The record of a new job; `body` is its input as JSON.

    Raises:
        TooDeep: as `input_digest`, which a job with an idempotency key needs.
    """
    key, upload = options.idempotency_key, options.upload
    return fresh(
        {
            "id": upload.job_id if upload else job_id(now),
            "function": function.id,
            "endpoint": endpoint,
            "input": body or b"{}",
            "submitted_at": now,
            "expires_at": now + (options.ttl_s if options.ttl_s is not None else function.ttl_s),
            "timeout_s": options.timeout_s if options.timeout_s is not None else function.timeout_s,
            "result_ttl_s": function.result_ttl_s,
            "priority": options.priority,
            "webhook": options.webhook,
            "idempotency_key": key,
            "principal": options.principal,
            "home": upload.home if upload else None,
            "input_digest": "" if key is None else upload.digest if upload else input_digest(body),
        }
    )


def input_digest(body: bytes) -> str:
    """A digest of an input that is the same however its keys are ordered and spaced, and for all ways to say nothing.

    Raises:
        TooDeep: it is nested so deeply that it cannot be written in another order.

    >>> input_digest(b'{"a": 1, "b": 2}') == input_digest(b'{"b":2,"a":1}')
    True
    """
    value = json.loads(body or b"{}")
    if value == {"__empty": True}:
        value = {}
    try:
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except RecursionError as error:
        raise TooDeep("it is nested too deeply") from error
    return hashlib.sha256(canonical.encode()).hexdigest()


_IDS_AT_ONCE = 64
_spare: list[str] = []


def _random() -> str:
    """Twenty random digits; of many ids at once, since to ask the system takes as long as all the rest of an id."""
    while True:
        try:
            return _spare.pop()
        except IndexError:
            digits = os.urandom(10 * _IDS_AT_ONCE).hex()
            _spare.extend(digits[at : at + 20] for at in range(0, len(digits), 20))


def job_id(now: float) -> str:
    """A new id: a UUID of version 7 (RFC 9562), so that ids grow with time and stores append to their index.

    >>> from uuid import UUID
    >>> UUID(job_id(1.5)).version
    7
    """
    random = _random()
    when = f"{int(now * 1000) & (1 << 48) - 1:012x}"
    # Written out, since this is done for each job: to make a UUID takes longer than all the rest.
    return f"{when[:8]}-{when[8:]}-7{random[:3]}-{'89ab'[int(random[3], 16) & 3]}{random[4:7]}-{random[7:19]}"
