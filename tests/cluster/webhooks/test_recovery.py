"""A webhook that its server has not sent when it is killed is sent by the next one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from tests.conftest import StartDev
from tests.dev_process import wait_until
from tests.served import write

FILES = {"endpoints/double/handler.py": "def handler(n: int) -> int:\n    return 2 * n\n"}


class Hooks(HTTPServer):
    """Takes webhooks and remembers them."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Hook)
        self.taken: list[tuple[dict[str, str], bytes]] = []


class Hook(BaseHTTPRequestHandler):
    """Says yes to each."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Hooks)
        self.server.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def taking(port: int) -> Iterator[Hooks]:
    with Hooks(port) as hooks:
        thread = threading.Thread(target=hooks.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hooks
        finally:
            hooks.shutdown()
            thread.join()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.timeout(90)
def test_a_server_that_is_killed_leaves_its_webhooks_to_the_next(tmp_path: Path, flashfw_dev: StartDev) -> None:
    project, port = write(tmp_path / "shop", FILES), free_port()
    server = flashfw_dev(project)
    body = {"input": {"n": 21}, "webhook": f"http://127.0.0.1:{port}/done"}
    done = server.call("/v2/double/runsync", body)
    assert isinstance(done, dict)
    assert done["output"] == 42
    wait_until(lambda: "cannot be reached" in server.output(), "the first try has failed, nobody being there")
    server.crash()

    with taking(port) as hooks:
        flashfw_dev(project)
        wait_until(lambda: bool(hooks.taken), "the webhook is told")

    (headers, told), *more = hooks.taken
    secret = (project / ".flashfw" / "webhook-secret").read_text().strip()
    record = Webhook(secret).verify(told, headers)
    assert (record["id"], record["output"], record["input"]) == (done["id"], 42, {"n": 21})
    assert record["webhook"] == body["webhook"]
    assert more == []
