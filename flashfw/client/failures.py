"""Answers of a server that are no result, to the errors that say so."""

from __future__ import annotations

import json
from typing import Any

import httpx

from flashfw.client import reaching
from flashfw.errors import Exit, FlashfwError, JobFailedError, KeyRefusedError, TargetError, UsageError

Json = Any

_WORDS = {
    "validation": "the input does not fit",
    "handler_error": "the handler raised",
    "worker_lost": "the worker was lost",
    "oom": "the worker ran out of memory",
    "timeout": "it ran out of time",
    "expired": "it waited longer than its time to live",
    "cancelled": "it was cancelled",
    "encode": "the result cannot be JSON",
    "too_large": "the result is too large",
    "startup": "no worker could start",
    "function_gone": "the function is gone",
}
"""The reasons that speak of the job; any other refusal speaks of the server."""


_OF_KEYS = ("unauthorized", "forbidden")
"""The reasons of a refusal that another key does not meet with."""


class CallFailedError(JobFailedError):
    """A job that ended in another state than COMPLETED, as its server tells it.

    `reason` is one of the reasons of a job's life (`handler_error`, `timeout` ...), `type`, `message` and
    `traceback` are those of the handler's error, `errors` name the fields of an input that does not fit. `status` is
    that of an `HTTPError`, None for any other error.
    """

    def __init__(self, function: str, error: dict[str, Json], *, job: str = "") -> None:
        self.function = function
        self.job = job
        self.reason = str(error.get("reason") or "")
        self.type = str(error.get("type") or "")
        self.message = str(error.get("message") or "")
        self.traceback = str(error.get("traceback") or "")
        self.errors: list[dict[str, Json]] = error.get("errors") or []
        self.status: int | None = error["status"] if isinstance(error.get("status"), int) else None
        super().__init__(self._sentence())

    @property
    def is_refusal(self) -> bool:
        """Whether the handler refused the call on purpose, by an `HTTPError` of 400 to 499; where it did is no news."""
        return self.reason == "handler_error" and self.status is not None and 400 <= self.status < 500

    def _sentence(self) -> str:
        name = f"{self.function} (job {self.job})" if self.job else self.function
        if self.is_refusal:
            return f"{name}: {self.message or self.status}"
        said = f"{self.type}: {self.message}" if self.type and self.message else self.message or self.type
        fields = "; ".join(f"{_path(item.get('loc', ()))}: {item.get('msg', '')}" for item in self.errors)
        words = _WORDS.get(self.reason, self.reason)
        detail = (fields or said) if self.reason == "validation" else said
        parts = [part for part in (words, detail) if part]
        return f"{name}: {': '.join(parts) or 'it failed'}"


class StillRunningError(FlashfwError):
    """The wait ended before the job did; the job goes on."""

    exit = Exit.FAILED

    def __init__(self, function: str, job: str, waited_s: float) -> None:
        self.function = function
        self.job = job
        super().__init__(
            f"{function} (job {job}) is not done after {waited_s:g} s", hint="it goes on; ask for it again"
        )


class UnknownFunctionError(FlashfwError):
    """The server has no function of that id."""

    exit = Exit.NOTHING


class UnknownJobError(FlashfwError):
    """The server has no job of that id, or not of that function."""

    exit = Exit.NOTHING


class StrangerError(TargetError):
    """Another server answers at that address, none of flashfw's."""


class AmbiguousJobError(FlashfwError):
    """A part of an id that several jobs have in theirs."""

    exit = Exit.USAGE

    def __init__(self, part: str, ids: list[str]) -> None:
        super().__init__(
            f"{part!r} is a part of several ids: {', '.join(ids)}", hint="give more of it; ids differ at their ends"
        )
        self.ids = ids


def unreachable(url: str, error: httpx.HTTPError) -> TargetError:
    """The error for a server that does not answer."""
    if trouble := reaching.tls_trouble(url, error):
        return TargetError(trouble[0], hint=trouble[1])
    hint = reaching.in_clear(url, error) or "is `flashfw dev`, or on a server `flashfw serve`, running there?"
    return TargetError(f"no answer from {url}: {str(error) or type(error).__name__}", hint=hint)


def refusal(function: str, url: str, response: httpx.Response) -> FlashfwError:
    """The error that a response with an error status stands for."""
    body = _json(response)
    error = error_of(body.get("error")) if isinstance(body, dict) else {}
    job = str(body.get("id") or "") if isinstance(body, dict) else ""
    if _is_of_options(error):
        return UsageError(f"{function}: {error['message']}")
    if error.get("reason") in _WORDS and response.status_code != 413:  # that is the input, not the result
        return CallFailedError(function, error, job=job)
    said = error.get("message") or (response.text.strip()[:200] if body is None else "") or response.reason_phrase
    if response.status_code in (401, 403):
        keep = f"keep one that does: flashfw key save --url {url}"
        return KeyRefusedError(key_refused(url, response, said), hint=keep if error.get("reason") in _OF_KEYS else "")
    if response.status_code == 404:
        return UnknownFunctionError(f"{url} has no function {function!r}")
    again = response.headers.get("retry-after")
    hint = f"try again in {again} s" if again else ""
    return TargetError(f"{url} answered {response.status_code} for {function}: {said}", hint=hint)


def key_refused(url: str, response: httpx.Response, said: str) -> str:
    """What to say where a server lets nobody in, or not this one: that there was no key is known here, too."""
    if response.status_code == 401 and "authorization" not in response.request.headers:
        return f"{url} wants a key, and none is kept for it"
    return f"{url} refused the key: {said}"


def admin_refusal(path: str, url: str, response: httpx.Response) -> FlashfwError:
    """The error that an answer of the server's own pages stands for; those of a job are `jobs/ID...`."""
    job = path.split("/")[1:2]
    if response.status_code == 400 and (said := error_of(decoded(url, response).get("error")).get("message")):
        return UsageError(said)
    if response.status_code != 404:
        return refusal(path, url, response)
    return UnknownJobError(f"{url} has no job {job[0]!r} any more") if job else stranger(url, response)


def stranger(url: str, response: httpx.Response) -> StrangerError:
    """The error for a server that answers, and not as one of flashfw does."""
    path = response.request.url.path
    what = f"{url} is no flashfw server: {path} answered {response.status_code} {response.reason_phrase}"
    return StrangerError(what, hint="give the address alone, as `flashfw dev` prints it: http://127.0.0.1:8888")


def decoded(url: str, response: httpx.Response, *, key: str = "") -> Json:
    """The JSON of an answer; with `key` an object that has it.

    Raises:
        TargetError: it is none, so that another server answers.
    """
    body = _json(response)
    if body is None and response.content.strip() != b"null" or key and (not isinstance(body, dict) or key not in body):
        raise stranger(url, response)
    return body


def error_of(value: Json) -> dict[str, Json]:
    """An error as the wire has it, in its full form: an object, a text, or an object as a text.

    >>> error_of("no luck"), error_of('{"error_type": "ValueError", "error_message": "x"}')
    ({'message': 'no luck'}, {'type': 'ValueError', 'message': 'x'})
    """
    if isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            inner = None
        if not isinstance(inner, dict):
            return {"message": value}
        value = inner
    if not isinstance(value, dict):
        return {}
    # Runpod's workers put the error of a handler under longer names.
    return {key.removeprefix("error_"): item for key, item in value.items()}


def _is_of_options(error: dict[str, Json]) -> bool:
    """Whether what was refused are options of the call, and not its input."""
    errors = error.get("errors") or []
    return bool(errors) and all(isinstance(item, dict) and item.get("type") == "option" for item in errors)


def _json(response: httpx.Response) -> Json:
    try:
        return response.json()
    except ValueError:
        return None


def _path(location: Json) -> str:
    return ".".join(str(part) for part in location) if isinstance(location, (list, tuple)) else str(location)
