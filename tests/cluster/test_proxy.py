"""Servers of somebody else's as endpoints: started, proxied both ways, lost; what is said when they do not start."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import anyio
import httpx
import pytest

from tests.served import Served, serving

pytestmark = pytest.mark.anyio

APP = """
    import asyncio
    import os

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
    from starlette.routing import Route

    BEGUN = asyncio.Event()
    GONE = asyncio.Event()

    async def echo(request: Request):
        body = await request.body()
        return JSONResponse({
            "method": request.method, "path": request.url.path, "query": request.url.query, "body": body.decode(),
            "headers": dict(request.headers), "pid": os.getpid(), "secret": os.environ.get("SECRET"),
        }, headers={"connection": "x-hop, close", "x-hop": "1", "x-kept": "2"})

    async def size(request: Request):
        total = 0
        async for piece in request.stream():
            total += len(piece)
        return PlainTextResponse(str(total))

    async def ticks(request: Request):
        async def pieces():
            try:
                for number in range(1000 if "long" in request.query_params else 3):
                    yield f"tick {number}\\n"
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                GONE.set()
                raise
        return StreamingResponse(pieces(), media_type="text/plain")

    async def big(request: Request):
        async def pieces():
            for _ in range(int(request.query_params["mb"])):
                yield b"x" * 1_000_000
        return StreamingResponse(pieces())

    async def gone(request: Request):
        await GONE.wait()
        return PlainTextResponse("gone")

    async def halfway(request: Request):
        async def pieces():
            yield b"one"
            await asyncio.sleep(0.05)
            os._exit(5)
        return StreamingResponse(pieces())

    METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    app = Starlette(routes=[
        Route("/health", lambda request: PlainTextResponse("ok")),
        Route("/size", size, methods=["POST"]),
        Route("/ticks", ticks), Route("/gone", gone), Route("/big", big), Route("/halfway", halfway),
        Route("/login", lambda request: RedirectResponse("/echo")),
        Route("/{rest:path}", echo, methods=METHODS),
    ])

    if __name__ == "__main__":
        import uvicorn
        print("starting with the pid", os.getpid(), flush=True)
        uvicorn.run(app, host=os.environ["HOST"], port=int(os.environ["PORT"]), log_level="warning")
"""
FILES = {
    "endpoints/llm/endpoint.toml": """
        command = "python server.py"
        ready = "/health"
        dependencies = ["uvicorn"]
        env = { SECRET = "sesame" }
        workers = 1
        """,
    "endpoints/llm/server.py": APP,
    "endpoints/pages/endpoint.toml": 'command = "python -m http.server $PORT --bind $HOST"\n',
    "endpoints/pages/hello.txt": "hello",
    "endpoints/pages/deep/index.html": "<p>deep</p>",
}


@pytest.fixture
async def shop(tmp_path: Path, dev_environ: dict[str, str]):
    async with serving(tmp_path, FILES, environ=dev_environ) as served:
        yield served


async def test_a_static_server_is_an_endpoint(shop: Served) -> None:
    file = await shop.get("/pages/hello.txt")
    redirect = await shop.get("/pages/deep")

    assert (file.status_code, file.text) == (200, "hello")
    assert (redirect.status_code, redirect.headers["location"]) == (301, "/pages/deep/")
    assert (await shop.get("/pages/deep/")).text == "<p>deep</p>"
    assert "hello.txt" in (await shop.get("/pages")).text


async def test_a_save_restarts_it(shop: Served) -> None:
    before = (await shop.get("/_flashfw/status")).json()
    assert (await shop.get("/pages/hello.txt")).text == "hello"

    (shop.folder / "endpoints/pages/hello.txt").write_text("changed")
    reloaded = await shop.event("reloaded")

    assert reloaded.fields["roll"] == ("pages",)
    assert before is not None


async def test_everything_passes_both_ways(shop: Served) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        headers = {"connection": "x-mine", "x-mine": "1", "x-forwarded-prefix": "/forged", "x-own": "2"}
        url = shop.url + "/llm/a%20b/c?x=%201&y"
        answer = await shop.client.request(method, url, content=b"body", headers=headers)
        got = answer.json()
        assert (got["method"], got["path"], got["query"], got["body"]) == (method, "/a b/c", "x=%201&y", "body")
    assert got["headers"]["x-forwarded-prefix"] == "/llm"
    assert got["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert got["headers"]["x-forwarded-proto"] == "http"
    assert got["headers"]["host"] == shop.url.removeprefix("http://")
    assert (got["headers"]["x-own"], "x-mine" in got["headers"]) == ("2", False)
    assert (answer.headers["x-kept"], "x-hop" in answer.headers) == ("2", False)
    assert got["secret"] == "sesame"
    assert (await shop.get("/llm/login")).headers["location"] == "/llm/echo"
    assert (await shop.client.head(shop.url + "/llm/health")).status_code == 200
    assert (await shop.get("/llm/ticks")).text == "tick 0\ntick 1\ntick 2\n"
    assert len((await shop.get("/llm/big?mb=20")).content) == 20_000_000

    async def pieces():
        for _ in range(20):
            yield b"y" * 1_000_000

    assert (await shop.client.post(shop.url + "/llm/size", content=pieces())).text == "20000000"
    log = await shop.event("output", lambda event: "starting with the pid" in str(event.fields))
    assert log.endpoint == "llm"


async def test_a_client_that_leaves_is_gone_for_the_server_too(shop: Served) -> None:
    async with shop.client.stream("GET", shop.url + "/llm/ticks?long=1") as answer:
        async for _ in answer.aiter_text():
            break

    assert (await shop.get("/llm/gone")).text == "gone"


async def test_a_server_that_dies_is_a_lost_worker(shop: Served) -> None:
    pid = (await shop.get("/llm/echo")).json()["pid"]
    os.kill(pid, signal.SIGKILL)
    await shop.event("output", lambda event: "`python server.py` was killed by SIGKILL" in str(event.fields))
    again = await until_answered(shop)
    with pytest.raises(httpx.RemoteProtocolError):
        await shop.get("/llm/halfway")

    assert again != pid
    assert await until_answered(shop) not in (pid, again)


async def until_answered(shop: Served) -> int:
    """The pid of the server that answers; 502 is for calls that reach a worker before the news of its end does."""
    with anyio.fail_after(20):
        while (answer := await shop.get("/llm/echo")).status_code != 200:
            assert answer.status_code == 502
    return int(answer.json()["pid"])


async def test_no_server_outlives_its_worker(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ) as served:
        pid = (await served.get("/llm/echo")).json()["pid"]
    with anyio.fail_after(10):
        while Path(f"/proc/{pid}").exists():
            await anyio.lowlevel.checkpoint()


BROKEN = {
    "endpoints/exits/endpoint.toml": "command = ['sh', '-c', 'echo no model in $HOST >&2; exit 3']\n",
    "endpoints/deaf/endpoint.toml": "command = 'sleep 60'\nstart_timeout = '4s'\n",
    "endpoints/unready/endpoint.toml": (
        "command = 'python -m http.server $PORT --bind $HOST'\nready = '/no/such'\nstart_timeout = '4s'\n"
    ),
    "endpoints/unknown/endpoint.toml": "command = 'no-such-program --serve'\n",
}


async def test_a_server_that_does_not_start_says_why(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    async with serving(tmp_path, BROKEN, environ=dev_environ) as served:
        words = {
            "exits": ("exited with code 3 before it was ready", "no model in 127.0.0.1"),
            "deaf": ("`sleep 60` is not ready after 2.8 s", "does the command use $PORT?"),
            "unready": ("GET /no/such answered 404", "code 404, message File not found"),
            "unknown": ("`no-such-program --serve` cannot be started: No such file or directory", ""),
        }
        async with anyio.create_task_group() as tasks:
            for name in words:
                tasks.start_soon(served.get, f"/{name}/")
            for name, (why, said) in words.items():
                event = await served.event("start_failed", lambda event, name=name: event.endpoint == name)
                failure = event.fields["failure"]
                assert why in failure["message"]
                assert said in failure["message"]
                assert failure["place"] == f"endpoints/{name}/endpoint.toml:1"
        answer = await served.get("/exits/")

    assert (answer.status_code, "no model in 127.0.0.1" in answer.json()["error"]["message"]) == (503, True)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
async def test_a_node_server(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {
        "endpoints/web/endpoint.toml": "command = 'node server.js'\n",
        "endpoints/web/server.js": """
            const http = require('http')
            http.createServer((request, response) => {
              response.setHeader('content-type', 'text/plain')
              request.pipe(response)
              if (request.method === 'GET') response.end('node ' + request.url)
            }).listen(process.env.PORT, process.env.HOST)
            """,
    }
    async with serving(tmp_path, files, environ=dev_environ) as served:
        got = await served.get("/web/x?y=1")
        posted = await served.client.post(served.url + "/web/x", content=b"z" * 3_000_000)

    assert got.text == "node /x?y=1"
    assert posted.content == b"z" * 3_000_000
