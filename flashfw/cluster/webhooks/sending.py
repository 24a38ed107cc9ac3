"""Tells the ends of jobs to the URLs that their callers gave: at least once each, signed, tried again for hours."""

from __future__ import annotations

import json
import random
import ssl
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import httpcore
from anyio.abc import TaskGroup

import flashfw
from flashfw.cluster.clock import Clock, limit
from flashfw.cluster.events import Emit, Event, internal, store_failed
from flashfw.cluster.jobs.model import Job
from flashfw.cluster.jobs.records import status_record, stored
from flashfw.cluster.jobs.store import Delivery, JobStore, StoreError
from flashfw.cluster.webhooks import posting, signing

TRY_S = 10.0
BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0)
"""Waits after the first failure, the second and so on; after the last one a delivery is given up."""

AT_ONCE = 16
AT_ONCE_PER_HOST = 4
SLOW_S = 2.0
"""A receiver that takes longer, or fails, is slow: while it is, no more of its deliveries are taken than run."""

LEASE_S = 30.0
POLL_S = 1.0
BITE = 64
MOST_HELD = 256
MOST_HOSTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Sending:
    """How a server sends webhooks: the secret that signs them, and whether they may go to this machine.

    `verify` decides which certificates are good, those of the public internet if it is None.
    """

    secret: str
    allow_loopback: bool = False
    resolve: posting.Resolve = posting.resolve
    verify: ssl.SSLContext | None = None
    try_s: float = TRY_S
    jitter: Callable[[], float] = lambda: random.uniform(1.0, 1.2)


@dataclass(frozen=True, slots=True)
class _Held:
    """A delivery that is this server's until the lease ends."""

    delivery: Delivery
    host: str
    until: float


class Webhooks:
    """Sends what the store's outbox holds. Servers on one store share the work; `take` is an `Emit`."""

    def __init__(self, store: JobStore, sending: Sending, *, clock: Clock, emit: Emit) -> None:
        self._store = store
        self._sending = sending
        self._clock = clock
        self._emit = emit
        self._held: deque[_Held] = deque()
        self._running: Counter[str] = Counter()
        self._slow: set[str] = set()
        self._may_be_more = True
        self._woken = anyio.Event()

    def take(self, event: Event) -> None:
        """A job that ended may be one to tell of."""
        if event.name == "job" and event.fields.get("webhook"):
            self._wake(may_be_more=True)

    async def run(self) -> None:
        """Send, until cancelled. What is under way then is sent again by the next server."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._woken = anyio.Event()
                self._start(tasks)  # what is left to its lease makes room
                await self._fetch()
                self._start(tasks)
                with limit(self._clock, POLL_S) as waiting:
                    await self._woken.wait()
                self._may_be_more |= waiting.cancelled_caught

    def _wake(self, *, may_be_more: bool = False) -> None:
        self._may_be_more |= may_be_more
        self._woken.set()

    async def _fetch(self) -> None:
        """Take what is due. What a slow receiver is to be told comes again when its lease ends, after the others'."""
        while self._may_be_more and len(self._held) < MOST_HELD:
            until = self._clock.now() + LEASE_S
            try:
                found = await self._store.deliveries(limit=BITE, lease_s=LEASE_S)
            except StoreError as error:
                self._emit(store_failed(error))
                found = []
            except Exception as error:  # the supervisor goes on, whatever one round met
                self._emit(internal("looking for webhooks to send", error))
                found = []
            for delivery in found:
                held = _Held(delivery, urlsplit(delivery.job.webhook or "").netloc.lower(), until)
                if held.host not in self._slow or self._taken(held.host) < AT_ONCE_PER_HOST:
                    self._held.append(held)
            self._may_be_more = len(found) == BITE

    def _taken(self, host: str) -> int:
        return self._running[host] + sum(held.host == host for held in self._held)

    def _start(self, tasks: TaskGroup) -> None:
        """Begin what may begin. What a slow receiver must wait for, or has waited too long, is left to its lease."""
        now = self._clock.now()
        for _ in range(len(self._held)):
            held = self._held.popleft()
            if held.until - now < self._sending.try_s:
                self._may_be_more = True
            elif self._running.total() < AT_ONCE and self._running[held.host] < AT_ONCE_PER_HOST:
                self._running[held.host] += 1
                tasks.start_soon(self._send, held)
            elif held.host not in self._slow:
                self._held.append(held)

    async def _send(self, held: _Held) -> None:
        try:
            await self._try(held)
        except StoreError as error:  # it is sent once more, when its lease ends
            self._emit(store_failed(error, held.delivery.job.endpoint))
        except Exception as error:  # the supervisor goes on, whatever one delivery met
            self._emit(internal("sending a webhook", error, held.delivery.job.endpoint))
        finally:
            self._running[held.host] -= 1
            if not self._running[held.host]:
                del self._running[held.host]
            self._wake()

    async def _try(self, held: _Held) -> None:
        begun = self._clock.monotonic()
        status, error = await self._post(held.delivery)
        if len(self._slow) >= MOST_HOSTS:
            self._slow.clear()
        is_slow = error is not None or self._clock.monotonic() - begun > SLOW_S
        (self._slow.add if is_slow else self._slow.discard)(held.host)
        tries = held.delivery.tries + 1
        if error is None:
            await self._store.delivered(held.delivery.id)
            self._tell(held.delivery, "delivered", status=status, tries=tries)
        else:
            await self._failed(held.delivery, error, status=status, tries=tries)

    async def _failed(self, delivery: Delivery, error: str, *, status: int | None, tries: int) -> None:
        if tries > len(BACKOFF_S):
            await self._store.undelivered(delivery.id, error=error, retry_at=None)
            self._tell(delivery, "given_up", status=status, tries=tries, error=error)
            return
        wait_s = BACKOFF_S[tries - 1] * self._sending.jitter()
        await self._store.undelivered(delivery.id, error=error, retry_at=self._clock.now() + wait_s)
        self._tell(delivery, "failed", status=status, tries=tries, error=error, retry_in_s=round(wait_s, 1))

    async def _post(self, delivery: Delivery) -> tuple[int | None, str | None]:
        """One try: the status, if there was one, and what was wrong, or None if nothing was."""
        try:
            with limit(self._clock, self._sending.try_s):
                answer = await self._answer(delivery)
                return answer.status, _wrong(answer)
        except posting.AddressRefused as error:
            return None, str(error)
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            return None, f"cannot be reached: {error or type(error).__name__}"
        except Exception as error:  # a URL or a record that nobody thought of must not be tried for ever
            self._emit(internal("sending a webhook", error, delivery.job.endpoint))
            return None, f"cannot be sent: {type(error).__name__}: {error}"
        return None, f"no answer within {self._sending.try_s:g} s"

    async def _answer(self, delivery: Delivery) -> posting.Answer:
        body, sending = payload(delivery.job), self._sending
        headers = {
            "content-type": "application/json",
            "user-agent": f"flashfw/{flashfw.__version__}",
            **signing.headers(sending.secret, message=f"msg_{delivery.id}", at=self._clock.now(), body=body),
        }
        return await posting.post(
            delivery.job.webhook or "",
            body,
            headers,
            allow_loopback=sending.allow_loopback,
            resolve=sending.resolve,
            verify=sending.verify,
        )

    def _tell(self, delivery: Delivery, state: str, **fields: object) -> None:
        shown = urlsplit(delivery.job.webhook or "")._replace(query="", fragment="").geturl()
        self._emit(
            Event("webhook", delivery.job.endpoint, {"id": delivery.job.id, "url": shown, "state": state, **fields})
        )


def payload(job: Job) -> bytes:
    """What a webhook is told: the job's record as `status` answers it, its input, and the webhook itself."""
    told = {**status_record(job), "input": stored(job.input), "webhook": job.webhook}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _wrong(answer: posting.Answer) -> str | None:
    if 200 <= answer.status < 300:
        return None
    if 300 <= answer.status < 400:
        where = f" to {answer.location[:200]}" if answer.location else ""
        return f"answered {answer.status}{where}: redirects are not followed"
    text = " ".join(answer.text.split())[:200]
    return f"answered {answer.status}" + (f": {text}" if text else "")
