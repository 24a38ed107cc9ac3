"""A server with a release: restarts that refuse nobody, deaths that lose nothing, and who may ask for what."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.dev_process import START_S, wait_until
from tests.serve import process
from tests.serve.process import Server

PROJECT = {
    "flashfw.toml": '[project]\nname = "shop"\n',
    "endpoints/echo/handler.py": "def handler(n: int) -> int:\n    return n\n",
    "endpoints/echo/endpoint.toml": "workers = [1, 1]\nconcurrency = 8\n",
    "endpoints/hi/handler.py": "def get() -> str:\n    return 'hi'\n",
    "endpoints/hi/endpoint.toml": "workers = [1, 1]\npublic = true\n",
    "endpoints/slow/handler.py": "import time\ndef handler(n: int) -> int:\n    time.sleep(0.1)\n    return n\n",
    "endpoints/slow/endpoint.toml": "workers = [0, 1]\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    with process.serving(folder) as server:
        process.ship(server, folder, PROJECT)
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=START_S, trust_env=False) as client:
        yield client


async def request(server: Server, head: str, body: str = "") -> tuple[int, str]:
    """One request on a connection of its own, without a second try; its status and its body."""
    reader, writer = await asyncio.open_connection(*server.address)
    lines = (head, "Host: here", f"Authorization: Bearer {server.key}", f"Content-Length: {len(body)}")
    more = "Content-Type: application/json\r\nConnection: close\r\n\r\n"
    writer.write("".join(f"{line}\r\n" for line in lines).encode() + more.encode() + body.encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]) if answer else 0, answer.rpartition("\r\n\r\n")[2]


def test_three_restarts_under_constant_load_refuse_and_fail_nobody(server: Server) -> None:
    failed: list[Any] = []
    counts = {"POST /echo HTTP/1.1": 0, "GET /hi HTTP/1.1": 0, "POST /slow HTTP/1.1": 0}
    over = anyio.Event()

    async def ask(head: str) -> None:
        while not over.is_set():
            try:
                status, body = await request(server, head, '{"n": 7}' if head.startswith("POST") else "")
            except OSError as error:
                status, body = -1, repr(error)
            if status != 200 or body not in ("7", '"hi"'):
                failed.append((head, status, body))
            counts[head] += 1

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for head in counts:
                for _ in range(2):
                    tasks.start_soon(ask, head)
            try:
                for _ in range(3):
                    await anyio.to_thread.run_sync(server.restart)
            finally:
                over.set()

    anyio.run(main)
    assert failed == []
    assert min(counts.values()) > 3


def test_jobs_that_were_accepted_outlive_a_gateway_that_is_killed(server: Server, client: httpx.Client) -> None:
    sent = [client.post("/slow", json={"n": n}, headers={"prefer": "respond-async"}) for n in range(8)]
    assert [answer.status_code for answer in sent] == [202] * 8
    [gateway] = server.gateways()

    gateway.kill()

    assert asyncio.run(request(server, "GET /_flashfw/live HTTP/1.1"))[0] == 200
    ids = [answer.json()["id"] for answer in sent]
    wait_until(lambda: all(status(client, job) == "COMPLETED" for job in ids), "all jobs are done", deadline_s=START_S)
    assert "it was killed by SIGKILL" in server.output()


def status(client: httpx.Client, job: str) -> str:
    state: str = client.get(f"/v2/slow/status/{job}").json()["status"]
    return state


def test_who_may_ask_for_what(server: Server, client: httpx.Client) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=START_S) as stranger:
        open_to_all = ["/_flashfw/live", "/_flashfw/ready", "/hi"]
        assert [stranger.get(path).status_code for path in open_to_all] == [200, 200, 200]
        assert stranger.post("/echo", json={"n": 1}).status_code == 401
        assert stranger.get("/_flashfw/metrics").status_code == 401
    made = client.post("/_flashfw/keys", json={"name": "app", "scope": "call"}).json()
    caller = {"authorization": f"Bearer {made['key']}"}
    assert client.post("/echo", json={"n": 1}, headers=caller).json() == 1
    assert client.get("/_flashfw/server", headers=caller).json()["project"] == "shop"
    for method, path in (("GET", "/_flashfw/metrics"), ("GET", "/_flashfw/status"), ("POST", "/_flashfw/releases")):
        assert client.request(method, path, headers=caller).status_code == 403


def test_the_metrics_tell_what_happened(server: Server, client: httpx.Client) -> None:
    assert client.post("/echo", json={"n": 1}).status_code == 200
    assert client.get("/hi").status_code == 200

    answer = client.get("/_flashfw/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'flashfw_jobs_ended_total{function="echo",reason="",state="COMPLETED"}',
        'flashfw_http_requests_total{function="echo",status="2xx"}',
        'flashfw_workers{endpoint="hi",state="IDLE"} 1.0',
        'flashfw_info{environment="local",project="shop",version="',
        "process_resident_memory_bytes",
    ):
        assert line in answer.text


def test_a_webhook_into_the_server_is_refused_with_the_request(server: Server, client: httpx.Client) -> None:
    for url in ("http://127.0.0.1/", "http://localhost:8899/", "http://10.0.0.1/"):
        answer = client.post("/echo", json={"n": 1}, headers={"flashfw-webhook": url, "prefer": "respond-async"})
        assert answer.status_code == 422, url


def test_what_administration_does_not_know_is_404_and_what_it_does_not_do_405(client: httpx.Client) -> None:
    assert client.get("/_flashfw/nothing").json()["error"]["reason"] == "not_found"
    wrong = client.delete("/_flashfw/metrics")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
    assert client.delete("/_flashfw/releases").headers["allow"] == "GET, HEAD, POST"
    assert client.put("/_flashfw/secrets/TOKEN%0A", json={"value": "x"}).status_code == 404


def test_the_log_has_lines_for_people_and_no_key(server: Server, client: httpx.Client) -> None:
    assert client.post("/echo", json={"n": 1}).status_code == 200
    wait_until(lambda: "200 POST /echo" in server.output(), "the line is written")
    assert server.key not in server.output()
    record = json.loads((server.data / "serving.json").read_text())
    assert (record["url"], record["pid"], record["key"]) == (server.url, server.process.pid, "")


def test_a_killed_parent_takes_all_with_it(tmp_path: Path) -> None:
    with process.serving(tmp_path, "--grace", "1s") as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()

        wait_until(lambda: not server.left(), "the gateway is gone")
