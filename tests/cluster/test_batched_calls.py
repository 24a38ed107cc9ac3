"""Many callers at once, each with one input, and a handler that gets lists: a real server, real workers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.served import Served, ended, serving

FILES = {
    "endpoints/embed/handler.py": """
        import asyncio
        from pydantic import BaseModel

        class Text(BaseModel):
            text: str

        async def handler(items: list[Text], model) -> list[list[int]]:
            await asyncio.sleep(0.02)
            model.append(len(items))
            if any(item.text == "13" for item in items):
                raise ValueError("13 is unlucky")
            return [[len(items), int(item.text)] for item in items]
        """,
    "endpoints/embed/fixtures.py": "def model():\n    return []\n",
    "endpoints/embed/endpoint.toml": 'batch = {max_size = 8, max_wait = "200ms"}\nworkers = 1\n',
}

pytestmark = pytest.mark.anyio


async def calls(served: Served, texts: list[Any]) -> dict[Any, Any]:
    """The answers, by what was asked, of callers that all come at once."""
    answers: dict[Any, Any] = {}

    async def call(text: Any) -> None:
        answers[text] = await served.post("/embed", {"text": text})

    async with anyio.create_task_group() as tasks:
        for text in texts:
            tasks.start_soon(call, text)
    return answers


async def test_thirty_callers_share_calls_of_the_handler(tmp_path: Path, dev_environ: Mapping[str, str]) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ, describe_after_s=1.0) as served:
        texts = [str(100 + number) for number in range(30)]
        answers = await calls(served, texts)

        assert {text: answer.json()[1] for text, answer in answers.items()} == {text: int(text) for text in texts}
        sizes = [answer.json()[0] for answer in answers.values()]
        assert max(sizes) == 8
        assert sum(1 / size for size in sizes) <= 6  # so many calls of the handler were made for 30

        answers = await calls(served, ["1", 2, "13", "4"])
        statuses = {text: answer.status_code for text, answer in answers.items()}
        assert statuses == {"1": 200, 2: 422, "13": 500, "4": 200}
        assert answers["13"].json()["error"]["message"] == "13 is unlucky"
        assert answers[2].json()["error"]["errors"][0]["loc"] == ["text"]
        assert answers["1"].json() == [1, 1]

        await served.event("described", lambda event: event.endpoint == "embed")
        document = (await served.get("/openapi.json")).json()
        body = document["paths"]["/embed"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert "text" in str(body)
        assert "items" not in str(body)


async def test_a_caller_who_cancels_takes_nobody_along(tmp_path: Path, dev_environ: Mapping[str, str]) -> None:
    slow = FILES["endpoints/embed/handler.py"].replace("sleep(0.02)", "sleep(1.0 + (print('begun') or 0))")
    async with serving(tmp_path, {**FILES, "endpoints/embed/handler.py": slow}, environ=dev_environ) as served:
        jobs = [(await served.post("/v2/embed/run", {"input": {"text": str(one)}})).json()["id"] for one in range(3)]
        await served.event("output", lambda event: "begun" in event.fields["text"])
        await served.post(f"/v2/embed/cancel/{jobs[1]}", None)
        records = [await served.status(job, "embed", until=ended) for job in jobs]

    assert [record["status"] for record in records] == ["COMPLETED", "CANCELLED", "COMPLETED"]
    assert [records[0]["output"], records[2]["output"]] == [[3, 0], [3, 2]]


UPPER = {
    "endpoints/upper/handler.py": """
        from flashfw import File

        def handler(items: list[File]) -> list[File]:
            return [File(item.read_bytes().upper() + b" of %d" % len(items), name="upper.txt") for item in items]
        """,
    "endpoints/upper/endpoint.toml": 'batch = {max_size = 2, max_wait = "10s"}\n',
}


async def test_files_come_and_go_one_by_one(tmp_path: Path, dev_environ: Mapping[str, str]) -> None:
    answers: dict[str, str] = {}
    async with serving(tmp_path, UPPER, environ=dev_environ) as served:

        async def call(text: str) -> None:
            headers = {"content-type": "text/plain"}
            answer = await served.client.post(f"{served.url}/upper", content=text.encode(), headers=headers)
            answers[text] = answer.text

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "one")
            tasks.start_soon(call, "two")

    assert answers == {"one": "ONE of 2", "two": "TWO of 2"}
