"""The example of a long job that takes a file: what it hears is what was dialled, whoever listens and what happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from flashfw.client import Client
from tests.dev_process import DevServer, wait_until

EXAMPLE = Path(__file__).parent.parent / "examples" / "transcriber"
KEYS = "42*7#0A9D"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project") / "transcriber"
    return Path(shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*")))


@pytest.fixture(scope="module")
def server(project: Path, module_flashfw_dev: Callable[..., DevServer]) -> DevServer:
    return module_flashfw_dev(project)


@pytest.fixture(scope="module")
def recording(project: Path) -> Path:
    """Made by the example itself, with the stdlib's `wave`."""
    code = "import sys; from pathlib import Path; from lib.tones import dial; dial(sys.argv[1], Path('keys.wav'))"
    subprocess.run([sys.executable, "-c", code, KEYS], cwd=project, check=True)
    return project / "keys.wav"


def send(server: DevServer, recording: Path, **options: str) -> httpx.Response:
    headers = {"prefer": "respond-async"} if options.pop("spawn", "") else {}
    with recording.open("rb") as audio:
        return httpx.post(server.url + "/transcribe", files={"audio": audio}, data=options, headers=headers, timeout=60)


def keys(segments: list[dict[str, object]]) -> str:
    return "".join(str(segment["key"]) for segment in segments)


def test_its_own_tests_pass(project: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout


def test_what_was_dialled_is_heard(server: DevServer, recording: Path) -> None:
    answer = send(server, recording)

    assert keys(answer.json()) == KEYS
    starts = [segment["start"] for segment in answer.json()]
    assert starts == sorted(starts)


def test_two_readers_follow_one_transcript(server: DevServer, recording: Path) -> None:
    job = send(server, recording, spawn="yes", pace="0.3").json()["id"]
    stories: dict[int, list[str]] = {}

    def follow(reader: int) -> None:
        with Client(server.url) as client:
            events = [*client.job(job).events()]
        names = [event.name for event in events]
        assert "progress" in names
        assert names[-1] == "completed"
        stories[reader] = [event.data["output"]["key"] for event in events if event.name == "chunk"]

    readers = [threading.Thread(target=follow, args=(number,)) for number in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)

    assert stories == {0: list(KEYS), 1: list(KEYS)}


def test_a_cancelled_one_stops(server: DevServer, recording: Path) -> None:
    job = send(server, recording, spawn="yes", pace="100").json()["id"]
    with Client(server.url) as client:
        handle = client.job(job)
        wait_until(lambda: handle.status().output is not None, "it tells its progress")
        assert handle.cancel().status == "CANCELLED"

    wait_until(lambda: _idle(server) >= 1, "its worker is free again")


def test_a_busy_line_is_tried_again_with_the_same_file(server: DevServer, recording: Path) -> None:
    answer = send(server, recording, busy="2")
    status = json.loads(server.request("GET", f"/v2/transcribe/status/{answer.headers['flashfw-job']}").body)

    assert (answer.status_code, keys(answer.json())) == (200, KEYS)
    assert status["status"] == "COMPLETED"


def test_a_file_that_is_no_recording_is_told_of_and_not_tried_again(server: DevServer, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("ring me")

    answer = send(server, text)

    assert answer.status_code == 422
    assert "not a WAV file" in answer.json()["error"]["message"]


def _idle(server: DevServer) -> int:
    health = json.loads(server.request("GET", "/v2/transcribe/health").body)
    return int(health["workers"]["idle"])
