"""The servers of a round as real processes, and the blows that are struck at them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.dev_process import DevServer
from tests.faults.books import Books, PostgresBooks, SqliteBooks
from tests.faults.plan import Blow
from tests.postgres_server import PostgresServer
from tests.served import write

FILES = {
    "flashfw.toml": "[project]\nname = 'shop'\n",
    "endpoints/work/endpoint.toml": "workers = [1, 2]\nretries = { max = 3, backoff = '20ms' }\n",
    "endpoints/work/handler.py": """
        import time

        import flashfw

        def handler(n: int, ms: int, fails: int, job: flashfw.Job) -> int:
            time.sleep(ms / 1000)
            if job.attempt <= fails:
                raise RuntimeError("as planned")
            return n * n
        """,
    "endpoints/count/endpoint.toml": "workers = [1, 1]\n",
    "endpoints/count/handler.py": """
        import time

        def handler(n: int, ms: int, fails: int):
            for number in range(n % 10):
                time.sleep(ms / 10_000)
                yield number
        """,
}

PAUSE_S = 0.5
"""How long a server stands still."""

_never = threading.Event()

Start = Callable[..., DevServer]
"""Starts `flashfw dev` over a folder, with further arguments."""


class Gateway:
    """A `flashfw dev` that may be killed and started again; its address changes with that."""

    def __init__(self, project: Path, start: Start, *arguments: str) -> None:
        write(project, FILES)
        self._project = project
        self._arguments = arguments
        self._start = start
        self._lock = threading.Lock()
        self.server = start(project, *arguments)

    def kill(self) -> None:
        """kill -9, and a new one in its place."""
        with self._lock:
            self.server.crash()
            self.server = self._start(self._project, *self._arguments)

    def pause(self) -> None:
        """Stop it in the middle of whatever it does (SIGSTOP), for a moment."""
        with self._lock:
            process = psutil.Process(self.server.process.pid)
            process.suspend()
            _never.wait(PAUSE_S)
            process.resume()

    def workers(self) -> list[psutil.Process]:
        """The processes of its workers, as its status names them."""
        try:
            status = self.server.request("GET", "/_flashfw/status", timeout_s=5).json()
        except OSError:
            return []
        pids = [worker["pid"] for endpoint in status["endpoints"] for worker in endpoint["workers"]]  # type: ignore[index]
        found = []
        for pid in filter(None, pids):  # one that starts has none yet
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found


class Stage:
    """Gateways over one store. `kill_database` kills its server and starts it again, where it has one; `pause_database`
    lets it hang for a moment."""

    def __init__(
        self,
        gateways: list[Gateway],
        *,
        kill_database: Callable[[], None] | None = None,
        pause_database: Callable[[], None] | None = None,
    ) -> None:
        self.gateways = gateways
        self.kills = 0
        self._kill_database = kill_database
        self._pause_database = pause_database
        self._readers: list[socket.socket] = []
        self._paused: list[psutil.Process] = []

    @classmethod
    def on_sqlite(cls, folder: Path, start: Start) -> tuple[Stage, Books]:
        """One server over a file."""
        return cls([Gateway(folder / "shop", start)]), SqliteBooks(folder / "shop/.flashfw/jobs.sqlite")

    @classmethod
    def on_postgres(cls, folder: Path, start: Start, database: PostgresServer) -> tuple[Stage, Books]:
        """Two servers over one database."""

        def kill() -> None:
            database.crash()
            database.start()

        def pause() -> None:
            with database.standing_still():
                _never.wait(PAUSE_S)

        places = (folder / "one", folder / "two")
        gateways = [Gateway(place, start, "--database", database.url) for place in places]
        return cls(gateways, kill_database=kill, pause_database=pause), PostgresBooks(database.url)

    def strike(self, blow: Blow, job_id: str) -> None:
        """Do what the blow says. `job_id` is the job that was accepted last."""
        gateway = self.gateways[int(blow.pick * len(self.gateways))]
        if blow.fault == "kill gateway":
            gateway.kill()
            self.kills += 1
        elif blow.fault == "kill postgres":
            assert self._kill_database is not None
            self._kill_database()
            self.kills += 1
        elif blow.fault == "pause postgres":
            assert self._pause_database is not None
            self._pause_database()
        elif blow.fault == "pause gateway":
            gateway.pause()
        elif blow.fault == "slow reader":
            self._open(gateway, f"GET /_flashfw/jobs/{job_id}/events HTTP/1.1")
        elif blow.fault in ("vanishing caller", "half a body"):
            head = "POST /work HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 34"
            body = b'{"n": 3, "ms": 20, "fails": 0    }'
            self._open(gateway, head, body if blow.fault == "vanishing caller" else body[:17])
            self._readers.pop().close()
        elif workers := gateway.workers():
            self._hit(workers[int(blow.pick * len(workers))], blow)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let go at the end of what was held."""
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let paused workers go on, and leave as a reader."""
        for worker in self._paused:
            with suppress(psutil.NoSuchProcess):
                worker.resume()
        for reader in self._readers:
            reader.close()
        self._paused.clear()
        self._readers.clear()

    def _hit(self, worker: psutil.Process, blow: Blow) -> None:
        with suppress(psutil.NoSuchProcess):
            if blow.fault == "kill worker":
                os.kill(worker.pid, signal.SIGKILL)
                self.kills += 1
            else:
                worker.suspend()
                self._paused.append(worker)

    def _open(self, gateway: Gateway, head: str, body: bytes = b"") -> None:
        """A connection that asks and does not read."""
        host, port = gateway.server.url.removeprefix("http://").split(":")
        with suppress(OSError, http.client.HTTPException):
            reader = socket.create_connection((host, int(port)), timeout=5)
            self._readers.append(reader)
            reader.sendall(f"{head}\r\nHost: {host}\r\n\r\n".encode() + body)
