"""A headless Chromium driven over its DevTools socket: enough to look at a page and to use it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.dev_process import wait_until

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--window-size=1280,1000",
    "--remote-debugging-port=0",
]


class Page:
    """One tab. `run` evaluates JavaScript and waits for its promise; `failures` are uncaught errors of the page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.failures: list[str] = []

    def command(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(30))
            if message.get("method") == "Runtime.exceptionThrown":
                self.failures.append(json.dumps(message["params"]["exceptionDetails"])[:2000])
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def open(self, url: str) -> None:
        self.command("Runtime.enable")
        self.command("Page.navigate", url=url)
        self.until("document.body && document.body.dataset.state === 'ready'")

    def run(self, script: str) -> Any:
        done = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, condition: str) -> None:
        """Return once a JavaScript expression is true."""
        wait_until(lambda: bool(self.run(condition)), condition)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A browser with one empty tab."""
    assert PATH is not None
    command = [PATH, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with connect(_socket_url(profile), max_size=None, proxy=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(20)


def _socket_url(profile: Path) -> str:
    """The address of the first tab, once the browser has written where it listens."""
    place = profile / "DevToolsActivePort"
    wait_until(lambda: place.exists() and "\n" in place.read_text(), "the browser listens")
    port = place.read_text().split("\n")[0]
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with direct.open(f"http://127.0.0.1:{port}/json/list", timeout=10) as response:
            for tab in json.load(response):
                if tab["type"] == "page":
                    return str(tab["webSocketDebuggerUrl"])
    raise AssertionError("the browser opened no tab")
