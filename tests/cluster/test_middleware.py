"""middleware.py through the gateway: CORS of a frontend elsewhere, keys, errors, streams, reloads."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.served import Served, serving

pytestmark = pytest.mark.anyio

CORS = """
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware

    middleware = [Middleware(CORSMiddleware, allow_origins=["http://localhost:3000"], allow_methods=["GET", "PUT"])]
    """
FILES = {
    "endpoints/middleware.py": """
        from starlette.responses import JSONResponse
        from flashfw import ValidationFailed

        version = 1

        async def middleware(request, call_next):
            response = await call_next(request)
            response.headers["x-version"] = str(version)
            return response

        def invalid(request, error):
            return JSONResponse({"wrong": [entry["loc"] for entry in error.errors]}, 400)

        errors = {ValidationFailed: invalid}
        """,
    "endpoints/api/middleware.py": CORS,
    "endpoints/api/handler.py": """
        import asyncio
        import time
        from collections.abc import AsyncIterator

        def get(n: int = 1) -> int:
            return n

        def put() -> str:
            return "put"

        async def post() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{time.time()}\\n"
                await asyncio.sleep(0.3)
        """,
    "endpoints/own/handler.py": """
        async def options() -> str:
            return "secret"

        def get() -> str:
            return "got"

        async def websocket(ws) -> None:
            await ws.accept()
        """.replace("(ws)", "(ws: WebSocket)").replace(
        "async def options", "from starlette.websockets import WebSocket\n\n        async def options"
    ),
    "endpoints/site/handler.py": """
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        class Missing(Exception):
            pass

        async def page(request):
            if request.path_params["name"] == "missing":
                raise Missing("no such page")
            return PlainTextResponse(f"{request.method} {request.url.path}")

        app = Starlette(routes=[Route("/{name}", page, methods=["GET", "OPTIONS"])])
        """,
    "endpoints/job/handler.py": "def handler(n: int) -> int:\n    return n\n",
}
FRONTEND = {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, dev_environ: dict[str, str]):
    """One server for all tests but those that change or end it."""
    async with serving(tmp_path_factory.mktemp("shop"), FILES, environ=dev_environ) as served:
        yield served


async def preflight(shop: Served, path: str, method: str, **headers: str) -> httpx.Response:
    asking = {**FRONTEND, "access-control-request-method": method, **headers}
    return await shop.client.options(shop.url + path, headers=asking)


async def test_a_frontend_of_this_machine_may_call_what_has_middleware(shop: Served) -> None:
    answer = await shop.client.get(shop.url + "/api?n=2", headers=FRONTEND)
    asked = await preflight(shop, "/api", "PUT")

    assert (answer.status_code, answer.json()) == (200, 2)
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["x-version"] == "1"
    assert (asked.status_code, asked.headers["access-control-allow-methods"]) == (200, "GET, PUT")
    assert asked.headers["access-control-allow-origin"] == "http://localhost:3000"
    other = await shop.client.get(shop.url + "/api", headers={"origin": "http://localhost:4000"})
    assert "access-control-allow-origin" not in other.headers  # its browser keeps the answer from the page


async def test_what_stays_closed(shop: Served) -> None:
    job = await shop.client.post(shop.url + "/job", json={"n": 1}, headers=FRONTEND)
    status = await shop.client.get(shop.url + "/_flashfw/status", headers=FRONTEND)
    asked = await preflight(shop, "/job", "POST")
    foreign = await shop.client.get(shop.url + "/api", headers={"origin": "https://evil.example"})
    hidden = await shop.client.get(shop.url + "/api", headers={"sec-fetch-site": "cross-site"})
    elsewhere = await preflight(shop, "/api", "PUT", origin="https://evil.example")

    for answer in (job, status, asked, foreign, hidden, elsewhere):
        assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "origin")
    assert "middleware.py" in job.json()["error"]["message"]


async def test_a_socket_that_has_middleware_above_it_takes_a_frontend_of_this_machine(shop: Served) -> None:
    url = shop.url.replace("http:", "ws:") + "/own"
    async with connect(url, proxy=None, additional_headers={"origin": "http://localhost:3000"}) as ws:
        await ws.wait_closed()
    assert ws.close_code == 1000
    with pytest.raises(InvalidStatus, match="403"):
        await connect(url, proxy=None, additional_headers={"origin": "https://evil.example"})


async def test_methods_without_a_function(shop: Served) -> None:
    plain = await shop.client.options(shop.url + "/api")
    job = await shop.client.options(shop.url + "/job")
    head = await shop.client.head(shop.url + "/api")
    wrong = await shop.client.delete(shop.url + "/api")

    assert (plain.status_code, plain.headers["allow"], plain.content) == (204, "GET, HEAD, OPTIONS, POST, PUT", b"")
    assert (job.status_code, job.headers["allow"]) == (204, "OPTIONS, POST")
    assert (head.status_code, head.headers["x-version"], head.content) == (200, "1", b"")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST, PUT")
    assert wrong.json()["error"]["message"] == "/api takes GET, POST, PUT"
    assert (await shop.client.options(shop.url + "/own")).json() == "secret"


async def test_errors_of_the_outer_directory_and_of_applications(shop: Served) -> None:
    invalid = await shop.get("/api?n=x")
    page = await shop.get("/site/home")
    missing = await shop.get("/site/missing")

    assert (invalid.status_code, invalid.json()) == (400, {"wrong": [["query", "n"]]})
    assert (page.text, page.headers["x-version"]) == ("GET /site/home", "1")
    assert missing.status_code == 500


async def test_streams_keep_streaming(shop: Served) -> None:
    late = []
    async with shop.client.stream("POST", shop.url + "/api") as answer:
        async for line in answer.aiter_lines():
            late.append(time.time() - float(line))

    assert len(late) == 3
    assert max(late) < 0.25


async def test_an_edit_of_a_middleware_rolls_what_it_is_around(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ) as shop:
        assert (await shop.get("/api")).headers["x-version"] == "1"
        file = tmp_path / "endpoints/middleware.py"
        file.write_text(file.read_text().replace("version = 1", "version = 2"))
        event = await shop.event("reloaded")
        assert (event.fields["roll"], event.fields["changed"]) == (("api",), ["endpoints/middleware.py"])
        with anyio.fail_after(60):
            while (await shop.get("/api")).headers["x-version"] != "2":
                await anyio.lowlevel.checkpoint()

        (tmp_path / "endpoints/api/middleware.py").unlink()
        await shop.event("reloaded", lambda event: event.fields["changed"] == ["endpoints/api/middleware.py"])
        with anyio.fail_after(60):
            while (await shop.client.get(shop.url + "/api", headers=FRONTEND)).headers.get(
                "access-control-allow-origin"
            ):
                await anyio.lowlevel.checkpoint()


async def test_behind_a_key_a_preflight_needs_none_and_reaches_no_function(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ, host="0.0.0.0") as shop:
        key = (await shop.event("serving")).fields["key"]
        asked = await preflight(shop, "/api", "PUT")
        own = await preflight(shop, "/own", "GET")
        site = await preflight(shop, "/site/home", "GET")
        bare = await shop.client.options(shop.url + "/own")
        got = await shop.client.get(shop.url + "/api", headers={**FRONTEND, "authorization": f"Bearer {key}"})
        with_key = await preflight(shop, "/own", "GET", authorization=f"Bearer {key}")

    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
    assert (own.status_code, own.content, own.headers["allow"]) == (204, b"", "GET, OPTIONS")
    assert (site.status_code, site.content) == (204, b"")
    assert bare.status_code == 401
    assert got.json() == 1
    assert with_key.json() == "secret"


async def test_a_broken_middleware_is_a_failed_start_with_its_line(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    broken = {
        **FILES,
        "endpoints/api/middleware.py": "from starlette.middleware import Middleware\n\nmiddleware = [3]\n",
    }
    async with serving(tmp_path, broken, environ=dev_environ) as shop:
        answer = await shop.get("/api")

    assert answer.status_code == 503
    assert "endpoints/api/middleware.py: 'middleware' holds 3" in answer.json()["error"]["message"]
