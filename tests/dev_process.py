"""`flashfw dev` as a process of its own, forked off a warm one, over a real project folder."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.command import COMMAND as COMMAND
from tests.command import Forked

START_S = 60.0
STOP_S = 60.0

_never = threading.Event()


def wait_until(condition: Callable[[], bool], what: str, *, deadline_s: float = 60.0) -> None:
    """Return as soon as the condition holds; fail with `what` when it does not in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        _never.wait(0.02)


@dataclass(frozen=True)
class Answer:
    """What the server said to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


@dataclass(frozen=True)
class DevServer:
    """A running `flashfw dev`: its address, its process, and all it printed so far."""

    project: Path
    url: str
    process: Forked
    log: Path

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def request(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 120.0, **headers: str
    ) -> Answer:
        """One HTTP request, `content_type="..."` being a header; any status is an answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=named)
        try:
            with _direct.open(request, timeout=timeout_s) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return Answer(refused.code, dict(refused.headers), refused.read())

    def call(self, path: str, value: object, *, timeout_s: float = 120.0) -> object:
        """POST a value as JSON and return the answer's; anything but 200 fails with the server's words."""
        body = json.dumps(value).encode()
        answer = self.request("POST", path, body, timeout_s=timeout_s, content_type="application/json")
        assert answer.status == 200, f"{answer.status} {answer.body.decode(errors='replace')}\n{self.output()}"
        return answer.json()

    def crash(self) -> None:
        """kill -9, the server alone: what it leaves behind is for the next one to find."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ctrl-C; then the exit code must be 0 and no process may be left.

        A worker leads a process group of its own, so what is left is found in two ways: descendants
        before the signal, and whatever still works in the project's folder. One that `crash` ended is done.
        """
        if self.process.returncode == -signal.SIGKILL:
            return
        family = _descendants(self.process.pid)
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(STOP_S)
            wait_until(lambda: not _alive(family, self.project), "no process of flashfw dev is left", deadline_s=STOP_S)
        finally:
            _kill([*_alive(family, self.project), *_descendants(self.process.pid)])
        assert code == 0, f"flashfw dev ended with {code}\n{self.output()}"


def start(project: Path, *arguments: str, environ: Mapping[str, str], log: Path) -> DevServer:
    """Start `flashfw dev` over the folder on a free port and return when it is ready."""
    with log.open("wb") as output:
        process = Forked("dev", "--port", "0", *arguments, cwd=project, environ=environ, stdout=output, stderr=output)
    try:
        wait_until(
            lambda: process.poll() is not None or _address(project, process.pid) != "",
            "dev is ready",
            deadline_s=START_S,
        )
        assert process.poll() is None, f"flashfw dev ended with {process.returncode}"
    except AssertionError as failed:
        _kill(_descendants(process.pid))
        process.kill()
        process.wait()
        raise AssertionError(f"{failed}\n{log.read_text('utf-8', 'replace')}") from None
    return DevServer(project, _address(project, process.pid), process, log)


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _address(project: Path, pid: int) -> str:
    """Where the server of this process listens, once it says that it is ready; empty before."""
    try:
        record = json.loads((project / ".flashfw" / "dev.json").read_text())
        if record["pid"] != pid:
            return ""
        with _direct.open(f"{record['url']}/_flashfw/ready", timeout=5) as response:
            return str(record["url"]) if response.status == 200 else ""
    except (OSError, ValueError):
        return ""


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _alive(family: list[psutil.Process], project: Path) -> list[psutil.Process]:
    found = {process.pid: process for process in family if process.is_running() and not _is_dead(process)}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            inside = Path(process.cwd()).is_relative_to(project)
            if inside and process.pid != os.getpid() and not _is_dead(process):
                found[process.pid] = process
    return list(found.values())


def _is_dead(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
