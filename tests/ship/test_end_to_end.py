"""From a tree to a server with workers, under load, with ships that fail and ships that are killed."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashfw.build.build import build as real_build
from flashfw.project.root import find
from flashfw.ship.cluster import Cluster
from tests import command
from tests.command import COMMAND, Forked
from tests.dev_process import wait_until
from tests.ship.builds import SHOP, Make, Shippable, write
from tests.ship.conformance import Conformance

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
PAUSE_S = 0.005  # between the calls of one caller: the machine has others to serve
START_S = 120.0


@dataclass(frozen=True)
class Served:
    """A running `flashfw serve` and how its users are set up: `environ` has its key."""

    url: str
    key: str
    environ: Mapping[str, str]

    def call(self, name: str, value: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(name, json=value)

    def client(self) -> httpx.Client:
        """Makes a new connection for each request."""
        headers = {"authorization": f"Bearer {self.key}", "connection": "close"}
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the machine's authorities takes 30 ms
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False, verify=verify)


@pytest.fixture(scope="module")
def served(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("served")
    said, log = base / "said", base / "log"
    arguments = ("serve", "--data", str(base / "data"), "--port", "0", "--grace", "1s", "--json")
    with said.open("wb") as out, log.open("wb") as errors:
        process = subprocess.Popen([COMMAND, *arguments], cwd=base, env=dev_environ, stdout=out, stderr=errors)
    try:
        wait_until(
            lambda: process.poll() is not None or said.read_text().endswith("}\n"), "it serves", deadline_s=START_S
        )
        assert process.poll() is None, log.read_text()
        document = json.loads(said.read_text())
        environ = {**dev_environ, "FLASHFW_KEY": document["key"]}
        yield Served(document["url"], document["key"], environ)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()


@pytest.fixture(scope="module")
def lock(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lock of every project here, made once."""
    folder = write(tmp_path_factory.mktemp("locked") / "shop", _here(SHOP))
    _built(folder, dev_environ)
    return (folder / "flashfw.lock").read_text()


class TestServed(Conformance):
    """`flashfw serve` does what the server in memory does."""

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, served: Served) -> Iterator[Cluster]:
        with Cluster("prod", served.url, served.key) as found:
            yield found

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, dev_environ: dict[str, str], lock: str) -> Make:
        def made(folder: Path, files: Mapping[str, str]) -> Shippable:
            write(folder, {**_here(files), "flashfw.lock": lock})
            return _built(folder, dev_environ)

        return made


@pytest.fixture
def project(served: Served, lock: str, tmp_path: Path) -> Path:
    """The shop, with the server as its environment `prod`."""
    files = {**_here(SHOP), "flashfw.lock": lock}
    files["flashfw.toml"] = files["flashfw.toml"].replace("http://127.0.0.1:1", served.url)
    return write(tmp_path / "shop", files)


def _here(files: Mapping[str, str]) -> dict[str, str]:
    """The files for the Python that runs this."""
    return {name: text.replace('python = "3.12"', f'python = "{PYTHON}"') for name, text in files.items()}


def _built(folder: Path, environ: Mapping[str, str]) -> Shippable:
    cache = Path(environ["XDG_CACHE_HOME"]) / "flashfw"
    return real_build(find(folder), environment="prod", variables=environ, cache=cache)


def flashfw(project: Path, served: Served, *arguments: str, code: int = 0) -> tuple[str, str]:
    done = command.flashfw(*arguments, cwd=project, environ=served.environ)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def answering(value: int, *, more: str = "") -> dict[str, str]:
    """The job of the shop, with that default for what it adds."""
    text = f"{more}def handler(a: int, b: int = {value}) -> int:\n    return a + b\n"
    return {"endpoints/add/handler.py": text}


@dataclass
class Load:
    """What callers that never stop have seen."""

    statuses: Counter[int] = field(default_factory=Counter)
    answers: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.statuses.total()


@contextmanager
def constant_load(served: Served) -> Iterator[Load]:
    """Callers that call both endpoints, each call over a new connection and none tried again."""
    load, stop, lock = Load(), threading.Event(), threading.Lock()

    def caller(ask: Callable[[httpx.Client], httpx.Response]) -> None:
        with served.client() as client:
            while not stop.wait(PAUSE_S):
                try:
                    answer = ask(client)
                except httpx.HTTPError as error:
                    load.errors.append(f"{type(error).__name__}: {error}")
                    continue
                with lock:
                    load.statuses[answer.status_code] += 1
                    load.answers.add(answer.text)

    def add(client: httpx.Client) -> httpx.Response:
        return client.post("add", json={"a": 0})

    def get(client: httpx.Client) -> httpx.Response:
        return client.get("api")

    with ThreadPoolExecutor(3) as pool:
        for ask in (add, add, get):
            pool.submit(caller, ask)
        try:
            yield load
        finally:
            stop.set()


def after_more(load: Load, calls: int = 20) -> None:
    """Wait until the callers had some more answers."""
    until = load.count + calls
    wait_until(lambda: load.count >= until or bool(load.errors), "callers are answered", deadline_s=60)


@pytest.mark.parametrize(
    ("settings", "values"),
    [("workers = [1, 2]\n", (11, 12)), ('workers = [1, 1]\nstrategy = "replace"\n', (21, 22))],
    ids=["surge", "replace"],
)
def test_no_request_fails_while_releases_change(
    project: Path, served: Served, settings: str, values: tuple[int, int]
) -> None:
    write(project, {**answering(values[0]), "endpoints/add/endpoint.toml": settings})
    flashfw(project, served, "ship", "prod", "--yes")
    with constant_load(served) as load:
        after_more(load)
        write(project, answering(values[1]))
        flashfw(project, served, "ship", "prod")
        after_more(load)
        flashfw(project, served, "rollback", "prod")
        after_more(load)

    assert load.errors == []
    assert set(load.statuses) == {200}
    assert {str(value) for value in values} <= load.answers
    assert served.call("add", {"a": 0}).json() == values[0]


def test_code_that_fails_only_on_the_server_changes_nothing(project: Path, served: Served) -> None:
    write(project, answering(31))
    flashfw(project, served, "ship", "prod", "--yes")
    before = json.loads(flashfw(project, served, "ship", "prod", "--json")[0])["release"]
    broken = (
        "import flashfw\n\nif flashfw.environment == 'prod':\n    print('last words')\n    raise KeyError('TOKEN')\n"
    )
    write(project, answering(32, more=f"{broken}\n\n"))

    _, said = flashfw(project, served, "ship", "prod", code=1)

    for words in ("KeyError: 'TOKEN'", "endpoints/add/handler.py", "last words", "traffic never moved", before):
        assert words in said
    assert served.call("add", {"a": 0}).json() == 31


@pytest.mark.parametrize("lines", [2, 5, 7, 9])
def test_a_ship_that_is_killed_is_finished_or_undone_by_the_next(project: Path, served: Served, lines: int) -> None:
    """kill -9 once it has said so many lines; those after the plan come while layers travel and workers start."""
    value = 100 + lines
    write(project, answering(value))
    ours, theirs = os.pipe()
    process = Forked("ship", "prod", "--yes", cwd=project, environ=served.environ, stderr=theirs)
    os.close(theirs)
    with os.fdopen(ours) as said:
        for _ in range(lines):
            said.readline()
        process.kill()
        process.wait()

    flashfw(project, served, "ship", "prod", "--yes", "--wait")

    assert served.call("add", {"a": 0}).json() == value
    with Cluster("prod", served.url, served.key) as target:
        assert target.situation().rollout is None
        assert json.loads(flashfw(project, served, "ship", "prod", "--json")[0])["state"] == "unchanged"


def test_code_knows_where_it_runs_and_status_what_is_there(project: Path, served: Served) -> None:
    where = "import flashfw\n\n\ndef handler() -> str:\n    return flashfw.environment\n"
    write(project, {"endpoints/add/handler.py": where})
    flashfw(project, served, "ship", "prod", "--yes")

    assert flashfw(project, served, "call", "add", "--env", "prod")[0] == '"prod"\n'
    status = json.loads(flashfw(project, served, "status", "prod", "--json")[0])
    assert status["release"]["by"]
    assert status["drift"]["is_none"]


def test_all_is_removed(project: Path, served: Served) -> None:
    flashfw(project, served, "remove", "prod", "--yes", "--confirm", "prod")

    assert served.call("add", {"a": 0}).status_code == 404
