"""Promises of HTTP endpoints that need real bytes: uploads, streams through a roll, forwarded headers, factories."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import httpx
import psutil
import pytest

from tests.served import Served, serving, write

pytestmark = pytest.mark.anyio

FILES = {
    "endpoints/upload/handler.py": """
        import hashlib

        from starlette.datastructures import UploadFile
        from starlette.requests import Request

        async def post(photos: list[UploadFile], title: str = "") -> dict[str, object]:
            sizes = []
            for photo in photos:
                size = 0
                while piece := await photo.read(1 << 20):
                    size += len(piece)
                sizes.append(size)
            return {"title": title, "names": [photo.filename for photo in photos], "sizes": sizes}

        async def put(request: Request) -> int:
            size = 0
            async for piece in request.stream():
                size += len(piece)
            return size
        """,
    "endpoints/seen/handler.py": """
        from starlette.requests import Request

        def get(request: Request) -> list[object]:
            return [request.client.host, request.url.scheme, request.url.hostname, request.scope["root_path"]]
        """,
    "endpoints/slow/endpoint.toml": "drain_timeout = '1s'\ntimeout = '5s'\n",
    "endpoints/slow/handler.py": """
        import asyncio
        from collections.abc import AsyncIterator

        from starlette.requests import Request

        VERSION = 1

        async def get(count: int = 1000, pause: float = 0.05) -> AsyncIterator[dict[str, int]]:
            for number in range(count):
                yield {"version": VERSION, "number": number}
                await asyncio.sleep(pause if number else 0.01)
        """,
    "endpoints/made/handler.py": """
        from collections.abc import AsyncIterator
        from contextlib import asynccontextmanager

        from starlette.applications import Starlette
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        async def page(request):
            return JSONResponse([request.app.state.words, request.state.began, request.scope["root_path"]])

        def app(words: list[str]) -> Starlette:
            @asynccontextmanager
            async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
                yield {"began": True}

            made = Starlette(routes=[Route("/", page)], lifespan=lifespan)
            made.state.words = words
            return made
        """,
    "endpoints/made/fixtures.py": "def words() -> list[str]:\n    return ['a', 'b']\n",
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, dev_environ: dict[str, str]):
    """One server for all tests but those that change or end it."""
    async with serving(tmp_path_factory.mktemp("shop"), FILES, environ=dev_environ) as served:
        yield served


def memory(processes: Sequence[psutil.Process]) -> int:
    """What they hold."""
    return sum(process.memory_info().rss for process in processes)


async def test_a_large_upload_and_a_large_body_leave_memory_flat(shop: Served) -> None:
    megabytes = 200

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(megabytes):
            yield b"x" * 1_000_000

    async def form() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="photos"; filename="big"\r\n\r\n'
        async for piece in pieces():
            yield piece
        yield b"\r\n--b--\r\n"

    multipart = {"content-type": "multipart/form-data; boundary=b"}
    await shop.client.put(shop.url + "/upload", content=b"x")  # the worker is up
    # The gateway, which is this process, and the worker alone: whatever is started meanwhile is for a moment a copy of
    # this process, and as large.
    status = (await shop.get("/_flashfw/status")).json()
    [worker] = [worker for one in status["endpoints"] if one["id"] == "upload" for worker in one["workers"]]
    processes = [psutil.Process(), psutil.Process(worker["pid"])]
    before, highest = memory(processes), 0

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, memory(processes))
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        raw = await shop.client.put(shop.url + "/upload", content=pieces())
        sent = await shop.client.post(shop.url + "/upload", content=form(), headers=multipart)
        tasks.cancel_scope.cancel()

    assert raw.json() == megabytes * 1_000_000
    assert sent.json() == {"title": "", "names": ["big"], "sizes": [megabytes * 1_000_000]}
    assert highest - before < 60_000_000


async def test_many_files_of_one_form(shop: Served) -> None:
    files = [("photos", (f"{n}.png", b"x" * n)) for n in range(200)]

    answer = await shop.client.post(shop.url + "/upload", files=files, data={"title": "all"})

    value = answer.json()
    assert (value["title"], value["names"][7], value["sizes"]) == ("all", "7.png", list(range(200)))


async def test_forwarded_headers_are_not_believed(shop: Served) -> None:
    claims = {"x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "https", "forwarded": "for=6.6.6.6;proto=https"}

    answer = await shop.client.get(shop.url + "/seen", headers={**claims, "x-forwarded-host": "evil.example"})

    assert answer.json() == ["127.0.0.1", "http", "127.0.0.1", ""]


async def test_an_application_that_is_made_from_fixtures_with_a_lifespan(shop: Served) -> None:
    answer = await shop.get("/made/")
    assert answer.status_code == 200, answer.text
    assert answer.json() == [["a", "b"], True, "/made"]


async def test_an_open_stream_ends_on_the_old_code_and_is_cut_after_the_drain(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    lines: list[dict[str, int]] = []
    handler = FILES["endpoints/slow/handler.py"].replace("N = 1", "N = 2")

    async def read(stream: httpx.Response) -> None:
        async for line in stream.aiter_lines():
            lines.append(json.loads(line))
            if len(lines) == 2:
                write(tmp_path, {"endpoints/slow/handler.py": handler})

    async with serving(tmp_path, FILES, environ=dev_environ) as shop:
        async with shop.client.stream("GET", shop.url + "/slow") as stream:
            with pytest.raises(httpx.RemoteProtocolError):
                await read(stream)

        assert {line["version"] for line in lines} == {1}
        assert len(lines) > 10  # it went on for a while
        fresh = await shop.get("/slow?count=1")
        assert fresh.json()["version"] == 2
        event = await shop.event("request", lambda event: "cut" in event.fields)
        assert event.fields["path"] == "/slow"


async def test_a_stream_that_pauses_for_longer_than_the_timeout_is_cut(shop: Served) -> None:
    async with shop.client.stream("GET", shop.url + "/slow?pause=60") as stream:
        received = stream.aiter_lines()
        first = [json.loads(await anext(received)) for _ in range(2)]
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(received)

    assert [line["number"] for line in first] == [0, 1]
    event = await shop.event("request", lambda event: "cut" in event.fields)
    assert "sent nothing for 5 s" in event.fields["cut"]


@pytest.mark.parametrize(
    ("accept", "media", "text"),
    [
        ("*/*", "application/x-ndjson", '{"version":1,"number":0}\n'),
        ("text/event-stream", "text/event-stream", 'data: {"version":1,"number":0}\n\n'),
        ("application/x-ndjson", "application/x-ndjson", '{"version":1,"number":0}\n'),
    ],
)
async def test_objects_of_a_stream_by_accept(shop: Served, accept: str, media: str, text: str) -> None:
    answer = await shop.get("/slow?count=1", accept=accept)

    assert (answer.headers["content-type"], answer.text) == (media, text)
