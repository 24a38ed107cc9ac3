"""The logs of a server: nothing is lost or told twice between the files and those who follow."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.events import Event
from flashfw.cluster.logs import logs as module
from flashfw.cluster.logs.entries import lines
from flashfw.cluster.logs.files import Rotation
from flashfw.cluster.logs.logs import Logs, Seat
from flashfw.cluster.logs.reading import Query
from tests.cluster.administered import AdminBench, administering
from tests.cluster.bench import an_endpoint

pytestmark = pytest.mark.anyio

LOGS = "/_flashfw/logs"


def output(text: str, endpoint: str = "gpu", job: str | None = None) -> Event:
    return Event("output", endpoint, {"worker": "w-1", "job": job, "stream": "stdout", "text": text + "\n"})


@asynccontextmanager
async def logging(folder: Path, **options: Any) -> AsyncIterator[Logs]:
    logs = Logs(folder / "logs", ManualClock(), **options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(logs.run)
        yield logs
        tasks.cancel_scope.cancel()


async def texts(logs: Logs, *names: str, query: Query = Query(lines=100_000)) -> list[str]:  # noqa: B008 (frozen)
    with anyio.fail_after(30):
        return [json.loads(line)["text"] for line in await logs.read(names or ["gpu"], query)]


async def heard(seat: Seat) -> list[str]:
    with anyio.fail_after(30):
        return [json.loads(line)["text"] for entry in await seat.take() for line in lines(entry)]


async def test_what_was_told_is_read_at_once_and_after_a_restart(tmp_path: Path) -> None:
    async with logging(tmp_path) as logs:
        logs.take(output("one"))
        first = await logs.read(None, Query())
        assert [json.loads(line)["text"] for line in first] == ["one"], "though it has no file yet"
        logs.take(output("two"))
        logs.take(output("other", "api/users"))
        logs.take(Event("scale", "gpu", {}))

    async with logging(tmp_path) as logs:
        assert logs.endpoints() == ["api/users", "gpu"]
        assert await texts(logs) == ["one", "two"]
        assert sorted(await texts(logs, "gpu", "api/users")) == ["one", "other", "two"]
        assert await texts(logs, "nothing") == []


async def test_between_reading_and_following_nothing_is_lost_or_told_twice(tmp_path: Path) -> None:
    async with logging(tmp_path, rotation=Rotation(max_bytes=1500, files=100)) as logs:
        for number in range(50):
            logs.take(output(str(number)))
        with logs.seat(["gpu"]) as seat:
            found: list[str] = []

            async def read() -> None:
                found.extend(await texts(logs))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await anyio.lowlevel.checkpoint()
                for number in range(50, 100):
                    logs.take(output(str(number)))
                    logs.take(output("else", "other"))
            found += await heard(seat)

        assert found == [str(number) for number in range(100)]
        assert await texts(logs) == found, "over the files that were put aside"


async def test_a_reader_that_is_too_slow_is_told_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEAT_BYTES", 1000)
    async with logging(tmp_path) as logs:
        with logs.seat(None) as seat:
            for number in range(20):
                logs.take(output(str(number)))
            first = await heard(seat)
            logs.take(output("after"))

            assert first[:2] == ["0", "1"]
            assert first[-1] == f"{20 - len(first) + 1} lines of this log dropped: the reader is too slow"
            assert await heard(seat) == ["after"]
        assert len(await texts(logs)) == 21


async def test_what_the_disk_does_not_take_in_time_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 2000)
    logs = Logs(tmp_path / "logs", ManualClock())
    for number in range(100):  # while nobody writes
        logs.take(output(str(number)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(logs.run)
        await texts(logs)
        logs.take(output("after"))
        found = await texts(logs)
        tasks.cancel_scope.cancel()

    kept = [text for text in found if text.isdigit()]
    told = [text for text in found if "dropped" in text]
    assert kept == [str(number) for number in range(len(kept))]
    assert told == [f"{100 - len(kept)} lines of this log dropped: the disk is too slow"]
    assert found[-1] == "after"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_survived_and_told_once_there_is_room(tmp_path: Path) -> None:
    async with logging(tmp_path) as logs:
        logs.take(output("other", "other"))
        await texts(logs)
        path = tmp_path / "logs" / "gpu.jsonl"
        path.symlink_to("/dev/full")
        for text in ("one", "two"):
            logs.take(output(text))
            assert await texts(logs, "other") == ["other"]
        path.unlink()
        logs.take(output("three"))

        assert await texts(logs) == ["2 lines of this log dropped: No space left on device", "three"]


async def test_what_flashfw_says_of_workers_is_without_secrets(tmp_path: Path) -> None:
    async with logging(tmp_path, redact=lambda text: text.replace("hunter22", "[redacted]")) as logs:
        failure = {"type": "KeyError", "message": "hunter22"}
        logs.take(Event("start_failed", "gpu", {"worker": "w-1", "failure": failure}))

        assert await texts(logs) == ["did not start: KeyError: [redacted]"]


def documents(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines() if line]


async def get(bench: AdminBench, query: str = "") -> list[dict[str, Any]]:
    call = await bench.ask(bench.a_key("admin"), "GET", LOGS, query=query)
    with anyio.fail_after(30):
        await call.answer
    assert call.status == 200
    return documents(call.body)


async def test_pages_tell_what_workers_wrote_and_how_they_fared(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint("gpu", workers_min=1), an_endpoint("cpu")) as bench:
        bench.logs.take(output("hello", job="0123456789"))
        bench.logs.take(output("of another", "cpu"))

        found = await get(bench, "endpoint=gpu")
        assert [(line["stream"], line["text"]) for line in found] == [
            ("worker", "starting"),
            ("worker", "ready in 0.0 ms (import 100 ms, fixtures 0.0 ms)"),
            ("stdout", "hello"),
        ]
        assert [line["text"] for line in await get(bench, "job=456789")] == ["hello"]
        assert [line["text"] for line in await get(bench, "lines=1&endpoint=gpu")] == ["hello"]
        assert {line["endpoint"] for line in await get(bench)} == {"cpu", "gpu"}
        bench.clock.advance(100.0)
        bench.logs.take(output("late"))
        assert [line["text"] for line in await get(bench, "since=50")] == ["late"]
        last = (await get(bench, "lines=1"))[0]["at"]
        assert await get(bench, f"after={last!r}") == []


async def test_following_goes_on_until_the_reader_leaves_or_its_key_is_revoked(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint("gpu")) as bench:
        admin, other = bench.a_key("admin"), bench.a_key("admin")
        bench.logs.take(output("before"))
        follow = await bench.ask(admin, "GET", LOGS, query="follow=1&endpoint=gpu")
        cut = await bench.ask(other, "GET", LOGS, query="follow=1&endpoint=gpu&lines=0")
        await until(bench, lambda: b"before" in follow.body)
        bench.logs.take(output("after"))
        await until(bench, lambda: b"after" in follow.body and b"after" in cut.body)
        assert [line["text"] for line in documents(cut.body)] == ["after"]

        bench.keys.revoke(other[3:11])
        bench.logs.take(output("secret"))
        await until(bench, lambda: b"secret" in follow.body and cut.is_over)
        assert b"secret" not in cut.body
        assert [line["text"] for line in documents(follow.body)] == ["before", "after", "secret"]
        bench.clock.advance(20.0)
        await until(bench, lambda: follow.body.endswith(b'secret"}\n\n'))
        follow.leave()
        await until(bench, lambda: follow.is_over)
        assert bench.logs._seats == []
        assert bench.named("internal") == []


async def test_who_follows_does_not_hold_up_the_end_of_a_server(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint("gpu")) as bench:
        admin = bench.a_key("admin")
        bench.logs.take(output("before"))
        follow = await bench.ask(admin, "GET", LOGS, query="follow=1")
        await until(bench, lambda: follow.body.endswith(b"\n\n"))
        bench.logs.dismiss()
        late = await bench.ask(admin, "GET", LOGS, query="follow=1")
        await until(bench, lambda: follow.is_over and late.is_over)

        assert [line["text"] for line in documents(late.body)] == ["before"]
        assert bench.named("internal") == []


async def until(bench: AdminBench, holds: Any) -> None:
    with anyio.fail_after(30):
        while not holds():  # noqa: ASYNC110 (a thread is at it)
            await anyio.sleep(0.005)


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("endpoint=gpo", 404, "did you mean 'gpu'"),
        ("endpoint=../../etc/passwd", 404, "there is no log"),
        ("lines=x", 400, "lines is 'x'"),
        ("since=-1", 400, "since"),
        ("since=nan", 400, "since"),
        ("follow=maybe", 400, "follow"),
        ("job=123", 400, "6 or more"),
        ("tail=5", 400, "no parameter 'tail'"),
    ],
)
async def test_what_cannot_be_asked_is_said(tmp_path: Path, query: str, status: int, said: str) -> None:
    async with administering(tmp_path, an_endpoint("gpu")) as bench:
        call = await bench.ask(bench.a_key("admin"), "GET", LOGS, query=query)

        assert call.status == status
        assert said in call.error["message"]
        assert (await bench.ask(bench.a_key("call"), "GET", LOGS)).status == 403
