"""A page of another server of this machine in a real browser: what it may call with a middleware.py, and without."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import browser
from tests.dev_process import DevServer
from tests.served import write

pytestmark = pytest.mark.skipif(browser.PATH is None, reason="there is no Chromium")

HANDLER = """
    from starlette.websockets import WebSocket

    def post(text: str) -> dict[str, str]:
        return {"text": text}

    async def websocket(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_text("open")
"""
FILES = {
    "endpoints/shared/handler.py": HANDLER,
    "endpoints/shared/middleware.py": """
        from starlette.middleware import Middleware
        from starlette.middleware.cors import CORSMiddleware

        middleware = [
            Middleware(
                CORSMiddleware, allow_origin_regex=".*127.0.0.1:.*", allow_methods=["POST"], allow_headers=["x-own"]
            )
        ]
        """,
    "endpoints/own/handler.py": HANDLER,
    "endpoints/job/handler.py": "def handler(text: str) -> str:\n    return text\n",
}
SCRIPT = """
(async () => {
  const said = {}
  for (const path of ['/shared', '/own', '/job']) {
    for (const type of ['application/json', 'text/plain']) {
      try {
        const headers = type === 'text/plain' ? {} : {'content-type': type, 'x-own': '1'}
        const answer = await fetch(URL + path, {method: 'POST', headers, body: '{"text": "hi"}'})
        said[`${path} ${type}`] = [answer.status, type === 'text/plain' ? null : await answer.json()]
      } catch (error) { said[`${path} ${type}`] = error.name }
    }
  }
  for (const path of ['/shared', '/own']) {
    said['ws ' + path] = await new Promise(resolve => {
      const socket = new WebSocket(URL.replace('http', 'ws') + path)
      socket.onmessage = event => resolve(event.data)
      socket.onerror = () => resolve('refused')
    })
  }
  return said
})()
"""


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<body data-state='ready'>a frontend</body>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of it."""


@contextmanager
def frontend() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_page_of_another_server(tmp_path: Path, flashfw_dev: Callable[..., DevServer]) -> None:
    dev = flashfw_dev(write(tmp_path / "shop", FILES))
    with frontend() as url, browser.browsing(tmp_path / "profile") as page:
        page.open(url)
        said = page.run(SCRIPT.replace("URL", json.dumps(dev.url)))

    assert said == {
        "/shared application/json": [200, {"text": "hi"}],
        "/shared text/plain": [415, None],
        "/own application/json": "TypeError",
        "/own text/plain": "TypeError",
        "/job application/json": "TypeError",
        "/job text/plain": "TypeError",
        "ws /shared": "open",
        "ws /own": "refused",
    }
    assert dev.request("GET", "/_flashfw/jobs").json() == {"jobs": [], "before": None}
