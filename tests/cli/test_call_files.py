"""`flashfw call` with files: --file sends them, --output saves the one that comes back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flashfw.client import Client
from tests.command import flashfw
from tests.dev_process import DevServer
from tests.served import write

FILES = {
    "endpoints/upper/handler.py": """
        from flashfw import File

        def handler(texts: list[File], end: str = "") -> File:
            return File(b"".join(text.read_bytes() for text in texts).upper() + end.encode(), name="upper.txt")
        """,
    "endpoints/web/handler.py": "def get() -> int:\n    return 1\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_flashfw_dev: Callable[..., DevServer]) -> DevServer:
    folder = write(tmp_path_factory.mktemp("files"), FILES)
    (folder / "a.txt").write_text("one ")
    (folder / "b.txt").write_text("two")
    return module_flashfw_dev(folder)


def call(server: DevServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return flashfw("call", *arguments, cwd=server.project)


def test_files_go_and_come(server: DevServer) -> None:
    two = ["--file", "texts=@a.txt", "--file", "texts=b.txt"]
    shown = call(server, "upper", *two)
    saved = call(server, "upper", '{"end": "!"}', *two, "-o", "out.txt")

    reference = json.loads(shown.stdout)
    assert (reference["name"], reference["size"]) == ("upper.txt", 7), shown.stderr
    assert (saved.returncode, (server.project / "out.txt").read_text()) == (0, "ONE TWO!"), saved.stderr


def test_what_is_wrong_is_said(server: DevServer) -> None:
    assert "is not NAME=PATH" in call(server, "upper", "--file", "a.txt").stderr
    assert "cannot read 'no.txt'" in call(server, "upper", "--file", "texts=no.txt").stderr
    assert "--output waits for the whole answer" in call(server, "upper", "--spawn", "-o", "x").stderr
    assert "--file and --output are for jobs" in call(server, "web::get", "--file", "a=a.txt").stderr


def test_from_python(server: DevServer, tmp_path: Path) -> None:
    with Client(server.url) as client:
        paths = [server.project / "a.txt", server.project / "b.txt"]
        reference = client.call("upper", files={"texts": paths})
        spawned = client.spawn("upper", {"end": "?"}, files={"texts": paths[0]}).result()
        one = client.download(reference, tmp_path)
        two = client.download(spawned, tmp_path / "x.txt")

    assert (one.name, one.read_text()) == ("upper.txt", "ONE TWO")
    assert two.read_text() == "ONE ?"
