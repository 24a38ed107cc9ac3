"""The short way of a job that somebody calls and waits for, or submits: no task, no future for its caller, no timer.

The job itself misses nothing: it is kept before a worker has it, and ended before its caller hears of that. What cannot
be had this way is the application's from the beginning (options, files, a story, a queue) or from where that shows: an
end that is no plain output, a store that cannot keep it, a caller who waits for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Protocol

from starlette.types import Receive, Scope, Send

from flashfw.cluster.auth.keys import Principal
from flashfw.cluster.events import Emit, request
from flashfw.cluster.gateway.answers import JSON_TYPE, Refused
from flashfw.cluster.gateway.bodies import is_json, parse_json
from flashfw.cluster.gateway.downloads import output_file
from flashfw.cluster.gateway.intake import BegunJob, Intake, JobTarget
from flashfw.cluster.gateway.options import OPTION_HEADERS
from flashfw.cluster.gateway.plain import accepted
from flashfw.cluster.jobs.answer import Answer
from flashfw.cluster.jobs.making import DEFAULT_OPTIONS, Options, new_job
from flashfw.cluster.jobs.model import Job, State
from flashfw.cluster.jobs.store import StoreError
from flashfw.cluster.listening.asked import Asked

ASYNC = b"respond-async"
_APART = {*OPTION_HEADERS, b"content-encoding"}
_JSON_TYPES = (None, JSON_TYPE[1])
_ACCEPTS_JSON = (None, b"*/*", b"application/json")
_LINES = b"content-type: application/json\r\n%bflashfw-job: %b\r\ncontent-length: %d\r\n"


class WaitOn(Protocol):
    """The application that answers for jobs that were begun already."""

    async def __call__(self, begun: BegunJob, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer this one."""
        ...


class Slow(Protocol):
    """What goes on with the application if it takes its time. `among` are those that are looked after with it."""

    among: set[Slow]

    def go_on(self) -> object:
        """Go on with the application."""
        ...


def is_plain_call(named: Mapping[bytes, bytes]) -> bool:
    """Whether the headers of a request ask for nothing but the output of a job, or for its id.

    >>> is_plain_call({b"content-type": b"application/json", b"accept": b"*/*"})
    True
    >>> is_plain_call({b"prefer": b"respond-async"}), is_plain_call({b"prefer": b"wait=10"})
    (True, False)
    >>> is_plain_call({b"idempotency-key": b"a"}), is_plain_call({b"accept": b"text/event-stream"})
    (False, False)
    """
    return (
        _APART.isdisjoint(named)
        and named.get(b"accept") in _ACCEPTS_JSON
        and named.get(b"prefer") in (None, ASYNC)
        and (named.get(b"content-type") in _JSON_TYPES or is_json(named[b"content-type"]))
    )


class ShortJobs:
    """Begins plain calls of jobs the short way. `wait_on` answers those that go on with the application."""

    def __init__(self, intake: Intake, *, emit: Emit, wait_on: WaitOn) -> None:
        self.intake = intake
        self.emit = emit
        self.wait_on = wait_on

    def begin(
        self, asked: Asked, target: JobTarget, principal: Principal, began: float, look_after: Callable[[Slow], None]
    ) -> bool:
        """Take a request for a job on; False where the application is to have it."""
        if not is_plain_call(asked.named) or self.intake.watch.is_dismissed:
            return False
        try:
            if asked.body:
                parse_json(asked.body)
            options = Options(principal=principal.id) if principal.id else DEFAULT_OPTIONS
            endpoint = target.dispatcher.endpoint.id
            job = new_job(target.function, endpoint, asked.body, self.intake.clock.now(), options)
            kept = target.dispatcher.submit_now(job)
        except (Refused, StoreError):  # the application meets it again, and says so
            return False
        if kept is None:
            return False
        call = ShortJob(self, asked, target, principal, began)
        call.begin(job.id, kept)
        look_after(call)
        return True


class ShortJob:
    """The caller of one such job, who is told of it. Lives until it has its answer or goes on with the application."""

    __slots__ = ("_asked", "_began", "_is_async", "_job_id", "_kept", "_principal", "_target", "_way", "among")
    follows = False

    def __init__(self, way: ShortJobs, asked: Asked, target: JobTarget, principal: Principal, began: float) -> None:
        self.among: set[Slow] = set()
        self._way = way
        self._asked: Asked | None = asked
        self._target = target
        self._principal = principal
        self._began = began
        self._is_async = asked.named.get(b"prefer") == ASYNC

    def begin(self, job_id: str, kept: asyncio.Future[Job] | Answer[Job]) -> None:
        """Wait for the job, which will be kept or not."""
        self._job_id = job_id
        self._kept = kept
        if not self._is_async:
            self._way.intake.watch.sit(job_id, self)
            self._target.dispatcher.callers.enter(job_id)
        kept.add_done_callback(self._on_kept)

    def ring(self, job: Job | None) -> None:
        """As `Reader.ring`."""
        if job is None or not job.state.is_terminal:
            return
        is_plain = job.state is State.COMPLETED and output_file(job) is None
        if not is_plain or not self._answer(200, b"", job.output or b"null"):
            self.go_on(job)

    def dismiss(self) -> None:
        """As `Reader.dismiss`."""
        self.go_on()

    def go_on(self, ended: Job | None = None) -> None:
        """As `Slow.go_on`; with `ended` if it has by now."""
        asked = self._leave()
        if asked is None:
            return
        seated = ExitStack()
        seat = seated.enter_context(self._way.intake.watch.seat(self._job_id))
        seated.enter_context(self._target.dispatcher.called(self._job_id))
        if ended is not None:
            seat.ring(ended)
        begun = BegunJob(self._target, self._principal, self._began, self._kept, self._is_async, seat, seated)
        asked.go_on(partial(self._way.wait_on, begun))

    def _on_kept(self, done: asyncio.Future[Job] | Answer[Job]) -> None:
        if done.cancelled() or done.exception() is not None:
            self.go_on()
        elif not self._is_async:
            self._target.dispatcher.refuse_in_vain()
        else:
            location, body = accepted(self._target, done.result())
            if not self._answer(202, b"location: %b\r\n" % location, body):
                self.go_on()

    def _answer(self, status: int, line: bytes, body: bytes) -> bool:
        asked = self._asked
        if asked is None:
            return True
        if not asked.answer(status, _LINES % (line, self._job_id.encode(), len(body)), body):
            return False
        self._leave()
        duration_s = time.perf_counter() - self._began
        self._way.emit(request(asked.method, asked.path, self._target.function.id, status, duration_s=duration_s))
        return True

    def _leave(self) -> Asked | None:
        """Hear no more of the job; the request that is still to be answered, None if that is done or others do it."""
        asked, self._asked = self._asked, None
        self.among.discard(self)
        if asked is not None and not self._is_async:
            self._way.intake.watch.leave(self._job_id, self)
            self._target.dispatcher.callers.leave(self._job_id)
        return asked
