"""A server in use: killed and restarted in rollouts, secrets that come and change, logs and uploads that are cut."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import socket
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import zstandard

from tests.command import Forked
from tests.dev_process import wait_until
from tests.ship.builds import write
from tests.ship.end_to_end import Served, answering, flashfw, locked, serving, shipping, shop
from tests.ship.load import Ask, constant_load

ASKS = (Ask("POST", "/add", b'{"a": 0}'), Ask("GET", "/api"))
LATE = """
import pathlib
import time

def handler(gate: str) -> str:
    while not pathlib.Path(gate).exists():
        time.sleep(0.02)
    return "done"
"""
TOKEN = """
import hashlib
import os

def handler(fails: bool = False) -> str:
    token = os.environ["API_TOKEN"]
    print("it is", token)
    if fails:
        raise ValueError(token)
    return hashlib.sha256(token.encode()).hexdigest()
"""
CHATTY = """
def handler(first: int) -> int:
    for number in range(first, first + 200):
        print(number, "x" * 600)
    return %d
"""
PIECES = 20


@pytest.fixture(scope="module")
def served(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), dev_environ, "--log-size", "100kB") as running:
        yield running


@pytest.fixture(scope="module")
def lock(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return locked(tmp_path_factory.mktemp("locked") / "shop", dev_environ)


@pytest.fixture
def project(served: Served, lock: str, tmp_path: Path) -> Path:
    return shop(tmp_path / "shop", served, lock)


def gated(value: int, gate: Path) -> dict[str, str]:
    """The job of the shop in code that is not imported before there is such a file."""
    wait = f"while not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.02)\n\n\n"
    return answering(value, more=f"import pathlib\nimport time\n\n{wait}")


def ended(served: Served, location: str) -> Any:
    """The record of an accepted job once it has ended."""
    found: list[Any] = []

    def is_over() -> bool:
        with served.client() as client:
            found.append(client.get(location).json())
        return found[-1]["status"] not in ("IN_QUEUE", "IN_PROGRESS")

    wait_until(is_over, "the job ends", deadline_s=120)
    return found[-1]


@pytest.mark.parametrize("killed", ["gateway", "parent"])
def test_killed_while_workers_start_it_comes_back_with_the_release_before(
    project: Path, served: Served, killed: str, tmp_path: Path
) -> None:
    write(project, {**answering(41), "endpoints/late/handler.py": LATE})
    flashfw(project, served, "ship", "prod", "--yes")
    gate = tmp_path / "gate"
    accepted = served.call("late", {"gate": str(gate)}, prefer="respond-async")
    write(project, gated(42, gate))

    with shipping(project, served) as (ship, said):
        next(line for line in said if "add: starting" in line)
        if killed == "gateway":
            served.gateway().kill()
        else:
            served.process.kill()
            served.process.wait()
            wait_until(lambda: served.processes() == [], "no process is left")
            served.start_again()
        words = "".join(said)
        assert ship.wait() == 1, words

    how = "ended" if killed == "gateway" else "(ended|stopped)"  # a gateway that hears of its parent's end may stop
    assert re.search(f"the server {how} during the rollout", words)
    assert served.call("add", {"a": 0}).json() == 41
    gate.touch()
    assert ended(served, accepted.headers["location"])["output"] == "done"
    flashfw(project, served, "ship", "prod", "--yes")
    assert served.call("add", {"a": 0}).json() == 42
    assert served.half_done() == []


def test_killed_once_it_has_switched_it_comes_back_with_the_new_release(project: Path, served: Served) -> None:
    write(project, answering(51))
    flashfw(project, served, "ship", "prod", "--yes")
    write(project, answering(52))

    with shipping(project, served) as (ship, said):
        next(line for line in said if "switched" in line)
        served.gateway().kill()
        assert ship.wait() == 0, "".join(said)

    assert served.call("add", {"a": 0}).json() == 52
    unchanged, _ = flashfw(project, served, "ship", "prod", "--json")
    assert json.loads(unchanged)["state"] == "unchanged"


def test_restarted_in_a_rollout_it_fails_the_rollout_and_no_request(
    project: Path, served: Served, tmp_path: Path
) -> None:
    write(project, answering(61))
    flashfw(project, served, "ship", "prod", "--yes")
    gate = tmp_path / "gate"
    write(project, gated(62, gate))

    with constant_load(served.url, served.key, ASKS) as load:
        load.after_more()
        with shipping(project, served) as (ship, said):
            next(line for line in said if "add: starting" in line)
            served.process.send_signal(signal.SIGHUP)
            words = "".join(said)
            assert ship.wait() == 1, words
        load.after_more()

    assert "the server stopped during the rollout" in words
    assert load.failures == []
    assert load.texts == {"61", '"hello"'}
    gate.touch()
    flashfw(project, served, "ship", "prod", "--yes")
    assert served.call("add", {"a": 0}).json() == 62


def test_a_secret_reaches_its_workers_and_nothing_else(project: Path, served: Served) -> None:
    first, second = (f"{number}-{os.urandom(16).hex()}" for number in ("first", "second"))
    write(
        project,
        {"endpoints/token/handler.py": TOKEN, "endpoints/token/endpoint.toml": 'secrets = ["API_TOKEN"]\n'},
    )
    _, said = flashfw(project, served, "ship", "prod", "--yes", code=2)
    assert "API_TOKEN" in said

    flashfw(project, served, "secret", "set", "prod", "API_TOKEN", stdin=first.encode())
    flashfw(project, served, "ship", "prod", "--yes")
    assert served.call("token", {}).json() == _sha256(first)
    failed = served.call("token", {"fails": True})
    assert (failed.status_code, first in failed.text) == (500, False)
    flashfw(project, served, "secret", "set", "prod", "API_TOKEN", stdin=second.encode())
    wait_until(lambda: served.call("token", {}).json() == _sha256(second), "workers have the new value")

    with served.client() as client:
        current = client.get("/_flashfw/releases").json()["current"]
        pages = ["status", "jobs", "releases", f"releases/{current}", "secrets", "logs?lines=1000", "metrics", "server"]
        told = {page: client.get(f"/_flashfw/{page}") for page in pages}
    assert {page: answer.status_code for page, answer in told.items()} == dict.fromkeys(pages, 200)
    texts = {page: answer.content for page, answer in told.items()} | {"output": served.output().encode()}
    for path in served.data.rglob("*"):
        with suppress(FileNotFoundError):  # the record of a worker that ends now
            texts |= {str(path): path.read_bytes()} if path.is_file() and not path.is_symlink() else {}
    for process in served.processes():
        with suppress(psutil.Error):  # such a worker
            texts[f"process {process.pid}"] = " ".join(process.cmdline()).encode()
    assert [name for name, text in texts.items() if first.encode() in text or second.encode() in text] == []
    assert b"it is [redacted]" in texts["logs?lines=1000"]


def test_who_follows_a_log_misses_nothing_over_files_put_aside_and_a_roll(project: Path, served: Served) -> None:
    write(project, {"endpoints/chatty/handler.py": CHATTY % 1})
    flashfw(project, served, "ship", "prod", "--yes")
    ours, theirs = os.pipe()
    follower = Forked("logs", "prod", "chatty", "-f", "--json", cwd=project, environ=served.environ, stdout=theirs)
    os.close(theirs)
    with os.fdopen(ours) as lines:
        try:
            next(lines)  # it follows
            assert served.call("chatty", {"first": 0}).json() == 1
            write(project, {"endpoints/chatty/handler.py": CHATTY % 2})
            flashfw(project, served, "ship", "prod", "--yes")
            assert served.call("chatty", {"first": 200}).json() == 2
            told: list[int] = []
            while len(told) < 400:
                entry = json.loads(next(lines))
                told += [int(entry["text"].split()[0])] if entry["stream"] == "stdout" else []
        finally:
            follower.kill()
            follower.wait()

    assert told == list(range(400))
    assert len(list((served.data / "logs").glob("chatty.*"))) > 1
    with served.client() as client:
        metrics = client.get("/_flashfw/metrics").text
    assert re.search(r'^flashfw_releases_rolled_total\{endpoint="chatty"\} [12]\.0$', metrics, re.MULTILINE), metrics


def test_an_upload_that_is_cut_leaves_nothing_and_the_next_ship_completes(project: Path, served: Served) -> None:
    layer, digest, size = _layer()
    parts = urlsplit(served.url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0))) as sock:
        head = f"PUT /_flashfw/layers/{digest}?size={size} HTTP/1.1\r\nhost: shop\r\n"
        head += f"authorization: Bearer {served.key}\r\ncontent-length: {len(layer)}\r\n\r\n"
        sock.sendall(head.encode() + layer[: len(layer) // 2])
        wait_until(lambda: served.half_done() != [], "a half of it is unpacked")
    wait_until(lambda: served.half_done() == [], "the half is removed")

    write(project, answering(71))
    flashfw(project, served, "ship", "prod", "--yes")
    assert served.call("add", {"a": 0}).json() == 71


def _layer() -> tuple[bytes, str, int]:
    """An archive of much that cannot be packed small, its digest, and its size unpacked."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(PIECES):
            entry = tarfile.TarInfo(f"{number:02}.bin")
            entry.size, entry.mode = 100_000, 0o644
            archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    data = tar.getvalue()
    return zstandard.ZstdCompressor().compress(data), hashlib.sha256(data).hexdigest(), len(data)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
