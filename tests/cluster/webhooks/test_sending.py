"""Webhooks over a real store and real sockets, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from standardwebhooks.webhooks import Webhook

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.events import Event
from flashfw.cluster.jobs.model import Claimer, End, Job, Reason, State
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.cluster.jobs.store import JobStore, StoreError, Tick
from flashfw.cluster.webhooks.sending import AT_ONCE, AT_ONCE_PER_HOST, BACKOFF_S, LEASE_S, Sending, Webhooks
from flashfw.cluster.webhooks.signing import new_secret
from tests.cluster.jobs.conformance import ROOM, a_job
from tests.receiver import DEADLINE_S, answers, closes, hangs, never_ends, receiving

pytestmark = pytest.mark.anyio
DONE = End(state=State.COMPLETED, output=b'{"n":2}')
SENDING = Sending(secret=new_secret(), allow_loopback=True, jitter=lambda: 1.0)


class Bench:
    """A store with jobs that end, and who sends what it holds."""

    def __init__(self, sending: Sending, store: JobStore | None = None) -> None:
        self.clock = ManualClock(time.time())
        self.store = store or SqliteStore(None, clock=self.clock)
        self.events: list[Event] = []
        self._news = asyncio.Event()
        self.webhooks = Webhooks(self.store, sending, clock=self.clock, emit=self.take)

    def take(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def ended(self, url: str, end: End = DONE, *, is_told: bool = True, **changes: Any) -> Job:
        """A job that ended, and of which the cluster tells if it `is_told`."""
        job = await self.store.submit(a_job(self.clock, webhook=url, **changes), max_queue=ROOM)
        (claimed,) = await self.store.claim({job.function}, Claimer(boot="b", worker="w"))
        finished = await self.store.finish(claimed.id, claimed.fence, end)
        assert finished is not None
        if is_told:
            self.webhooks.take(Event("job", job.endpoint, {"id": job.id, "webhook": url}))
        return finished

    async def advance(self, seconds: float) -> None:
        """Let time pass once everybody waits for it, and what is due then happen."""
        await self.settle()
        self.clock.advance(seconds)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
            await self.store.get("-")
            await self.store.set_tick("-", Tick(0.0, None))

    async def happened(self, name: str) -> None:
        """Return once there is such an event."""
        with anyio.fail_after(DEADLINE_S):
            while not any(event.name == name for event in self.events):
                self._news.clear()
                await self._news.wait()

    async def told(self, count: int) -> list[dict[str, Any]]:
        """The fields of the events, once there are so many."""
        with anyio.fail_after(DEADLINE_S):
            while len(found := [event.fields for event in self.events if event.name == "webhook"]) < count:
                self._news.clear()
                await self._news.wait()
        return found


@asynccontextmanager
async def sending(
    store: JobStore | None = None, clock: ManualClock | None = None, **changes: Any
) -> AsyncIterator[Bench]:
    bench = Bench(replace(SENDING, **changes), store)
    if clock is not None:
        bench.clock = bench.webhooks._clock = clock
    if store is None:
        await bench.store.open("b")
    task = asyncio.ensure_future(bench.webhooks.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.wait([task])
        if store is None:
            await bench.store.close()


async def test_the_end_of_a_job_is_told(tmp_path: Path) -> None:
    async with receiving() as receiver, sending() as bench:
        job = await bench.ended(receiver.url + "?token=1", input=b'{"n": 1}')
        (request,) = await receiver.got(1)
        (told,) = await bench.told(1)

    assert request.head == "POST /hook?token=1 HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert request.json() == {
        "id": job.id,
        "status": "COMPLETED",
        "workerId": "w",
        "delayTime": 0,
        "executionTime": 0,
        "output": {"n": 2},
        "input": {"n": 1},
        "webhook": receiver.url + "?token=1",
    }
    assert told == {"id": job.id, "url": receiver.url, "state": "delivered", "status": 204, "tries": 1}


async def test_so_is_one_that_failed() -> None:
    error = End(state=State.FAILED, reason=Reason.HANDLER_ERROR, error=b'{"type":"ValueError","message":"no"}')
    async with receiving() as receiver, sending() as bench:
        await bench.ended(receiver.url, error)
        (request,) = await receiver.got(1)

    assert (request.json()["status"], request.json()["reason"]) == ("FAILED", "handler_error")
    assert json.loads(request.json()["error"])["error_message"] == "no"


async def test_the_vendors_own_code_takes_the_signature() -> None:
    async with receiving() as receiver, sending() as bench:
        await bench.ended(receiver.url)
        (request,) = await receiver.got(1)

    signature = {name: value for name, value in request.headers.items() if name.startswith("webhook-")}
    assert Webhook(SENDING.secret).verify(request.body, signature) == request.json()
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(new_secret()).verify(request.body, signature)


async def test_after_a_failure_it_is_tried_again() -> None:
    async with receiving(answers(500, b"not\n now"), answers(200)) as receiver, sending() as bench:
        await bench.ended(receiver.url)
        (failed,) = await bench.told(1)
        await bench.advance(BACKOFF_S[0] - 0.1)
        assert len(receiver.requests) == 1
        await bench.advance(1.2)
        delivered = (await bench.told(2))[1]
        first, second = receiver.requests

    assert (failed["state"], failed["status"], failed["error"]) == ("failed", 500, "answered 500: not now")
    assert failed["retry_in_s"] == BACKOFF_S[0]
    assert (delivered["state"], delivered["tries"]) == ("delivered", 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-timestamp"] < second.headers["webhook-timestamp"]


async def test_it_is_given_up_in_the_end() -> None:
    async with receiving(answers(503)) as receiver, sending() as bench:
        job = await bench.ended(receiver.url)
        for tries, wait_s in enumerate(BACKOFF_S, 1):
            told = (await bench.told(tries))[-1]
            assert (told["state"], told["retry_in_s"], told["tries"]) == ("failed", wait_s, tries)
            await bench.advance(wait_s + 1.1)
        given_up = (await bench.told(len(BACKOFF_S) + 1))[-1]
        await bench.advance(86_400.0)
        assert await bench.store.deliveries(limit=10, lease_s=1.0) == []

    assert given_up == {
        "id": job.id,
        "url": receiver.url,
        "state": "given_up",
        "status": 503,
        "tries": len(BACKOFF_S) + 1,
        "error": "answered 503",
    }


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as inside, sending() as bench, receiving(answers(302, location=inside.url)) as receiver:
        await bench.ended(receiver.url)
        (told,) = await bench.told(1)

    assert told["error"] == f"answered 302 to {inside.url}: redirects are not followed"
    assert inside.requests == []


async def test_one_that_says_nothing_is_left_after_ten_seconds() -> None:
    async with receiving(hangs) as receiver, sending() as bench:
        await bench.ended(receiver.url)
        await receiver.got(1)
        await bench.advance(10.0)
        (told,) = await bench.told(1)
        await receiver.until(lambda: receiver.open == 1)  # its side of the connection is its own affair

    assert (told["state"], told["error"]) == ("failed", "no answer within 10 s")


async def test_one_that_hangs_up() -> None:
    async with receiving(closes) as receiver, sending() as bench:
        await bench.ended(receiver.url)
        (told,) = await bench.told(1)

    assert told["error"].startswith("cannot be reached: ")


async def test_nobody_is_there() -> None:
    async with receiving() as receiver:
        url = receiver.url
    async with sending() as bench:
        await bench.ended(url)
        (told,) = await bench.told(1)

    assert told["error"].startswith("cannot be reached: ")


async def test_an_answer_without_end_is_not_read_to_the_end() -> None:
    async with receiving(never_ends) as receiver, sending() as bench:
        await bench.ended(receiver.url)
        (told,) = await bench.told(1)
        await receiver.until(lambda: receiver.open == 0)

    assert told["error"] == f"answered 500: {'x' * 200}"


async def test_a_name_is_looked_up_once_and_keeps_its_place_in_the_request() -> None:
    asked: list[str] = []

    async def rebinds(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async with receiving() as receiver, sending(resolve=rebinds) as bench:
        await bench.ended(f"http://hooks.test:{receiver.port}/a")
        (request,) = await receiver.got(1)
        await bench.told(1)

    assert asked == ["hooks.test"]
    assert request.headers["host"] == f"hooks.test:{receiver.port}"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1", "0.0.0.0"])
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    async def inside(host: str, port: int) -> list[str]:
        return [address]

    async with receiving() as receiver, sending(resolve=inside, allow_loopback=False) as bench:
        await bench.ended(f"http://hooks.test:{receiver.port}/")
        (told,) = await bench.told(1)

    assert told["error"] == f"hooks.test is {address}: no address of the public internet"
    assert receiver.requests == []


async def test_the_address_that_is_allowed_is_taken() -> None:
    async def both(host: str, port: int) -> list[str]:
        return ["10.0.0.1", "127.0.0.1"]

    async with receiving() as receiver, sending(resolve=both) as bench:
        await bench.ended(f"http://hooks.test:{receiver.port}/")
        assert (await bench.told(1))[0]["state"] == "delivered"


async def test_a_name_that_nobody_knows() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    async with sending(resolve=unknown) as bench:
        await bench.ended("http://hooks.test/")
        (told,) = await bench.told(1)

    assert told["error"] == "cannot be reached: Name or service not known"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, for hooks.test alone."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    file = tmp_path_factory.mktemp("tls") / "pair.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hooks.test -addext subjectAltName=DNS:hooks.test"
    subprocess.run(
        ["openssl", *options.split(), "-keyout", f"{file}.key", "-out", str(file)], check=True, capture_output=True
    )
    file.write_text(file.read_text() + Path(f"{file}.key").read_text())
    return file


async def local(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.mark.parametrize(("name", "state"), [("hooks.test", "delivered"), ("other.test", "failed")])
async def test_tls_is_of_the_name_in_the_url(certificate: Path, name: str, state: str) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    verify = ssl.create_default_context(cafile=str(certificate))
    async with receiving(certificate=ours) as receiver, sending(resolve=local, verify=verify) as bench:
        await bench.ended(f"https://{name}:{receiver.port}/")
        (told,) = await bench.told(1)

    assert told["state"] == state


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    async with receiving(certificate=ours) as receiver, sending(resolve=local) as bench:
        await bench.ended(f"https://hooks.test:{receiver.port}/")
        (told,) = await bench.told(1)

    assert "CERTIFICATE_VERIFY_FAILED" in told["error"]


async def test_a_slow_receiver_holds_nobody_up() -> None:
    async with receiving(hangs) as slow, receiving() as quick, sending() as bench:
        for _ in range(40):
            await bench.ended(slow.url)
        await slow.got(AT_ONCE_PER_HOST)
        job = await bench.ended(quick.url)
        (told,) = await bench.told(1)

    assert (told["id"], told["state"]) == (job.id, "delivered")
    assert slow.most_open == AT_ONCE_PER_HOST


async def test_a_slow_receiver_with_many_holds_nobody_up() -> None:
    """More than are held at once: once it is known to be slow, what it is to be told makes room."""
    async with receiving(hangs) as slow, receiving() as quick, sending() as bench:
        for _ in range(300):
            await bench.ended(slow.url)
        await slow.got(AT_ONCE_PER_HOST)
        await bench.ended(quick.url)
        await bench.advance(10.0)
        await bench.told(AT_ONCE_PER_HOST)
        await quick.got(1)

    assert slow.most_open <= 2 * AT_ONCE_PER_HOST  # its side of those that were left may be open yet


async def test_one_that_waited_until_another_server_may_take_it_is_left_to_that(tmp_path: Path) -> None:
    once = [hangs] * AT_ONCE_PER_HOST
    busy = [receiving(*once, answers(204)) for _ in range(AT_ONCE // AT_ONCE_PER_HOST)]
    async with AsyncExitStack() as stack, receiving() as waits, sending(try_s=LEASE_S - 5.0) as bench:
        hosts = [await stack.enter_async_context(one) for one in busy]
        for host in hosts:
            for _ in range(AT_ONCE_PER_HOST):
                await bench.ended(host.url)
            await host.got(AT_ONCE_PER_HOST)
        await bench.ended(waits.url)
        await bench.advance(LEASE_S - 5.0)
        await bench.told(AT_ONCE)
        await bench.settle()
        assert waits.requests == []
        await bench.advance(5.1)
        await waits.got(1)


async def test_a_receiver_that_is_quick_again_is_told_of_all_at_once() -> None:
    async with receiving(answers(500), answers(204)) as receiver, sending() as bench:
        await bench.ended(receiver.url)
        await bench.told(1)
        await bench.advance(BACKOFF_S[0])
        await bench.told(2)
        for _ in range(4 * AT_ONCE_PER_HOST):
            await bench.ended(receiver.url, is_told=False)
        await bench.ended(receiver.url)
        await receiver.got(3 + 4 * AT_ONCE_PER_HOST)


async def test_many_are_sent_in_no_time() -> None:
    async with receiving() as receiver, sending() as bench:
        jobs = [await bench.ended(receiver.url) for _ in range(300)]
        requests = await receiver.got(300)
        await bench.told(300)

    assert {request.json()["id"] for request in requests} == {job.id for job in jobs}
    assert receiver.most_open <= AT_ONCE_PER_HOST + 1


async def test_a_server_that_ended_meanwhile_leaves_it_to_the_next() -> None:
    clock = ManualClock(time.time())
    store = SqliteStore(None, clock=clock)
    await store.open("b")
    async with receiving(hangs, answers(200)) as receiver:
        async with sending(store, clock) as bench:
            await bench.ended(receiver.url)
            await receiver.got(1)
        clock.advance(LEASE_S + 1.1)
        async with sending(store, clock) as bench:
            (told,) = await bench.told(1)
    await store.close()

    assert (told["state"], told["tries"]) == ("delivered", 1)
    assert receiver.requests[0].headers["webhook-id"] == receiver.requests[1].headers["webhook-id"]


async def test_two_servers_send_each_once() -> None:
    clock = ManualClock(time.time())
    store = SqliteStore(None, clock=clock)
    await store.open("b")
    async with receiving() as receiver, sending(store, clock) as one, sending(store, clock):
        for _ in range(20):
            await one.ended(receiver.url)
            await one.advance(1.1)
        await receiver.got(20)
        await one.settle()
        assert await store.deliveries(limit=100, lease_s=1.0) == []
    await store.close()

    assert len(receiver.requests) == 20
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 20


async def test_a_store_that_cannot_note_it_sends_it_once_more() -> None:
    clock = ManualClock(time.time())
    store = Forgetful(None, clock=clock)
    await store.open("b")
    async with receiving() as receiver, sending(store, clock) as bench:
        await bench.ended(receiver.url)
        await receiver.got(1)
        await bench.happened("store_failed")
        await bench.advance(LEASE_S + 1.1)
        await bench.told(1)
    await store.close()

    assert len(receiver.requests) == 2


class Forgetful(SqliteStore):
    """A store whose disk is full, once."""

    is_full = True

    async def delivered(self, delivery_id: str) -> None:
        if self.is_full:
            self.is_full = False
            raise StoreError("the disk is full")
        await super().delivered(delivery_id)
