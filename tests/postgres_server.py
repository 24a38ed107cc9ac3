"""A PostgreSQL server of the tests' own: made anew, on the loopback and a socket file, gone with the tests.

Tests that need one are skipped where PostgreSQL is not installed, and fail there in CI.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import psutil
import pytest

from tests.dev_process import wait_until

ACCOUNTS = ("postgres", "nobody")
"""Who runs the server when the tests are root's, from which PostgreSQL refuses to run; the first that there is."""

USER = "tester"
PASSWORD = "a-secret-of-the-tests"
INITDB = ("-U", USER, "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C")
SETTINGS = (
    *("fsync=off", "deadlock_timeout=50ms", "shared_buffers=16MB", "max_connections=60", "autovacuum=off"),
    "max_wal_size=128MB",
)


def binaries() -> Path | None:
    """The folder of the server's programs: in PATH, or where Debian keeps them, the newest."""
    found = shutil.which("initdb")
    beside = [Path(found).resolve().parent] if found else []
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((path for path in [*beside, *versions] if (path / "postgres").exists()), None)


@functools.cache
def shared() -> PostgresServer:
    """The server of this process, started at the first need."""
    programs = binaries()
    if programs is None:
        why = "PostgreSQL is not installed: `apt install postgresql`, or put initdb and postgres in PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    server = PostgresServer(programs)
    atexit.register(server.remove)
    server.start()
    return server


@pytest.fixture
def postgres() -> PostgresServer:
    """The server, running."""
    server = shared()
    server.start()
    return server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for a test that kills it."""
    server = PostgresServer(shared().programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def new_schema() -> str:
    """The name of a schema that nobody used."""
    return f"test_{uuid.uuid4().hex[:12]}"


@dataclass
class PostgresServer:
    """Its data lies in a folder of its own; `start` after `crash` finds what was committed."""

    programs: Path
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="flashfw-postgres-")))
    port: int = field(default_factory=lambda: _free_port())
    settings: Sequence[str] = SETTINGS
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Over TCP, with a password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Return once it takes connections. Nothing happens if it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        if not (self.folder / "data").exists():
            self._init()
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder]
        for setting in ("listen_addresses=127.0.0.1", *self.settings):
            command += ["-c", setting]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **_account())
        wait_until(self._answers, "PostgreSQL takes connections")

    def crash(self) -> None:
        """Kill it and all its processes: nothing is said to anyone, nothing is written down."""
        assert self.process is not None
        family = psutil.Process(self.process.pid)
        family.suspend()  # or it would clear up after its children
        wait_until(lambda: family.status() == psutil.STATUS_STOPPED, "PostgreSQL starts no more processes")
        children = family.children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.kill()
        self.process.wait()
        # The next server refuses to start while any process is still attached to the memory that they shared.
        wait_until(lambda: not any(map(_runs, children)), "all processes of PostgreSQL have ended")

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop it and all its processes (SIGSTOP): connections are taken and kept, and nothing is answered."""
        assert self.process is not None
        postmaster = psutil.Process(self.process.pid)
        postmaster.suspend()
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def remove(self) -> None:
        """End it and delete its data."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)  # "immediate": nothing of it is kept
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _init(self) -> None:
        """A new database: the copy of one that was made before, which takes a tenth of the time."""
        account, data, kept = _account(), self.folder / "data", _kept(self.programs)
        if account:
            shutil.chown(self.folder, account["user"], account["group"])
        if not kept.exists():
            self._make(data)
            _keep(data, kept)
            return
        shutil.copytree(kept, data)
        for path in (data, *data.rglob("*")) if account else ():
            shutil.chown(path, account["user"], account["group"])

    def _make(self, data: Path) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        command = [self.programs / "initdb", "-D", data, *INITDB, "--pwfile", secret]
        made = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False, **_account())
        assert made.returncode == 0, made.stderr

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text("utf-8", "replace")
        ready = [self.programs / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0


def _kept(programs: Path) -> Path:
    """Where a new database of these programs is kept for all tests of this user."""
    version = subprocess.run([programs / "postgres", "--version"], capture_output=True, check=True).stdout
    name = hashlib.sha256(version + " ".join((*INITDB, PASSWORD)).encode()).hexdigest()[:12]
    return platformdirs.user_cache_path("flashfw-tests") / f"postgres-{name}"


def _keep(data: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=kept.parent))
    shutil.copytree(data, aside, dirs_exist_ok=True)
    with suppress(OSError):  # another process was faster
        aside.rename(kept)
    shutil.rmtree(aside, ignore_errors=True)


def _account() -> dict[str, str]:
    """Arguments of `Popen` that give up root."""
    import pwd

    if os.getuid() != 0:
        return {}
    name = next(name for name in ACCOUNTS if any(entry.pw_name == name for entry in pwd.getpwall()))
    group = pwd.getpwnam(name).pw_gid
    return {"user": name, "group": group, "extra_groups": []}  # type: ignore[dict-item]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    """One below those that the system gives to outgoing connections, which would take it while the server is down."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", random.randrange(15_000, 32_000))) as free:
            return int(free.getsockname()[1])
