"""`flashfw serve` as a process of its own, and releases for it that need no package index."""

from __future__ import annotations

import json
import os
import platform
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from flashfw.bundle.archive import Entry, pack
from flashfw.bundle.release import Packages, Release
from flashfw.cluster.releases.platforms import platform_name
from flashfw.project.collect import collect
from flashfw.project.compile import compile
from flashfw.project.fingerprint import fingerprint
from flashfw.project.root import find
from flashfw.ship.cluster import Cluster
from tests.dev_process import COMMAND, START_S, STOP_S, wait_until
from tests.served import write

PYTHON = ".".join(platform.python_version_tuple()[:2])
KEY = "0123456789abcdef"

ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does with a socket unit."""


@dataclass
class Server:
    """A running `flashfw serve`."""

    data: Path
    process: subprocess.Popen[bytes]
    log: Path
    url: str
    key: str

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.rpartition("/")[2].rpartition(":")
        return host, int(port)

    def gateways(self) -> list[psutil.Process]:
        """The processes that answer or get ready to: children of the parent that holds the socket."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def restart(self) -> None:
        """SIGHUP, and wait until another gateway serves."""
        count = self.output().count(" serves\n")
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.output().count(" serves\n") > count, "another gateway serves", deadline_s=START_S)

    def stop(self) -> None:
        """SIGTERM: the exit code must be 0, and no process may be left."""
        if self.process.returncode is None:
            self.process.terminate()
            code = self.process.wait(STOP_S)
            wait_until(lambda: not self.left(), "no process of the server is left")
            assert code == 0, f"flashfw serve ended with {code}\n{self.output()}"

    def left(self) -> list[psutil.Process]:
        """Whatever runs with the data directory on its command line or as its folder."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                here = str(self.data)
                if process.status() != psutil.STATUS_ZOMBIE and (
                    here in process.cmdline() or Path(process.cwd()).is_relative_to(self.data)
                ):
                    found.append(process)
        return found


@contextmanager
def serving(
    folder: Path, *arguments: str, sock: socket.socket | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server with its data in the folder, ended in good order; `sock` is handed over as systemd does."""
    data, out, log = folder / "data", folder / "out", folder / "log"
    command = [str(COMMAND), "serve", "--data", str(data), "--port", "0", "--json", *arguments]
    if sock is not None:
        command = [sys.executable, "-c", ACTIVATED, str(sock.fileno()), *command]
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[] if sock is None else [sock.fileno()],
        )
    server = Server(data, process, log, "", "")
    try:
        wait_until(lambda: process.poll() is not None or _is_json(out), "the server is ready", deadline_s=START_S)
        assert process.poll() is None, server.output()
        told = json.loads(out.read_text())
        server.url, server.key = told["url"], told["key"]
        assert told["pid"] == process.pid
        yield server
        server.stop()
    finally:
        for left in [*server.left(), *server.gateways()]:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        process.kill()
        process.wait()


def ship(server: Server, folder: Path, files: Mapping[str, str]) -> None:
    """Roll out a project whose workers import what the interpreter of the tests has."""
    root = find(write(folder / "project", files))
    manifest, problems = compile(collect(root), environment="local")
    assert problems == ()
    source = pack([Entry(name, text.encode()) for name, text in _files(root.path).items()], folder / "source")
    here = "\n".join(site.getsitepackages())
    layer = pack([Entry("here.pth", f"{here}\n".encode())], folder / "packages")
    packages = Packages(key=KEY, python=PYTHON, platform=platform_name(), layer=layer)
    endpoints = [replace(endpoint, environment=KEY) for endpoint in manifest.endpoints]
    endpoints = [replace(endpoint, fingerprint=fingerprint(endpoint)) for endpoint in endpoints]
    release = Release(
        manifest=replace(manifest, endpoints=tuple(endpoints)), source=source, packages=(packages,), flashfw="0.1.0"
    )
    archives = {source.digest: folder / "source", layer.digest: folder / "packages"}
    with Cluster("local", server.url, server.key) as target:
        target.upload(release.layers, archives, lambda *of: None)
        rollout = target.wait(target.apply(release, expected=None, removes=(), by="me@here"), wait_s=20.0)
        while rollout.state == "running":
            rollout = target.wait(rollout.number, wait_s=20.0)
    assert rollout.state == "done", f"{rollout}\n{server.output()}"


def _files(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def _is_json(file: Path) -> bool:
    try:
        value: Any = json.loads(file.read_text())
    except ValueError:
        return False
    return isinstance(value, dict)
