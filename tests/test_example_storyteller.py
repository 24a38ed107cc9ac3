"""The example without packages: what it shows of streams, classes and async fixtures is so when it is served."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flashfw.client import Client
from tests.command import flashfw
from tests.dev_process import DevServer, wait_until

EXAMPLE = Path(__file__).parent.parent / "examples" / "storyteller"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project") / "storyteller"
    return Path(shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*")))


@pytest.fixture(scope="module")
def server(project: Path, module_flashfw_dev: Callable[..., DevServer]) -> DevServer:
    return module_flashfw_dev(project)


def test_its_own_tests_pass(project: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout


def test_each_word_is_an_item_with_progress_beside_it(server: DevServer) -> None:
    with Client(server.url) as client:
        story = [*client.spawn("tell", {"prompt": "The cat", "words": 12, "pace": 0.01}).events()]

    names = [event.name for event in story]
    assert names.count("chunk") == 12
    assert "progress" in names
    assert story[-1].name == "completed"
    assert story[-1].data["output"] == [event.data["output"] for event in story if event.name == "chunk"]


def test_the_methods_of_the_class_are_functions(server: DevServer) -> None:
    opinion: Any = server.call("/critic", {"text": "The sea was grey."})

    assert opinion["verdict"] == "I have heard this before"
    assert server.call("/critic/better", {"first": "A fish was the.", "second": "The sea was calm."}) == (
        "The sea was calm."
    )
    assert server.call("/critic/vocabulary", {"prefix": "le"}) == ["letter", "letters"]


def test_the_command_calls_a_method_by_its_id(server: DevServer) -> None:
    ran = flashfw("call", "critic::vocabulary", '{"prefix": "fi"}', "--json", cwd=server.project)

    assert json.loads(ran.stdout) == ["fish"], ran.stderr


def test_what_the_journal_holds_is_written_before_the_worker_goes(project: Path, server: DevServer) -> None:
    told = project / ".flashfw" / "volumes" / "stories" / "told.jsonl"
    server.call("/tell", {"prompt": "The boat", "words": 3, "seed": 7})

    server.stop()

    last = json.loads(told.read_text().splitlines()[-1])
    assert last["prompt"] == "The boat"
    wait_until(lambda: "journal: written and closed" in server.output(), "the fixture's end is shown")
    assert "critic: goes home" in server.output()
