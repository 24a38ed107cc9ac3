"""WebSockets through the gateway: a real client, real workers, from the handshake to every way of ending."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from tests.served import Served, serving, write
from tests.wire import exchange, request

pytestmark = pytest.mark.anyio

FILES = {
    "endpoints/echo/endpoint.toml": "drain_timeout = '1s'\nconcurrency = 40\n",
    "endpoints/echo/handler.py": """
        from typing import Annotated

        from starlette.websockets import WebSocket
        from flashfw import Header, injected

        async def websocket(ws: WebSocket, n: int = 1, greeting=injected, who=injected,
                            token: Annotated[str, Header()] = "") -> None:
            wanted = ws.scope["subprotocols"]
            await ws.accept(subprotocol=wanted[-1] if wanted else None, headers=[(b"x-greeting", greeting.encode())])
            while True:
                message = await ws.receive()
                if message["type"] == "websocket.disconnect":
                    print("left with", message["code"], message["reason"])
                    return
                if message.get("text") == "who":
                    await ws.send_json({"who": who, "token": token, "n": n, "version": 1})
                elif message.get("text") == "end":
                    return
                elif message.get("text") == "fail":
                    raise ValueError("no such word")
                elif message.get("text") is not None:
                    await ws.send_text(message["text"] * n)
                else:
                    await ws.send_bytes(message["bytes"] * n)
        """,
    "endpoints/echo/fixtures.py": """
        from starlette.websockets import WebSocket

        def greeting() -> str:
            return "hi"

        def who(ws: WebSocket) -> str:
            return ws.url.path
        """,
    "endpoints/rooms/_name_/handler.py": """
        from starlette.websockets import WebSocket

        async def websocket(ws: WebSocket, name: int) -> None:
            await ws.accept()
            await ws.send_json({"name": name})
        """,
    "endpoints/strict/endpoint.toml": "timeout = '5s'\nworkers = 2\n",
    "endpoints/strict/handler.py": """
        import asyncio
        import os
        from pathlib import Path

        from starlette.exceptions import HTTPException, WebSocketException
        from starlette.responses import PlainTextResponse
        from starlette.websockets import WebSocket
        from flashfw import HTTPError

        async def websocket(ws: WebSocket, what: str, mark: str = "") -> None:
            if what == "return":
                return
            if what == "close":
                await ws.close()
            elif what == "http":
                raise HTTPException(402, "pay")
            elif what == "flashfw":
                raise HTTPError(418, {"tea": "pot"}, headers={"x-kind": "green"})
            elif what == "own":
                await ws.send_denial_response(PlainTextResponse("not you", 401))
            elif what == "raise":
                raise KeyError("x")
            elif what == "die":
                os._exit(3)
            elif what == "never":
                try:
                    await asyncio.sleep(60)
                finally:
                    Path(mark).touch()
            elif what == "policy":
                await ws.accept()
                raise WebSocketException(1008, "not like this")
            elif what.isdigit():
                await ws.accept()
                await ws.close(int(what), "ü" * 100)
            elif what == "late":
                await ws.accept()
                await ws.send_text("x" * (16 * 1024 * 1024 + 1))

        def get() -> str:
            return "plain"
        """,
    "endpoints/flow/handler.py": """
        import asyncio
        from pathlib import Path

        from starlette.websockets import WebSocket, WebSocketDisconnect

        async def websocket(ws: WebSocket, count: int = 0, size: int = 0, mark: str = "") -> None:
            await ws.accept()
            try:
                for number in range(count):
                    await ws.send_bytes(number.to_bytes(4, "big") + b"x" * size)
                    with open(mark, "a") as file:
                        file.write(".")
                total = 0
                while True:
                    message = await ws.receive_bytes()
                    total += len(message)
                    if not message:
                        await ws.send_text(str(total))
                    elif message == b"slow":
                        while not Path(mark).exists():
                            await asyncio.sleep(0.01)
            except WebSocketDisconnect as left:
                Path(mark).with_suffix(".left").write_text(f"{left.code} {left.reason}")
                raise
        """,
    "endpoints/site/handler.py": """
        from starlette.applications import Starlette
        from starlette.routing import WebSocketRoute
        from starlette.websockets import WebSocket

        async def chat(ws: WebSocket) -> None:
            await ws.accept()
            async for text in ws.iter_text():
                await ws.send_text(f"{ws.scope['root_path']} {ws.url.path} {text}")

        app = Starlette(routes=[WebSocketRoute("/chat/{room}", chat)])
        """,
}


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that servers run on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, dev_environ: dict[str, str]):
    """One server for all tests but those that change or end it."""
    async with serving(tmp_path_factory.mktemp("shop"), FILES, environ=dev_environ) as served:
        yield served


def opening(shop: Served, path: str, **options: Any) -> AbstractAsyncContextManager[ClientConnection]:
    return connect(shop.url.replace("http:", "ws:") + path, proxy=None, **{"max_size": None, **options})


async def refused(shop: Served, path: str, **options: Any) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as caught:
        async with opening(shop, path, **options):
            pass
    return caught.value


async def closed(ws: ClientConnection) -> tuple[int, str]:
    """The code and reason with which the server closes."""
    with anyio.fail_after(60), suppress(ConnectionClosedError):
        async for _ in ws:
            pass
    assert ws.close_code is not None
    return ws.close_code, ws.close_reason or ""


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - another process changes it
            await anyio.sleep(0.01)


async def written(path: Path) -> str:
    """What a function has written."""
    await until(lambda: path.exists() and path.read_text() != "")
    return path.read_text()


async def nobody_served(shop: Served, endpoint: str) -> None:
    """Returns once no worker of the endpoint holds a call."""
    with anyio.fail_after(60):
        while any(worker["calls"] for worker in await workers(shop, endpoint)):
            await anyio.lowlevel.checkpoint()


async def workers(shop: Served, endpoint: str) -> list[dict[str, Any]]:
    status = (await shop.get("/_flashfw/status")).json()
    return next(item["workers"] for item in status["endpoints"] if item["id"] == endpoint)


# Talking


async def test_text_binary_and_what_is_injected(shop: Served) -> None:
    async with opening(shop, "/echo?n=2", additional_headers={"token": "t"}, subprotocols=["a", "b"]) as ws:
        await ws.send("ab")
        text = await ws.recv()
        await ws.send(b"\0\xff")
        binary = await ws.recv()
        await ws.send("")
        empty = await ws.recv()
        await ws.send("who")
        who = json.loads(await ws.recv())

        assert (text, binary, empty) == ("abab", b"\0\xff\0\xff", "")
        assert who == {"who": "/echo", "token": "t", "n": 2, "version": 1}
        assert ws.subprotocol == "b"
        assert ws.response is not None
        assert ws.response.headers["x-greeting"] == "hi"


async def test_path_parameters_and_the_end_of_the_function(shop: Served) -> None:
    async with opening(shop, "/rooms/7") as ws:
        assert json.loads(await ws.recv()) == {"name": 7}
        assert await closed(ws) == (1000, "")

    assert (await refused(shop, "/rooms/seven")).response.status_code == 404
    event = await shop.event("request", lambda event: event.fields["path"] == "/rooms/7")
    assert (event.fields["method"], event.fields["status"]) == ("WEBSOCKET", 101)


async def test_a_mounted_application(shop: Served) -> None:
    async with opening(shop, "/site/chat/kitchen") as ws:
        await ws.send("hello")
        assert await ws.recv() == "/site /site/chat/kitchen hello"

    assert (await refused(shop, "/site/nothing")).response.status_code == 403


async def test_a_large_message_both_ways(shop: Served) -> None:
    message = os.urandom(10_000_000)
    async with opening(shop, "/echo") as ws:
        await ws.send(message)
        assert await ws.recv() == message
        await ws.send("ü" * 3_000_000)
        assert await ws.recv() == "ü" * 3_000_000


async def test_many_sockets_at_once(shop: Served) -> None:
    async def talk(number: int) -> None:
        async with opening(shop, "/echo") as ws:
            for turn in range(5):
                await ws.send(f"{number} {turn}")
                assert await ws.recv() == f"{number} {turn}"

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(talk, number)

    await nobody_served(shop, "echo")


# Backpressure


async def test_a_slow_reader_slows_the_function(shop: Served, tmp_path: Path) -> None:
    mark = tmp_path / "sent"
    before = psutil.Process().memory_info().rss
    async with opening(shop, f"/flow?count=1000&size=100000&mark={mark}", max_queue=2) as ws:
        sent = -1
        while sent != (sent := len(await written(mark))):  # noqa: ASYNC110 - until it stands still
            await anyio.sleep(0.3)
        assert sent < 200
        assert psutil.Process().memory_info().rss - before < 60_000_000
        numbers = [int.from_bytes((await ws.recv())[:4], "big") for _ in range(1000)]  # type: ignore[arg-type]

    assert numbers == list(range(1000))


async def test_a_slow_function_slows_the_client(shop: Served, tmp_path: Path) -> None:
    mark = tmp_path / "go"
    before = psutil.Process().memory_info().rss
    async with opening(shop, f"/flow?mark={mark}") as ws:
        await ws.send(b"slow")
        sent = 0
        with anyio.move_on_after(1.0):
            while sent < 100_000_000:
                await ws.send(b"y" * 100_000)
                sent += 100_000
        held = sent
        assert held < 60_000_000
        assert psutil.Process().memory_info().rss - before < 120_000_000
        mark.touch()
        with anyio.fail_after(60):
            await ws.send(b"")
            assert int(str(await ws.recv())) >= held


# Ends


async def test_an_exception_closes_with_1011_and_is_logged(shop: Served) -> None:
    async with opening(shop, "/echo") as ws:
        await ws.send("fail")
        assert await closed(ws) == (1011, "ValueError: no such word")

    await shop.event("output", lambda event: "ValueError: no such word" in event.fields["text"])


async def test_other_ends_that_the_function_chooses(shop: Served) -> None:
    async with opening(shop, "/strict?what=policy") as ws:
        assert await closed(ws) == (1008, "not like this")
    for code in ("999", "1005", "1006", "5000"):
        async with opening(shop, f"/strict?what={code}") as ws:
            assert (await closed(ws))[0] == 1011
            assert f"ValueError: {code} is no code that" in str(ws.close_reason)
    async with opening(shop, "/strict?what=4999") as ws:
        assert await closed(ws) == (4999, "ü" * 61)
    async with opening(shop, "/strict?what=late") as ws:
        code, reason = await closed(ws)
        assert (code, reason) == (1011, "ValueError: a message of 16777217 bytes; a WebSocket carries at most 16777216")
    async with opening(shop, "/echo") as ws:
        await ws.send("end")
        assert await closed(ws) == (1000, "")


async def test_a_client_that_leaves_is_told_of(shop: Served, tmp_path: Path) -> None:
    async with opening(shop, f"/flow?mark={tmp_path / 'x'}") as ws:
        await ws.close(4001, "had enough")

    assert await written(tmp_path / "x.left") == "4001 had enough"
    seen = len(shop.events)
    async with opening(shop, "/echo") as ws:
        ws.transport.abort()
    await shop.event("output", lambda event: "left with 100" in event.fields["text"], after=seen)
    await nobody_served(shop, "echo")


async def test_a_message_that_is_too_large_closes_with_1009(shop: Served) -> None:
    async with opening(shop, "/echo") as ws:
        with suppress(ConnectionClosedError):
            await ws.send(b"x" * (16 * 1024 * 1024 + 1))
        await ws.wait_closed()
        assert ws.close_code == 1009


async def test_a_worker_that_is_killed(shop: Served) -> None:
    seen = len(shop.events)
    async with opening(shop, "/echo") as ws:
        await ws.send("x")
        await ws.recv()
        (worker,) = [one for one in await workers(shop, "echo") if one["calls"]]
        os.kill(worker["pid"], signal.SIGKILL)
        assert await closed(ws) == (1011, "worker lost")

    event = await shop.event("request", lambda event: "cut" in event.fields, after=seen)
    assert "1011" in event.fields["cut"]
    async with opening(shop, "/echo") as ws:  # on another worker
        await ws.send("again")
        assert await ws.recv() == "again"


async def test_an_edit_leaves_open_sockets_on_the_old_code_until_the_drain_is_over(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ) as shop, opening(shop, "/echo") as ws:
        await ws.send("who")
        assert json.loads(await ws.recv())["version"] == 1
        handler = FILES["endpoints/echo/handler.py"].replace('"version": 1', '"version": 2')
        write(tmp_path, {"endpoints/echo/handler.py": handler})
        await shop.event("renewed")
        await ws.send("who")
        assert json.loads(await ws.recv())["version"] == 1
        async with opening(shop, "/echo") as other:
            await other.send("who")
            assert json.loads(await other.recv())["version"] == 2
        assert await closed(ws) == (1012, "service restart")


async def test_the_server_s_end_is_1012(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ) as shop, opening(shop, "/echo") as ws:
        await ws.send("x")
        await ws.recv()
        shop.stopped.set()
        code, _ = await closed(ws)

    assert code == 1012


async def test_an_open_socket_keeps_its_worker(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {**FILES, "endpoints/echo/endpoint.toml": "idle_timeout = '1s'\n"}
    async with serving(tmp_path, files, environ=dev_environ) as shop, opening(shop, "/echo") as ws:
        await ws.send("x")
        await ws.recv()
        async with opening(shop, "/rooms/1") as other:
            await other.recv()
        await anyio.sleep(2.5)
        await ws.send("still here")
        assert await ws.recv() == "still here"


# Refused


@pytest.mark.parametrize(
    ("what", "status", "body"),
    [
        ("return", 403, b""),
        ("close", 403, b""),
        ("http", 402, b'{"detail":"pay"}'),
        ("flashfw", 418, b'{"detail":{"tea":"pot"}}'),
        ("own", 401, b"not you"),
        ("raise", 500, b"KeyError"),
        ("die", 502, b"exited with code 3"),
    ],
)
async def test_refusals_before_the_handshake_is_answered(shop: Served, what: str, status: int, body: bytes) -> None:
    response = (await refused(shop, f"/strict?what={what}")).response

    assert response.status_code == status
    assert body in response.body


async def test_what_does_not_fit_is_422(shop: Served) -> None:
    seen = len(shop.events)
    response = (await refused(shop, "/strict")).response

    assert (response.status_code, json.loads(response.body)["detail"][0]["loc"]) == (422, ["query", "what"])
    assert (await shop.event("request", after=seen)).fields["status"] == 422


async def test_a_function_that_does_not_accept_in_time(shop: Served, tmp_path: Path) -> None:
    response = (await refused(shop, f"/strict?what=never&mark={tmp_path / 'x'}", open_timeout=60)).response

    assert (response.status_code, json.loads(response.body)["error"]["reason"]) == (504, "timeout")
    await until((tmp_path / "x").exists)


async def test_a_client_that_leaves_before_it_is_accepted(shop: Served, tmp_path: Path) -> None:
    seen = len(shop.events)
    with pytest.raises(TimeoutError):
        async with opening(shop, f"/strict?what=never&mark={tmp_path / 'x'}", open_timeout=3):
            pass

    assert (await shop.event("request", after=seen)).fields["status"] == 499


async def test_foreign_pages_and_hosts(shop: Served) -> None:
    for headers in ({"origin": "https://evil.example"}, {"origin": "http://localhost:3000"}, {"origin": "null"}):
        error = await refused(shop, "/echo", additional_headers=headers)
        assert (error.response.status_code, b"Origin" in error.response.body) == (403, True)
    answer = await asyncio.to_thread(exchange, shop.url, handshake("/echo", host="evil.example"))
    assert answer.status == 403

    async with opening(shop, "/echo", additional_headers={"origin": shop.url}) as ws:
        await ws.send("own page")
        assert await ws.recv() == "own page"


async def test_where_a_key_is_needed(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ, host="0.0.0.0") as shop:
        key = (await shop.event("serving")).fields["key"]
        for headers in ({}, {"authorization": "Bearer wrong"}):
            assert (await refused(shop, "/echo", additional_headers=headers)).response.status_code == 401
        async with opening(shop, "/echo", additional_headers={"authorization": f"Bearer {key}"}) as ws:
            await ws.send("known")
            assert await ws.recv() == "known"


async def test_where_there_is_no_socket(shop: Served) -> None:
    missing, plain = await refused(shop, "/nothing"), await refused(shop, "/v2/echo/status/x")
    assert (missing.response.status_code, plain.response.status_code) == (404, 404)
    upgrade = await shop.get("/echo")
    assert (upgrade.status_code, upgrade.headers["upgrade"]) == (426, "websocket")
    both = await shop.client.delete(shop.url + "/strict")
    assert (both.status_code, both.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await shop.get("/strict")).json() == "plain"


def handshake(path: str, **options: Any) -> bytes:
    key = [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")]
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    return request("GET", path, close=False, headers=[*upgrade, *key], **options)


def after_handshake(url: str, data: bytes) -> bytes:
    """What the server sends once these bytes come on an open WebSocket, until it hangs up."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock, sock.makefile("rb") as answer:
        sock.sendall(handshake("/echo"))
        while answer.readline() != b"\r\n":
            pass
        sock.sendall(data)
        return answer.read()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
        (b"\xff" * 64, 1002),
        (b"\x81\x02hi", 1002),  # not masked
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),  # no UTF-8
        (b"\x00\x80\0\0\0\0", 1002),  # goes on with nothing
    ],
)
async def test_garbage_after_the_handshake(shop: Served, data: bytes, code: int) -> None:
    frame = await asyncio.to_thread(after_handshake, shop.url, data)

    assert (frame[0], int.from_bytes(frame[2:4], "big")) == (0x88, code)
    await nobody_served(shop, "echo")
    assert shop.named("internal") == []


async def test_the_return_of_a_function_is_a_normal_close(shop: Served) -> None:
    async with opening(shop, "/echo") as ws:
        await ws.send("end")
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()
