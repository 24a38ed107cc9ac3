"""A server's job API as Python: call, spawn, watch and cancel by node id."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from flashfw.client import reaching
from flashfw.client.failures import (
    AmbiguousJobError,
    CallFailedError,
    StillRunningError,
    UnknownFunctionError,
    UnknownJobError,
    admin_refusal,
    decoded,
    error_of,
    refusal,
    stranger,
    unreachable,
)
from flashfw.client.files import body_of, is_reference, save
from flashfw.client.functions import ids, route, unknown
from flashfw.client.options import CallOptions, headers
from flashfw.client.sse import Event, parse
from flashfw.client.statuses import JobStatus, status_of
from flashfw.errors import FlashfwError, TargetError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack

Json = Any

TERMINAL = ("completed", "failed", "cancelled", "timed_out")
"""The events with which a job's story ends."""

WAIT_S = 90.0
"""How long one request waits for a job before the next one asks again."""

_SLACK_S = 30.0
"""How much longer than the wait it asked for a server may take before it counts as gone."""

_RECONNECT_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""How long to wait before each further try to go on with a story that had begun: a server may be starting anew."""

LEAST_PART = 6
"""How many characters of an id a part of it has at least."""

_WHOLE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Client:
    """Calls functions of one server. Lives as long as its connections; a context manager.

    `cafile` is a PEM file of authorities to trust beside those of the machine.

    >>> with Client("http://127.0.0.1:8888") as client:  # doctest: +SKIP
    ...     client.call("gpu_a100", {"prompt": "a cat"})
    {'picture': '...'}
    """

    def __init__(self, base_url: str, key: str | None = None, *, cafile: Path | None = None) -> None:
        self.url = base_url.rstrip("/")
        parsed = httpx.URL(self.url)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_SLACK_S, connect=5.0),
            # A proxy of the environment is for the world outside, and never knows the way to this machine.
            trust_env=parsed.host not in _LOOPBACK,
            verify=reaching.tls(self.url, cafile),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; jobs go on."""
        self._http.close()

    def call(
        self, function: str, input: Json = None, *, wait_s: float | None = None, **options: Unpack[CallOptions]
    ) -> Json:
        """The output of a job, once it is done; without `wait_s` as long as that takes.

        A file in it is a reference, for `download`.

        Raises:
            CallFailedError: the job ended otherwise.
            StillRunningError: it was not done after `wait_s`; it goes on.
            UnknownFunctionError: there is no such function.
            TargetError: the server cannot be reached, or refused.
        """
        # The header has whole seconds; what is left of the wait is spent on the job's story.
        first_s = int(WAIT_S if wait_s is None else min(wait_s, WAIT_S))
        until = None if wait_s is None else time.monotonic() + wait_s
        response = self._post(function, input, options, prefer=f"wait={first_s}", wait_s=first_s + _SLACK_S)
        if response.status_code != 202:
            return decoded(self.url, response)
        job = JobHandle(self, function, decoded(self.url, response, key="id")["id"])
        if until is None or wait_s is None:
            return job.result()
        try:
            return job.result(max(0.0, until - time.monotonic()))
        except StillRunningError:
            raise StillRunningError(function, job.id, wait_s) from None

    def download(self, reference: Mapping[str, Json], to: str | os.PathLike[str]) -> Path:
        """Save a file that an output refers to; its path, in the folder `to` under its own name.

        Raises:
            UsageError: it refers to no file of a job.
            TargetError: the server cannot be reached, or has it no more.
            OSError: it cannot be written.
        """
        if not is_reference(reference):
            raise UsageError(f"{reference!r:.200} refers to no file of a job")
        with self.streaming("GET", reference["$file"]) as response:
            if response.is_error:
                response.read()
                raise refusal(reference["$file"], self.url, response)
            return save(response, reference, to)

    def spawn(self, function: str, input: Json = None, **options: Unpack[CallOptions]) -> JobHandle:
        """Submit a job and return at once.

        Raises:
            UnknownFunctionError, TargetError: as `call`.
            CallFailedError: the input was refused at once.
        """
        response = self._post(function, input, options, prefer="respond-async", wait_s=_SLACK_S)
        return JobHandle(self, function, decoded(self.url, response, key="id")["id"])

    def job(self, job_id: str) -> JobHandle:
        """A job that was submitted before, by its id or by any part of 6 characters or more that no other id has.

        Raises:
            UnknownJobError: the server has no such job.
            AmbiguousJobError: several ids have that part.
        """
        record = self.find(job_id)
        return JobHandle(self, record["function"], record["id"])

    def find(self, part: str) -> dict[str, Json]:
        """The record of a job, by its id or a part of it, as `jobs` lists it.

        Raises:
            UnknownJobError, AmbiguousJobError: as `job`.
        """
        if len(part) < LEAST_PART:
            raise UnknownJobError(f"{part!r} is too short for a job's id", hint=f"give at least {LEAST_PART} of it")
        if _WHOLE_ID.fullmatch(part):  # any key may ask for a job by its id; to look for one takes an admin's
            whole: dict[str, Json] = self._admin(f"jobs/{part}")
            return whole
        found: list[dict[str, Json]] = self._admin("jobs", part=part, limit=5)["jobs"]
        exact = [record for record in found if record["id"] == part]
        if len(found) > 1 and not exact:
            raise AmbiguousJobError(part, [record["id"] for record in found])
        if not found:
            hint = "it was never there, or its result_ttl is over; `flashfw jobs list` shows what is there"
            raise UnknownJobError(f"{self.url} has no job {part!r}", hint=hint)
        return (exact or found)[0]

    def jobs(
        self, *, function: str | None = None, state: str | None = None, dead: bool = False, limit: int = 100
    ) -> list[dict[str, Json]]:
        """Records of jobs, newest first; with `dead` only those that failed after more than one attempt.

        Raises:
            UsageError: there is no such state, or no such function and no job of one; it names those that are there.
        """
        found: list[dict[str, Json]] = []
        before: str | None = None
        while len(found) < limit:
            most = min(limit - len(found), 1000)
            page = self._admin("jobs", function=function, state=state, dead=int(dead), before=before, limit=most)
            found += page["jobs"]
            if (before := page["before"]) is None:
                break
        return found

    def record(self, job_id: str) -> dict[str, Json]:
        """All that the server holds of a job, its input and output too."""
        found: dict[str, Json] = self._admin(f"jobs/{quote(self.find(job_id)['id'], safe='')}")
        return found

    def why(self, job_id: str) -> dict[str, Json]:
        """The story of a job: `summary`, and `moments` with `offset_s`, `what`, `text`, `took_s`, `details`.

        Raises:
            UnknownJobError, AmbiguousJobError: as `job`.
        """
        found: dict[str, Json] = self._admin(f"jobs/{quote(self.find(job_id)['id'], safe='')}/why")
        return found

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job, queued or running; one that has ended stays as it is."""
        return self.job(job_id).cancel()

    def retry(self, job_id: str) -> JobStatus:
        """Queue a job again that ended without completing."""
        return self.job(job_id).retry()

    def status(self) -> dict[str, Json]:
        """Endpoints of the server with their workers, queues and the autoscaler's reasons."""
        found: dict[str, Json] = self._admin("status")
        return found

    def health(self, function: str) -> dict[str, dict[str, int]]:
        """Jobs of a function and workers of its endpoint, counted by state."""
        found: dict[str, dict[str, int]] = self._json("GET", f"/v2{route(function)}/health", function)
        return found

    def openapi(self) -> dict[str, Json]:
        """The server's OpenAPI document."""
        response = self.request("GET", "/openapi.json")
        if response.is_error:
            raise stranger(self.url, response) if response.status_code == 404 else refusal("it", self.url, response)
        found: dict[str, Json] = decoded(self.url, response, key="openapi")
        return found

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One plain HTTP request to the server, with this client's key; options as httpx has them.

        Raises:
            TargetError: the server cannot be reached.
        """
        with self._reaching():
            return self._http.request(method, path, **options)

    @contextmanager
    def streaming(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """As `request`, with the body still to be read; it may take as long as it takes.

        Raises:
            TargetError: the server cannot be reached, or breaks off.
        """
        patient = {"timeout": httpx.Timeout(_SLACK_S, connect=5.0, read=None), **options}
        with self._reaching(), self._http.stream(method, path, **patient) as response:
            yield response

    @contextmanager
    def events(self, job_id: str, *, after: str = "", read_s: float = _SLACK_S) -> Iterator[Iterator[Event | None]]:
        """One connection to the story of a job, after the event of that id; None where the server shows it lives."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": after} if after else {})
        timeout = httpx.Timeout(_SLACK_S, connect=5.0, read=read_s)
        path = f"/_flashfw/jobs/{quote(job_id, safe='')}/events"
        with self._reaching(), self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.is_error:
                response.read()
                if response.status_code == 404:
                    raise UnknownJobError(f"{self.url} has no job {job_id!r}")
                raise refusal(f"job {job_id}", self.url, response)
            yield parse(response.iter_lines())

    def _post(self, function: str, input: Json, options: CallOptions, *, prefer: str, wait_s: float) -> httpx.Response:
        timeout = httpx.Timeout(wait_s, connect=5.0)
        named = {"prefer": prefer, "accept": "application/json", **headers(options)}
        with body_of(input, options.get("files")) as body:
            response = self.request("POST", route(function), headers=named, timeout=timeout, **body)
        if response.is_error:
            raise self._refused(function, response)
        return response

    def _admin(self, path: str, **filters: Json) -> dict[str, Json]:
        given = {name: value for name, value in filters.items() if value is not None and value != 0}
        response = self.request("GET", f"/_flashfw/{path}", params=given)
        if response.is_error:
            raise admin_refusal(path, self.url, response)
        found: dict[str, Json] = decoded(self.url, response)
        return found

    def _json(self, method: str, path: str, function: str) -> Json:
        response = self.request(method, path)
        if response.is_error:
            raise self._refused(function, response)
        return decoded(self.url, response)

    def _refused(self, function: str, response: httpx.Response) -> FlashfwError:
        error = refusal(function, self.url, response)
        if not isinstance(error, UnknownFunctionError):
            return error
        document = self.request("GET", "/openapi.json")
        return unknown(function, ids(decoded(self.url, document)), self.url) if document.is_success else error

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from error


class JobHandle:
    """One submitted job. Holds no connection of its own."""

    def __init__(self, client: Client, function: str, job_id: str) -> None:
        self.function = function
        self.id = job_id
        self._client = client

    def status(self) -> JobStatus:
        """The job as it is now."""
        return self._ask("GET", "status")

    def cancel(self) -> JobStatus:
        """Cancel it, queued or running; a job that has ended stays as it is."""
        return self._ask("POST", "cancel")

    def retry(self) -> JobStatus:
        """Queue it again, if it ended without completing: with its input, a fresh time to live, attempts from zero.

        Raises:
            TargetError: it completed, or has not ended.
        """
        return self._ask("POST", "retry")

    def progress(self) -> Json:
        """The latest progress of a running job; None if it has told none, waits or has ended."""
        status = self.status()
        return status.output if status.status == "IN_PROGRESS" else None

    def why(self) -> dict[str, Json]:
        """Its story, as `Client.why`."""
        return self._client.why(self.id)

    def result(self, timeout_s: float | None = None) -> Json:
        """Its output, waiting for it as long as that takes, or for `timeout_s`.

        Raises:
            CallFailedError: it ended otherwise.
            StillRunningError: it was not done after `timeout_s`.
            TargetError: the server cannot be reached.
        """
        for event in self.events(timeout_s=timeout_s):
            if event.name in TERMINAL:
                return self.outcome(event)
        raise TargetError(f"{self._client.url} ended the story of job {self.id} before the job")

    def stream(self, timeout_s: float | None = None) -> Iterator[Json]:
        """What the job yields, as it yields it.

        After an attempt that broke off the items begin anew; `events` has a `restart` there.

        Raises:
            CallFailedError: the job ended otherwise than completed; after its last item.
        """
        for event in self.events(timeout_s=timeout_s):
            if event.name == "chunk":
                yield event.data["output"]
            elif event.name in TERMINAL:
                self.outcome(event)

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """The job's story from its beginning to its end, over as many connections as it takes.

        A connection that breaks is made anew, and the story goes on after the last event that came.

        Raises:
            StillRunningError: it did not end within `timeout_s`.
            TargetError: the server cannot be reached.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        after, ended, tries = "", False, 0
        while not ended:
            seen = after
            try:
                for event in self._connection(after, until, timeout_s or 0.0):
                    after, ended = event.id or after, event.name in TERMINAL
                    yield event
            except TargetError:
                if not after or tries >= len(_RECONNECT_S) or (until is not None and time.monotonic() >= until):
                    raise
                time.sleep(_RECONNECT_S[tries])
                tries += 1
                continue
            if not ended and after == seen:
                raise TargetError(f"{self._client.url} ended the story of job {self.id} before the job")
            tries = 0

    def outcome(self, event: Event) -> Json:
        """The output that a last event carries.

        Raises:
            CallFailedError: the job did not complete.
        """
        if event.name == "completed":
            return event.data.get("output")
        error = error_of(event.data.get("error"))
        reason = event.data.get("reason") or error.get("reason") or event.name
        raise CallFailedError(self.function, {**error, "reason": reason}, job=self.id)

    def _connection(self, after: str, until: float | None, timeout_s: float) -> Iterator[Event]:
        """The events of one connection; it ends early if the connection breaks after an event came."""
        got = False
        try:
            with self._client.events(self.id, after=after, read_s=_left(until)) as events:
                for event in events:
                    if event is not None:
                        got = True
                        yield event
                    if until is not None and time.monotonic() >= until:
                        raise StillRunningError(self.function, self.id, timeout_s)
        except TargetError as error:
            if until is not None and time.monotonic() >= until:
                raise StillRunningError(self.function, self.id, timeout_s) from error
            if not got:
                raise

    def _ask(self, method: str, verb: str) -> JobStatus:
        path = f"/v2{route(self.function)}/{verb}/{quote(self.id, safe='')}"
        response = self._client.request(method, path)
        if response.status_code == 404:
            raise UnknownJobError(f"{self._client.url} has no job {self.id!r} of {self.function}")
        if response.is_error:
            raise refusal(self.function, self._client.url, response)
        return status_of(decoded(self._client.url, response, key="status"))


def _left(until: float | None) -> float:
    """How long to wait for the next line: the server sends one at least every few seconds."""
    return _SLACK_S if until is None else min(_SLACK_S, max(0.05, until - time.monotonic()))
