"""The environment `local`: a server on this machine, which `flashfw ship local` starts where none runs."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flashfw.errors import TargetError, UsageError

START_S = 60.0
STOP_S = 60.0
SERVING, LOCK = "serving.json", "serving.lock"
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Started:
    """A server that was started: its address, its process, and its first admin key if it made one just now."""

    url: str
    pid: int
    key: str | None
    log: Path


def folder(base: Path, project: str) -> Path:
    """Where the local server of a project keeps its data, below the user's own folder for data.

    >>> folder(Path("/data"), "shop").as_posix()
    '/data/servers/shop-local'
    """
    return base / "servers" / f"{project}-local"


def start(data: Path, url: str) -> Started:
    """Start `flashfw serve` over a data folder, with a life of its own, and wait until it serves.

    Two who do so at once get the same server: the second waits for what the first one starts. It is found, too, where
    a command that was killed had begun to start it.

    Raises:
        UsageError: the address is not one of this machine that a server can listen on.
        TargetError: it ended, or did not come up; its last words are in the error.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(f"'local' is served on this machine, not at {url}", hint='url = "http://127.0.0.1:8899"')
    data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flashfw", "serve", "--data", str(data), "--json"]
    command += ["--host", parts.hostname, "--port", str(80 if parts.port is None else parts.port)]
    # These are beside the data, which is the server's alone.
    document, log = data.with_name(f"{data.name}.out"), data.with_name(f"{data.name}.log")
    with _private(data.with_name(f"{data.name}.starting")) as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        if found := _started_by_others(data):
            return Started(url=found["url"], pid=found["pid"], key=None, log=log)
        with _private(document) as out, _private(log) as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=data.parent, start_new_session=True
            )
        try:
            said = _document(process, document, log)
        finally:
            document.unlink(missing_ok=True)  # it may hold a key
    return Started(url=said["url"], pid=said["pid"], key=said.get("key"), log=log)


def running(data: Path) -> str | None:
    """The address of the server over a data folder, None if none runs."""
    return _serving(data).get("url") if _is_held(data) else None


def _is_held(data: Path) -> bool:
    """Whether a server has the folder, whatever a file of one that was killed says."""
    try:
        with (data / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _started_by_others(data: Path) -> dict[str, Any]:
    """What a server that has the folder says of itself, once it does; nothing if none has it."""
    if not _becomes(lambda: not _is_held(data) or bool(_serving(data)), START_S):
        raise TargetError(f"a server that holds {data} does not come up within {START_S:g} s")
    return _serving(data) if _is_held(data) else {}


def free(url: str) -> str:
    """The address, or one with the port 0, which stands for any, where somebody else has its port."""
    parts = urlsplit(url)
    try:
        with socket.create_server((parts.hostname or "", parts.port or 80)):
            return url
    except OSError:
        return f"{parts.scheme}://{parts.hostname}:0"


def make_key(data: Path, name: str) -> str:
    """A new admin key of the server over a data folder of this user, made on its disk.

    Raises:
        TargetError: it cannot be made.
    """
    command = [sys.executable, "-m", "flashfw", "key", "create", name, "--scope", "admin", "--data", str(data)]
    # Not in the folder that the user is in: `-m` looks for modules there first.
    done = subprocess.run([*command, "--json"], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=data)
    try:
        return str(json.loads(done.stdout)["key"])
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip() or f"code {done.returncode}"
        raise TargetError(f"no key can be made for the local server: {said}", hint=shlex.join(command)) from None


def stop(data: Path) -> bool:
    """End the server of a data folder, if one runs, and wait until it is gone; whether one ran.

    Raises:
        TargetError: it does not end.
    """
    if running(data) is None:
        return False
    pid = int(_serving(data)["pid"])
    os.kill(pid, signal.SIGTERM)
    if not _becomes(lambda: running(data) is None, STOP_S):
        raise TargetError(f"the server of {data} (pid {pid}) does not end", hint=f"kill {pid}")
    return True


def _document(process: subprocess.Popen[bytes], path: Path, log: Path) -> Any:
    """What the server says once it serves."""
    said: list[Any] = []

    def spoke() -> bool:
        ended = process.poll() is not None  # before reading, so that nothing that was said is missed
        try:
            said.append(json.loads(path.read_text("utf-8")))
        except ValueError:
            return ended
        return True

    if _becomes(spoke, START_S) and said:
        if error := said[-1].get("error"):
            process.wait(STOP_S)
            raise TargetError(f"the local server does not start: {error['what']}", hint=error.get("hint") or "")
        return said[-1]
    words = _last_words(log)
    if process.poll() is None:
        process.terminate()
        raise TargetError(f"the local server does not come up within {START_S:g} s{words}", hint=f"its log is {log}")
    raise TargetError(f"the local server ended with code {process.returncode}{words}", hint=f"its log is {log}")


def _last_words(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()[-10:]
    return ":\n" + "\n".join(f"    {line}" for line in lines) if lines else ""


def _private(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _serving(data: Path) -> dict[str, Any]:
    """What the server says of itself; nothing while it has not come up."""
    try:
        found = json.loads((data / SERVING).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _becomes(condition: Callable[[], bool], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(_PAUSE_S)
    return True
