"""Servers of somebody else's as endpoints: started, proxied both ways, lost; what is said when they do not start."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.served import Served, serving

pytestmark = pytest.mark.anyio

APP = """
    import asyncio
    import os

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    BEGUN = asyncio.Event()
    GONE = asyncio.Event()
    LEFT = asyncio.Queue()

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

    async def talk(ws: WebSocket):
        if ws.path_params["room"] == "closed":
            await ws.send_denial_response(PlainTextResponse("closed today", 403, headers={"x-why": "holiday"}))
            return
        if ws.path_params["room"] == "cut":
            await ws.accept()
            os.kill(os.getpid(), 9)
        wanted = ws.scope["subprotocols"]
        await ws.accept(subprotocol=wanted[-1] if wanted else None, headers=[(b"x-greeting", b"hi")])
        try:
            while True:
                message = await ws.receive()
                if message["type"] == "websocket.disconnect":
                    LEFT.put_nowait([message["code"], message.get("reason") or ""])
                    return
                if message.get("text") == "who":
                    headers = {name: value for name, value in ws.headers.items() if name != "sec-websocket-key"}
                    await ws.send_json({"path": ws.url.path, "query": ws.url.query, "headers": headers})
                elif message.get("text") == "end":
                    await ws.close(4001, "enough")
                    return
                elif message.get("text") == "large":
                    await ws.send_bytes(b"x" * (16 * 1024 * 1024 + 1))
                elif message.get("text") is not None:
                    await ws.send_text(message["text"])
                else:
                    await ws.send_bytes(message["bytes"])
        except WebSocketDisconnect as left:
            LEFT.put_nowait([left.code, left.reason or ""])

    async def left(request: Request):
        return JSONResponse(await LEFT.get())

    METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    app = Starlette(routes=[
        Route("/health", lambda request: PlainTextResponse("ok")),
        Route("/size", size, methods=["POST"]),
        Route("/ticks", ticks), Route("/gone", gone), Route("/big", big), Route("/halfway", halfway),
        Route("/left", left), WebSocketRoute("/talk/{room}", talk),
        Route("/login", lambda request: RedirectResponse("/echo")),
        Route("/{rest:path}", echo, methods=METHODS),
    ])

    if __name__ == "__main__":
        import uvicorn
        print("starting with the pid", os.getpid(), flush=True)
        uvicorn.run(app, host=os.environ["HOST"], port=int(os.environ["PORT"]), log_level="warning",
                    ws_max_size=1 << 25)
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
    "endpoints/pages/draft.txt": "draft",
    "endpoints/pages/deep/index.html": "<p>deep</p>",
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


async def test_a_static_server_is_an_endpoint(shop: Served) -> None:
    file = await shop.get("/pages/hello.txt")
    redirect = await shop.get("/pages/deep")

    assert (file.status_code, file.text) == (200, "hello")
    assert (redirect.status_code, redirect.headers["location"]) == (301, "/pages/deep/")
    assert (await shop.get("/pages/deep/")).text == "<p>deep</p>"
    assert "hello.txt" in (await shop.get("/pages")).text


async def test_a_save_restarts_it(shop: Served) -> None:
    before = (await shop.get("/_flashfw/status")).json()
    assert (await shop.get("/pages/draft.txt")).text == "draft"

    (shop.folder / "endpoints/pages/draft.txt").write_text("changed")
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
    assert len(answer.headers.get_list("date")) == 1
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


def opening(shop: Served, path: str, **options: Any) -> connect:
    return connect(shop.url.replace("http:", "ws:") + path, proxy=None, **{"max_size": None, **options})


async def closed(ws: ClientConnection) -> tuple[int | None, str | None]:
    with anyio.fail_after(60), suppress(ConnectionClosedError):
        async for _ in ws:
            pass
    return ws.close_code, ws.close_reason


async def test_a_websocket_passes_both_ways(shop: Served) -> None:
    headers = {"x-own": "1"}
    async with opening(shop, "/llm/talk/a%20b?x=1", subprotocols=["a", "b"], additional_headers=headers) as ws:
        assert ws.response is not None
        assert (ws.subprotocol, ws.response.headers["x-greeting"]) == ("b", "hi")
        for message in ("tea", "", "\u00fc" * 3_000_000, b"\0\xff", os.urandom(10_000_000)):
            await ws.send(message)
            assert await ws.recv() == message
        await ws.send(["in ", "two ", "pieces"])
        assert await ws.recv() == "in two pieces"
        await ws.send("who")
        who = json.loads(await ws.recv())
        assert (who["path"], who["query"]) == ("/talk/a b", "x=1")
        seen = who["headers"]
        assert (seen["x-own"], seen["x-forwarded-prefix"], seen["x-forwarded-proto"]) == ("1", "/llm", "http")
        assert seen["host"] == shop.url.removeprefix("http://")
        await ws.close(4002, "bye")
    assert (await shop.get("/llm/left")).json() == [4002, "bye"]


async def test_a_websocket_ends_as_the_server_says(shop: Served) -> None:
    async with opening(shop, "/llm/talk/a") as ws:
        await ws.send("end")
        assert await closed(ws) == (4001, "enough")
    async with opening(shop, "/llm/talk/a") as ws:
        await ws.send("large")
        assert await closed(ws) == (1009, "a message of more than 16777216 bytes")
    assert (await shop.get("/llm/left")).json()[0] == 1009
    async with opening(shop, "/llm/talk/a") as ws:
        ws.transport.abort()
    assert (await shop.get("/llm/left")).json()[0] in (1005, 1006)

    for path, status, body in (("/llm/talk/closed", 403, b"closed today"), ("/llm/nothing", 403, b"")):
        with pytest.raises(InvalidStatus) as refused:
            async with opening(shop, path):
                pass
        assert (refused.value.response.status_code, refused.value.response.body) == (status, body)
    with pytest.raises(InvalidStatus) as plain:
        async with opening(shop, "/pages/hello.txt"):  # a server that knows no WebSockets
            pass
    assert (plain.value.response.status_code, plain.value.response.body) == (200, b"hello")
    async with opening(shop, "/llm/talk/cut") as ws:
        assert (await closed(ws))[0] == 1011
    await until_answered(shop)


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
    with anyio.fail_after(60):
        while (answer := await shop.get("/llm/echo")).status_code != 200:
            assert answer.status_code == 502
    return int(answer.json()["pid"])


async def test_no_server_outlives_its_worker(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ) as served:
        pid = (await served.get("/llm/echo")).json()["pid"]
    with anyio.fail_after(60):
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
