"""Requests that no polite client sends, on raw sockets: each gets an answer or an end, and the next one is served."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.conftest import StartDev
from tests.dev_process import DevServer, wait_until
from tests.served import write
from tests.wire import exchange, request

FILES = {
    "endpoints/anything/handler.py": "def handler(input):\n    return input\n",
    "endpoints/api/handler.py": """
        from starlette.requests import Request

        def get(q: str = "none", n: int = 0) -> list:
            return [q, n]

        async def post(request: Request) -> int:
            return sum([len(piece) async for piece in request.stream()])
        """,
    "endpoints/api/word/_w_/handler.py": "def get(w: str) -> str:\n    return w\n",
    "endpoints/api/rest/handler.py": "route = '/api/rest/{path:path}'\n\ndef get(path: str) -> str:\n    return path\n",
    "endpoints/one/endpoint.toml": "workers = 1\nconcurrency = 1\n",
    "endpoints/one/handler.py": "def handler(input):\n    return input\n",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, module_flashfw_dev: StartDev) -> DevServer:
    return module_flashfw_dev(write(tmp_path_factory.mktemp("requests") / "shop", FILES))


@pytest.fixture(autouse=True)
def still_serving(shop: DevServer) -> Iterator[None]:
    """The next call is answered, and no traceback of flashfw was shown."""
    yield
    assert shop.call("/anything", [1]) == [1]
    assert "Traceback" not in shop.output()


HOST = b"Host: 127.0.0.1\r\nConnection: close\r\n"


@pytest.mark.parametrize("path", [b"/anything", b"/api"])
@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: -1\r\n\r\n1",
        b"Content-Length: abc\r\n\r\n1",
        b"Content-Length: 99999999999999999999999\r\n\r\n1",
        b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip\r\n\r\n1",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n1\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n1\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n1\r\n0\r\n\r\n",
        b"No-Colon\r\n\r\n",
        b"Space : x\r\n\r\n",
        b"Folded: x\r\n y\r\n\r\n",
        b"Null: x\0y\r\n\r\n",
    ],
)
def test_malformed_heads_and_chunks(shop: DevServer, path: bytes, rest: bytes) -> None:
    assert exchange(shop.url, b"POST " + path + b" HTTP/1.1\r\n" + HOST + rest).status == 400


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /api HTTP/3.0\r\n" + HOST + b"\r\n",
        b"GET api HTTP/1.1\r\n" + HOST + b"\r\n",
        b"get /api HTTP/1.1\r\n" + HOST + b"\r\n",
        b"MADEUP /api HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /api/word/\0 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /api/word/\xe2\x82\xac HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
def test_what_is_no_http(shop: DevServer, data: bytes) -> None:
    assert exchange(shop.url, data).status == 400


@pytest.mark.parametrize("path", ["/anything", "/v2/anything/run", "/api"])
@pytest.mark.parametrize("rest", [b"Content-Length: 10\r\n\r\n1", b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n"])
def test_a_body_that_is_cut_off_is_nothing(shop: DevServer, path: str, rest: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\n".encode() + HOST

    assert exchange(shop.url, head + rest, half_close=True).raw == b""


def test_a_body_that_never_ends_keeps_nobody_waiting(shop: DevServer) -> None:
    """Its connections stay; a function that takes one call at a time answers others meanwhile."""
    parts = urlsplit(shop.url)
    slow = [socket.create_connection((parts.hostname, parts.port)) for _ in range(20)]
    try:
        for number, sock in enumerate(slow):
            path = ["/one", "/v2/one/run"][number % 2]
            sock.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n[".encode())
        assert shop.call("/one", 7) == 7
    finally:
        for sock in slow:
            sock.close()


@pytest.mark.parametrize("path", ["/anything", "/v2/anything/run"])
def test_a_length_beyond_the_limit_is_refused_by_its_head(shop: DevServer, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\n".encode() + HOST

    answer = exchange(shop.url, head + b"Content-Length: 9223372036854775807\r\n\r\n")

    assert (answer.status, "max_body (10000000 bytes)" in answer.message) == (413, True)


def test_pipelined_requests_are_answered_in_their_order(shop: DevServer) -> None:
    several = [request("POST", "/anything", b"1", close=False), request("GET", "/nothing", close=False)]
    several += [request("POST", "/anything", b"x", content_type="text/plain", close=False)]

    raw = exchange(shop.url, b"".join([*several, request("POST", "/anything", b"2")])).raw

    statuses = [part.split(b" ", 1)[0] for part in raw.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"415", b"200"]


def test_many_at_once_that_leave_at_once(shop: DevServer) -> None:
    """Clients that go as soon as they have asked: their jobs are kept and done."""
    parts = urlsplit(shop.url)

    def ask_and_go() -> None:
        for _ in range(10):
            with socket.create_connection((parts.hostname, parts.port)) as sock:
                sock.sendall(request("POST", "/one", b"[3]"))

    before = exchange(shop.url, request("GET", "/v2/one/health")).json()["jobs"]
    crowd = [threading.Thread(target=ask_and_go) for _ in range(5)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()

    def jobs() -> dict[str, int]:
        found = exchange(shop.url, request("GET", "/v2/one/health")).json()["jobs"]
        return {name: count - before[name] for name, count in found.items()}

    wait_until(lambda: jobs()["inQueue"] + jobs()["inProgress"] == 0, "the jobs are done")
    assert jobs()["failed"] == 0


# Paths and queries


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/word/a%2Fb", 404, "nothing is served at /api/word/a/b"),
        ("/api/../anything", 404, "nothing is served at /api/../anything"),
        ("/api/%2e%2e/anything", 404, "nothing is served at /api/../anything"),
        ("//api", 404, "did you mean /api?"),
        ("//evil.example/api", 404, "nothing is served"),
        ("/api/", 404, "did you mean /api?"),
        ("/API", 404, "nothing is served at /API"),
        ("/" + "a" * 10_000, 404, "nothing is served at /aaa"),
        ("/%00", 404, "nothing is served"),
        ("/%FF", 404, "nothing is served"),
        ("/v2", 404, "nothing is served at /v2"),
        ("/v2/", 404, "no job function at /v2"),
        ("/v2/run", 404, "no job function at /v2/run"),
        ("/v2//run", 404, "no job function at /v2//run"),
        ("/v2/api::get/run", 404, "no job function at /v2/api::get/run"),
        ("/v2/anything/status", 404, "no operation of a job function"),
        ("/v2/anything/status/a/b/c", 404, "no operation of a job function"),
        ("/v2/anything/status/a%2Fb", 404, "no operation of a job function"),
        ("/v2/anything/status/..", 404, "anything has no job '..'"),
        ("/v2/anything/status/%00", 404, "anything has no job '\\x00'"),
        ("/v2/anything/status/%E2%82%AC", 404, "anything has no job '€'"),
        ("/v2/anything/status/" + "a" * 10_000, 404, "anything has no job"),
        ("/_flashfw/jobs/a/b/events", 404, "nothing is served at /_flashfw/jobs/a/b/events"),
        ("/_flashfw/jobs//events", 404, "nothing is served at /_flashfw/jobs//events"),
        ("/api?n=x", 422, "valid integer"),
        ("/api?n=" + "1" * 5_000, 422, "exceeded maximum size"),
    ],
)
def test_paths_that_lead_nowhere(shop: DevServer, path: str, status: int, words: str) -> None:
    answer = exchange(shop.url, request("GET", path))

    assert (answer.status, words in answer.message) == (status, True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/api/word/%E2%82%AC", "€"),
        ("/api/word/%FF", "\ufffd"),
        ("/api/word/%00", "\0"),
        ("/api/word/%zz", "%zz"),
        ("/api/word/" + "a" * 10_000, "a" * 10_000),
        ("/api/rest/../../etc/passwd", "../../etc/passwd"),
        ("/api?" + "&".join(f"q={number}" for number in range(1_000)), ["999", 0]),
        ("/api?" + "&".join(f"x{number}" for number in range(1_000)), ["none", 0]),
        ("/api?q=%FF", ["\ufffd", 0]),
        ("/api?q=%00&&=&q", ["", 0]),
        ("http://127.0.0.1/api?q=absolute", ["absolute", 0]),
    ],
)
def test_odd_paths_that_lead_somewhere(shop: DevServer, path: str, value: object) -> None:
    answer = exchange(shop.url, request("GET", path))

    assert (answer.status, answer.json()) == (200, value)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "HEAD", "PATCH", "PROPFIND", "PURGE"])
def test_methods_that_a_function_does_not_take(shop: DevServer, method: str) -> None:
    answer = exchange(shop.url, request(method, "/anything"))

    assert (answer.status, "allow: options, post" in answer.head) == (405, True)


def test_a_websocket_is_refused_where_there_is_none(shop: DevServer) -> None:
    key = [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")]
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")]

    for path in ("/api", "/anything", "/nothing"):
        assert exchange(shop.url, request("GET", path, close=False, headers=[*upgrade, *key])).status == 404
    assert exchange(shop.url, request("GET", "/api", close=False, headers=upgrade)).status == 400


# Headers


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Prefer", "wait=abc", 200),
        ("Prefer", "wait=-1", 200),
        ("Prefer", "wait=", 200),
        ("Prefer", "wait=99999999999", 200),
        ("Prefer", "\xff", 200),
        ("Prefer", "respond-async, wait=x", 202),
        ("Accept", "*/*", 200),
        ("Accept", "text/html", 200),
        ("Accept", ";;;", 200),
        ("Accept", "\xff", 200),
        ("Content-Type", "application/problem+json; charset=utf-8", 200),
        ("Expect", "100-continue", 100),
        ("X", "a" * 60_000, 200),
    ],
)
def test_odd_headers_of_a_job(shop: DevServer, name: str, value: str, status: int) -> None:
    answer = exchange(shop.url, request("POST", "/anything", b"[2]", headers=[(name, value)], content_type=None))

    assert answer.status == status
    assert status == 202 or answer.raw.endswith(b"[2]")


@pytest.mark.parametrize("accept", ["text/event-stream;q=0", "application/json, text/event-stream;q=0.5"])
def test_events_are_for_those_who_prefer_them(shop: DevServer, accept: str) -> None:
    plain = exchange(shop.url, request("POST", "/anything", b"[2]", headers=[("Accept", accept)]))
    story = exchange(shop.url, request("POST", "/anything", b"[2]", headers=[("Accept", "Text/Event-Stream; q=0.1")]))

    assert (plain.status, plain.json()) == (200, [2])
    assert b"event: completed" in story.raw


@pytest.mark.parametrize("headers", [[("X", "a" * 10_000_000)], [(f"X{number}", "a" * 500) for number in range(2_000)]])
def test_a_head_without_end(shop: DevServer, headers: list[tuple[str, str]]) -> None:
    """The connection ends, with the reason where the client still listens."""
    answer = exchange(shop.url, request("GET", "/api", headers=headers))

    assert answer.status in (0, 431)
    assert exchange(shop.url, request("POST", "/anything", b" " * 1_000_000 + b"1")).json() == 1


@pytest.mark.parametrize("last", ["-1", "x", "\xb2", "9" * 5_000])
def test_odd_ids_of_a_last_event(shop: DevServer, last: str) -> None:
    headers = [("Accept", "text/event-stream"), ("Last-Event-ID", last)]

    answer = exchange(shop.url, request("POST", "/anything", b"[2]", headers=headers))

    assert (answer.status, b"event: completed" in answer.raw) == (200, True)


@pytest.mark.parametrize("wait", ["-5", "abc", "", "%C2%B2", "9" * 5_000])
def test_odd_waits_of_the_job_api(shop: DevServer, wait: str) -> None:
    answer = exchange(shop.url, request("POST", f"/v2/anything/runsync?wait={wait}", b'{"input": 1}'))

    assert (answer.status, answer.json()["output"]) == (200, 1)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ([1], "policy must be an object"),
        ({"ttl": 1e300}, "policy.ttl is 1e+300; it takes milliseconds from 10000 to 604800000"),
        ({"ttl": -1}, "policy.ttl is -1"),
        ({"ttl": "1 h"}, "policy.ttl is '1 h'"),
        ({"executionTimeout": True}, "policy.executionTimeout is True"),
    ],
)
def test_policies_that_are_none(shop: DevServer, policy: object, words: str) -> None:
    body = json.dumps({"input": 1, "policy": policy}).encode()

    answer = exchange(shop.url, request("POST", "/v2/anything/run", body))

    assert (answer.status, words in answer.message) == (400, True)


def test_nothing_was_left_open(shop: DevServer) -> None:
    """After all of that the queues are empty: what was refused became no job."""
    for function in ("anything", "one"):
        jobs = exchange(shop.url, request("GET", f"/v2/{function}/health")).json()["jobs"]
        assert (jobs["inQueue"], jobs["inProgress"], jobs["failed"]) == (0, 0, 0)
