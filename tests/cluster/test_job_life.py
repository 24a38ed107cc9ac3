"""Retries, batches and deaths with several jobs in flight, with real workers behind a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.served import Served, ended, serving

pytestmark = pytest.mark.anyio

FILES = {
    "endpoints/flaky/endpoint.toml": "retries = {max = 2, backoff = '20ms', on = ['Busy']}\nworkers = 1\n",
    "endpoints/flaky/handler.py": """
        from collections.abc import Iterator

        from flashfw import Job

        class Busy(OSError): ...
        class VeryBusy(Busy): ...

        def handler(job: Job, good: int, error: str = "busy") -> Iterator[int]:
            yield job.attempt
            if job.attempt < good:
                raise {"busy": VeryBusy("come again"), "key": KeyError("no")}[error]
        """,
    "endpoints/sum/endpoint.toml": "batch = {max_size = 3, max_wait = '30s'}\nworkers = [1, 1]\n",
    "endpoints/sum/handler.py": """
        def handler(items: list[int]) -> list:
            return [ValueError("odd") if item % 2 else {"item": item, "of": len(items)} for item in items]
        """,
    "endpoints/poison/endpoint.toml": "concurrency = 3\nworkers = 1\n",
    "endpoints/poison/handler.py": """
        import os
        import threading
        import time
        from pathlib import Path

        from flashfw import Job

        def handler(job: Job, folder: str, name: str) -> str:
            there = Path(folder)
            (there / f"{name}-{time.monotonic_ns()}").write_text("")
            while len({path.name[0] for path in there.iterdir()}) < 3:
                time.sleep(0.005)
            if name == "c":
                os._exit(9)
            if job.attempt == 1:
                threading.Event().wait()  # until c takes them all along
            return name
        """,
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, dev_environ: dict[str, str]) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("shop"), FILES, environ=dev_environ) as served:
        yield served


@pytest.fixture
def served(server: Served) -> Served:
    """One server for all tests of this file but those that end it, with the events since the test began."""
    server.events.clear()
    return server


async def test_an_error_that_retries_name_is_tried_again_and_its_stream_begins_anew(served: Served) -> None:
    story = await served.post("/flaky", {"good": 3}, accept="text/event-stream")

    names = [line.removeprefix("event: ") for line in story.text.splitlines() if line.startswith("event: ")]
    assert names == ["queued", "started", "chunk", "restart", "chunk", "restart", "chunk", "completed"]
    assert '"output": [3]' in story.text


@pytest.mark.parametrize(("value", "attempts"), [({"good": 9}, 3), ({"good": 9, "error": "key"}, 1), ({"good": 1}, 1)])
async def test_attempts_are_as_many_as_asked_for(served: Served, value: dict[str, object], attempts: int) -> None:
    answer = await served.post("/flaky", value)

    started = [event for event in served.named("job_started") if event.fields["id"] == answer.headers["flashfw-job"]]
    assert answer.status_code == (200 if value["good"] == 1 else 500)
    assert [event.fields["attempt"] for event in started] == list(range(1, attempts + 1))
    assert "types" not in answer.text


async def test_callers_share_one_call_of_the_handler_and_each_has_an_answer_of_its_own(served: Served) -> None:
    answers = {}

    async def call(item: int) -> None:
        answers[item] = await served.post("/sum", item)

    with anyio.fail_after(20):  # less than max_wait: the batch goes when it is full
        async with anyio.create_task_group() as tasks:
            for item in (2, 3, 4):
                tasks.start_soon(call, item)

    assert [answers[item].json() for item in (2, 4)] == [{"item": 2, "of": 3}, {"item": 4, "of": 3}]
    assert answers[3].status_code == 500
    assert answers[3].json()["error"]["type"] == "ValueError"


async def test_one_poisoned_job_does_not_take_its_neighbours_along(served: Served, tmp_path: Path) -> None:
    ids, folder = {}, tmp_path / "seen"
    folder.mkdir()
    for name in "abc":
        answer = await served.post("/poison", {"folder": str(folder), "name": name}, prefer="respond-async")
        ids[name] = answer.json()["id"]

    records = {name: await served.status(job, "poison", until=ended) for name, job in ids.items()}
    assert [records[name]["status"] for name in "abc"] == ["COMPLETED", "COMPLETED", "FAILED"]
    requeued = [event.fields for event in served.named("job_requeued")]
    assert {fields["alone"] for fields in requeued if fields["deaths"] == 1} == {True}
    assert sorted(path.name[0] for path in folder.iterdir()) == ["a", "a", "b", "b", "c", "c", "c"]
