"""The example with a real model: over real files it says what the model's own command says."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.dev_process import DevServer

EXAMPLE = Path(__file__).parent.parent / "examples" / "file_types"
WANTED = "magika>=1.0"
FEWEST, ENOUGH, PER_SUFFIX, LARGEST, BATCH = 200, 300, 15, 200_000, 10
ROOTS = ("/usr/bin", sysconfig.get_path("stdlib"), sys.prefix, "/usr/share", "/etc", "/usr/lib")


@dataclass(frozen=True)
class Run:
    """What both endpoints answered, and what the command of the same environment says."""

    server: DevServer
    files: list[Path]
    identified: dict[str, str]
    sniffed: dict[str, str]
    command: dict[str, str]


@pytest.fixture(scope="module")
def run(
    module_flashfw_dev: Callable[..., DevServer], dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    project = tmp_path_factory.mktemp("project") / "file_types"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    files = _find_files()
    server = module_flashfw_dev(project)
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    with ThreadPoolExecutor(4) as callers:
        identified = list(callers.map(lambda batch: _identify(server, batch), batches))
        sniffed = list(callers.map(lambda file: _sniff(server, file), files[::10]))
    return Run(
        server=server,
        files=files,
        identified={name: label for answers in identified for name, label in answers.items()},
        sniffed=dict(sniffed),
        command=_ask_command(Path(dev_environ["XDG_CACHE_HOME"]), files),
    )


def test_identifies_every_file_as_the_packages_own_command_does(run: Run) -> None:
    assert len(run.files) >= FEWEST
    assert run.identified == run.command


def test_the_files_are_of_many_kinds(run: Run) -> None:
    kinds = set(run.identified.values())

    assert {"python", "elf"} <= kinds
    assert len(kinds) >= 8


def test_a_raw_body_gets_the_same_answer(run: Run) -> None:
    assert len(run.sniffed) >= FEWEST // 10
    assert run.sniffed == {name: run.command[name] for name in run.sniffed}


def test_the_model_is_loaded_once_per_worker(run: Run) -> None:
    workers = _count_workers(run.server)

    assert 1 <= workers <= 2
    assert run.server.output().count("model loaded") == workers + 1  # the one worker of `sniff`


def test_a_file_without_its_content_is_refused_by_name(run: Run) -> None:
    body = json.dumps({"files": [{"name": "a.txt"}]}).encode()

    answer = run.server.request("POST", "/identify", body, content_type="application/json")

    assert answer.status == 422
    assert b"content" in answer.body


def _find_files() -> list[Path]:
    """A few real files of each suffix, so that no kind crowds out the others."""
    found: list[Path] = []
    seen: Counter[str] = Counter()
    for file in _walk():
        suffix = file.suffix.lower()
        if seen[suffix] < PER_SUFFIX and _is_readable(file):
            seen[suffix] += 1
            found.append(file)
        if len(found) == ENOUGH:
            break
    return found


def _walk() -> Iterator[Path]:
    for root in ROOTS:
        for folder, folders, names in os.walk(root):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names))


def _is_readable(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and os.access(file, os.R_OK) and 0 < file.stat().st_size <= LARGEST


def _identify(server: DevServer, files: list[Path]) -> dict[str, str]:
    content = [{"name": str(file), "content": base64.b64encode(file.read_bytes()).decode()} for file in files]
    answers: Any = server.call("/identify", {"files": content})
    return {answer["name"]: answer["label"] for answer in answers}


def _sniff(server: DevServer, file: Path) -> tuple[str, str]:
    answer = server.request("POST", "/sniff", file.read_bytes(), content_type="application/octet-stream")
    assert answer.status == 200, answer.body
    said: Any = answer.json()
    return str(file), said["label"]


def _ask_command(cache: Path, files: list[Path]) -> dict[str, str]:
    (made,) = (note.parent for note in cache.rglob(".complete") if WANTED in note.read_text())  # one for both endpoints
    command = made / "bin" / "magika"
    asked = subprocess.run([command, "--json", *files], capture_output=True, check=True)
    return {answer["path"]: answer["result"]["value"]["output"]["label"] for answer in json.loads(asked.stdout)}


def _count_workers(server: DevServer) -> int:
    health: Any = server.request("GET", "/v2/identify/health").json()
    return int(health["workers"]["idle"]) + int(health["workers"]["running"])
