"""What is measured: a project under `flashfw dev`, and the same on bare Starlette, each a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

FLASHFW = str(Path(sys.executable).with_name("flashfw"))
BODY = json.dumps({"prompt": "a cat on a mat", "steps": 20}).encode()
START_S = 60.0
PEERS = ("flashfw", "starlette", "uvicorn", "uvloop", "httptools", "pydantic")

PROJECT = {
    "flashfw.toml": '[project]\nname = "bench"\n',
    "endpoints/job/endpoint.toml": "workers = [1, 1]\nconcurrency = 100\n",
    "endpoints/job/handler.py": "async def handler(input):\n    return input\n",
    "endpoints/web/endpoint.toml": "workers = [1, 1]\nconcurrency = 100\n",
    "endpoints/web/handler.py": "async def post(body: dict):\n    return body\n",
    "endpoints/cold/handler.py": "def handler(input):\n    return input\n",
    "endpoints/edited/endpoint.toml": "workers = [1, 1]\n",
    "endpoints/edited/handler.py": "async def get():\n    return 0\n",
}

STARLETTE = {
    "bare.py": """\
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from edited import get


async def echo(request):
    return JSONResponse(await request.json())


async def edited(request):
    return JSONResponse(await get())


app = Starlette(routes=[Route("/web", echo, methods=["POST"]), Route("/edited", edited)])
""",
    "edited.py": "async def get():\n    return 0\n",
}


class Server(NamedTuple):
    """A running server."""

    url: str
    pid: int


def environ() -> dict[str, str]:
    """The variables of what is measured: byte-code is cached, as it is for whoever installed it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def machine() -> dict[str, str]:
    """What the figures depend on."""
    names = {name: version(name) for name in PEERS}
    load = f"{os.getloadavg()[0]:.1f}"
    return {"cpus": str(os.cpu_count()), "load": load, "python": platform.python_version(), **names}


@contextmanager
def folder(files: dict[str, str]) -> Iterator[Path]:
    """A temporary folder with these files."""
    with tempfile.TemporaryDirectory(prefix="flashfw-bench-") as root:
        for name, text in files.items():
            (Path(root) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(root) / name).write_text(text)
        yield Path(root)


@contextmanager
def flashfw_dev(project: Path) -> Iterator[Server]:
    """A `flashfw dev` over the folder."""
    with _running([FLASHFW, "dev", "--port", "0", "--json"], project) as process:
        yield Server(_told(process)["url"], process.pid)


@contextmanager
def flashfw_serve(project: Path, environment: str) -> Iterator[tuple[Server, str]]:
    """A `flashfw serve` of its own, with its admin key, to which the folder was shipped as that environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (project / "flashfw.toml").open("a") as file:
        file.write(f'[environments.{environment}]\nurl = "http://127.0.0.1:{port}"\n')
    with tempfile.TemporaryDirectory(prefix="flashfw-bench-") as data:
        kinds = {f"XDG_{kind}_HOME": f"{data}/{kind.lower()}" for kind in ("CONFIG", "DATA")}
        command = [FLASHFW, "serve", "--data", f"{data}/server", "--port", str(port), "--quiet", "--json"]
        with _running(command, project, kinds) as process:
            told = _told(process)
            variables = {**environ(), **kinds, "FLASHFW_KEY": told["key"]}
            ship = [FLASHFW, "ship", environment, "--yes"]
            done = subprocess.run(ship, cwd=project, env=variables, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"flashfw ship: {done.stderr.strip()[-300:]}")
            yield Server(told["url"], process.pid), told["key"]


def _told(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """The document that a server prints once it serves."""
    assert process.stdout is not None
    told = b""
    while not told.rstrip().endswith(b"}"):
        line = process.stdout.readline()
        if not line:
            raise SystemExit("flashfw did not start")
        told += line
    return dict(json.loads(told))


@contextmanager
def starlette(project: Path, *options: str) -> Iterator[Server]:
    """uvicorn with uvloop and httptools over the folder's application."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "bare:app", "--port", str(port), "--loop", "uvloop"]
    quiet = ["--http", "httptools", "--no-access-log", "--log-level", "error"]
    with _running([*command, *quiet, *options], project) as process:
        until = time.monotonic() + START_S
        while answer(f"http://127.0.0.1:{port}", "GET", "/edited") is None:
            if time.monotonic() > until:
                raise SystemExit("uvicorn did not start")
            time.sleep(0.01)
        yield Server(f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def _running(
    command: list[str], project: Path, variables: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command, cwd=project, env=environ() | (variables or {}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def connect(url: str) -> http.client.HTTPConnection:
    """One connection that stays open."""
    host = urlsplit(url)
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=30)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answer(url: str, method: str, path: str, body: bytes | None = None, *, key: str = "") -> object:
    """What one request on a fresh connection is answered; None for no answer or another status than 200."""
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        connection = connect(url)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
            return json.loads(content) if response.status == 200 else None
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None
