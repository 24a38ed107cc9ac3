"""HTTP endpoints through the gateway: verbs, bodies, streams, mounts, limits and clients that leave."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from tests.served import Served, serving

pytestmark = pytest.mark.anyio

FILES = {
    "endpoints/api/handler.py": """
        from starlette.requests import Request

        def get(q: str = "none") -> dict[str, str]:
            return {"q": q}

        async def post(request: Request) -> dict[str, int]:
            size = 0
            async for piece in request.stream():
                size += len(piece)
            return {"size": size}

        def delete() -> None:
            return None
        """,
    "endpoints/api/items/_id_/handler.py": """
        def get(id: int) -> int:
            return id
        """,
    "endpoints/big/handler.py": """
        from collections.abc import Iterator

        def get(megabytes: int) -> Iterator[bytes]:
            for _ in range(megabytes):
                yield b"x" * 1_000_000
        """,
    "endpoints/small/endpoint.toml": "max_body = 10\n",
    "endpoints/small/handler.py": """
        def post(body: bytes) -> int:
            return len(body)
        """,
    "endpoints/hang/endpoint.toml": "timeout = '5s'\n",
    "endpoints/hang/handler.py": """
        import asyncio
        from pathlib import Path

        async def get(mark: str) -> None:
            Path(mark).with_suffix(".begun").touch()
            try:
                await asyncio.sleep(60)
            finally:
                Path(mark).touch()
        """,
    "endpoints/die/handler.py": """
        import os

        def get() -> None:
            os._exit(9)
        """,
    "endpoints/split/handler.py": """
        from starlette.responses import Response

        def get(value: str) -> Response:
            return Response("x", headers={"x-echo": value})
        """,
    "endpoints/site/handler.py": """
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        def page(request):
            return PlainTextResponse(f"{request.scope['root_path']} {request.url.path}")

        app = Starlette(routes=[Route("/{rest:path}", page)])
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
def shop(server: Served) -> Served:
    """One server for all tests of this file but those that end it, with the events since the test began."""
    server.events.clear()
    return server


async def test_verbs_parameters_and_bodies(shop: Served) -> None:
    got = await shop.get("/api?q=x")
    deleted = await shop.client.delete(shop.url + "/api")
    item = await shop.get("/api/items/7")

    assert (got.status_code, got.json()) == (200, {"q": "x"})
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert item.json() == 7
    assert (await shop.get("/api/items/seven")).status_code == 404
    assert (await shop.client.head(shop.url + "/api")).content == b""
    refused = await shop.client.put(shop.url + "/api")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, POST")


async def test_a_large_body_arrives_in_pieces(shop: Served) -> None:
    async def pieces():
        for _ in range(20):
            yield b"y" * 1_000_000

    answer = await shop.client.post(shop.url + "/api", content=pieces())

    assert answer.json() == {"size": 20_000_000}


async def test_a_large_response_streams(shop: Served) -> None:
    answer = await shop.get("/big?megabytes=20")

    assert len(answer.content) == 20_000_000


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_one_byte_over_the_limit_is_refused(shop: Served, chunked: bool) -> None:
    async def pieces(size: int):
        yield b"z" * (size - 1)
        yield b"z"

    fits = await shop.client.post(shop.url + "/small", content=pieces(10) if chunked else b"z" * 10)
    over = await shop.client.post(shop.url + "/small", content=pieces(11) if chunked else b"z" * 11)

    assert (fits.status_code, fits.json()) == (200, 10)
    assert over.status_code == 413
    assert "max_body (10 bytes)" in over.json()["error"]["message"]


async def test_a_call_whose_client_leaves_is_cancelled(shop: Served, tmp_path: Path) -> None:
    mark = tmp_path / "cancelled"
    with anyio.fail_after(60):
        async with anyio.create_task_group() as calling:
            calling.start_soon(shop.get, f"/hang?mark={mark}")
            while not mark.with_suffix(".begun").exists():  # noqa: ASYNC110 - another process makes it
                await anyio.sleep(0.02)
            calling.cancel_scope.cancel()
        while not mark.exists():  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def test_a_call_without_an_answer_times_out(shop: Served, tmp_path: Path) -> None:
    answer = await shop.get(f"/hang?mark={tmp_path / 'late'}")

    assert (answer.status_code, answer.json()["error"]["reason"]) == (504, "timeout")


async def test_a_worker_that_dies_is_a_bad_gateway_and_the_next_call_works(shop: Served) -> None:
    answer = await shop.get("/die")
    again = await shop.get("/die")

    assert (answer.status_code, answer.json()["error"]["reason"]) == (502, "worker_lost")
    assert "exited with code 9" in answer.json()["error"]["message"]
    assert again.status_code == 502


async def test_a_mounted_application_sees_its_prefix(shop: Served) -> None:
    answer = await shop.get("/site/a/b")

    assert answer.text == "/site /site/a/b"


async def test_calls_are_held_while_no_worker_is_ready(shop: Served) -> None:
    answers = []

    async def call() -> None:
        answers.append(await shop.get("/api"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(call)

    assert [answer.status_code for answer in answers] == [200] * 20


async def test_a_stream_that_is_cut_is_seen_to_be_cut(shop: Served) -> None:
    async with shop.client.stream("GET", shop.url + "/big?megabytes=1000") as answer:
        (pid,) = [
            worker["pid"]
            for endpoint in (await shop.get("/_flashfw/status")).json()["endpoints"]
            for worker in endpoint["workers"]
            if endpoint["id"] == "big"
        ]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in answer.aiter_bytes():
                pass


async def test_a_header_with_a_line_break_never_leaves(shop: Served) -> None:
    answer = await shop.get("/split?value=a%0d%0aset-cookie:%20b=c")

    assert answer.status_code == 500
    assert "set-cookie" not in answer.headers
    assert "line break" in answer.json()["error"]["message"]
    assert (await shop.get("/split?value=a%00b")).status_code == 500  # and not a connection without an answer
