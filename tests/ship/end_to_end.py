"""A `flashfw serve` with users who ship to it, and a shop to ship."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from flashfw.build.build import build as real_build
from flashfw.project.root import find
from flashfw.whole import ASIDE
from tests import command
from tests.command import COMMAND, Forked
from tests.dev_process import wait_until
from tests.ship.builds import SHOP, Shippable, write

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
START_S = 120.0


@dataclass
class Served:
    """A running `flashfw serve` and how its users are set up: `environ` has its key."""

    base: Path
    environ: Mapping[str, str]
    options: tuple[str, ...]
    process: subprocess.Popen[bytes]
    url: str
    key: str

    @property
    def data(self) -> Path:
        return self.base / "data"

    def output(self) -> str:
        return (self.base / "log").read_text("utf-8", "replace")

    def call(self, name: str, value: Any, **headers: str) -> httpx.Response:
        with self.client() as client:
            return client.post(name, json=value, headers=headers)

    def client(self) -> httpx.Client:
        """Makes a new connection for each request."""
        headers = {"authorization": f"Bearer {self.key}", "connection": "close"}
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the machine's authorities takes 30 ms
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False, verify=verify)

    def gateway(self) -> psutil.Process:
        """The process that answers; the only one where no restart is under way."""
        [found] = psutil.Process(self.process.pid).children()
        return found

    def processes(self) -> list[psutil.Process]:
        """Whatever runs with the data directory on its command line: parent, gateway, workers."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and str(self.data) in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def half_done(self) -> list[Path]:
        """What is neither a layer nor an environment, but was to become one, or was one."""
        folders = [self.data / name for name in ("layers", "environments")]
        return [path for folder in folders if folder.is_dir() for path in folder.glob(f"{ASIDE}*")]

    def start_again(self) -> None:
        """After its end: on the same data, at the same address."""
        self.process, _ = _start(self.base, self.environ, ("--port", self.url.rpartition(":")[2], *self.options))


@contextmanager
def serving(base: Path, environ: Mapping[str, str], *options: str) -> Iterator[Served]:
    """A server with its data below `base`, ended in good order."""
    process, document = _start(base, environ, ("--port", "0", *options))
    users = {**environ, "FLASHFW_KEY": document["key"]}
    served = Served(base, users, options, process, document["url"], document["key"])
    try:
        yield served
    finally:
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0, served.output()
    assert served.processes() == []


def _start(base: Path, environ: Mapping[str, str], options: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], Any]:
    said, log = base / "said", base / "log"
    arguments = ("serve", "--data", str(base / "data"), "--grace", "1s", "--json", *options)
    with said.open("wb") as out, log.open("ab") as errors:
        process = subprocess.Popen([COMMAND, *arguments], cwd=base, env=environ, stdout=out, stderr=errors)
    wait_until(lambda: process.poll() is not None or said.read_text().endswith("}\n"), "it serves", deadline_s=START_S)
    assert process.poll() is None, log.read_text()
    return process, json.loads(said.read_text())


def here(files: Mapping[str, str]) -> dict[str, str]:
    """The files for the Python that runs this."""
    return {name: text.replace('python = "3.12"', f'python = "{PYTHON}"') for name, text in files.items()}


def built(folder: Path, environ: Mapping[str, str]) -> Shippable:
    cache = Path(environ["XDG_CACHE_HOME"]) / "flashfw"
    return real_build(find(folder), environment="prod", variables=environ, cache=cache)


def locked(folder: Path, environ: Mapping[str, str]) -> str:
    """The lock of the shop, and of every project that adds no package to it."""
    write(folder, here(SHOP))
    built(folder, environ)
    return (folder / "flashfw.lock").read_text()


def shop(folder: Path, served: Served, lock: str) -> Path:
    """The shop in a folder, with the server as its environment `prod`."""
    files = {**here(SHOP), "flashfw.lock": lock}
    files["flashfw.toml"] = files["flashfw.toml"].replace("http://127.0.0.1:1", served.url)
    return write(folder, files)


def answering(value: int, *, more: str = "") -> dict[str, str]:
    """The job of the shop, with that default for what it adds."""
    text = f"{more}def handler(a: int, b: int = {value}) -> int:\n    return a + b\n"
    return {"endpoints/add/handler.py": text}


def flashfw(project: Path, served: Served, *arguments: str, code: int = 0, stdin: bytes = b"") -> tuple[str, str]:
    done = command.flashfw(*arguments, cwd=project, environ=served.environ, stdin=stdin)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


@contextmanager
def shipping(project: Path, served: Served) -> Iterator[tuple[Forked, Iterator[str]]]:
    """A ship that goes on in the block, and the lines that it says; it is over at the end of the block."""
    ours, theirs = os.pipe()
    process = Forked("ship", "prod", "--yes", cwd=project, environ=served.environ, stderr=theirs)
    os.close(theirs)
    with os.fdopen(ours) as said:
        try:
            yield process, said
        finally:
            process.kill()
            process.wait()
