"""Which functions there are, served or not: their jobs wait, whatever is selected and wherever a file is broken."""

from __future__ import annotations

from pathlib import Path

from flashfw.dev import server
from flashfw.project import root
from flashfw.project.select import parse
from tests.served import write

FILES = {
    "endpoints/a/handler.py": "def handler(): ...\n",
    "endpoints/a/more/handler.py": "def handler(): ...\n",
    "endpoints/b/handler.py": "def handler(): ...\n",
}


def read(folder: Path, *ids: str) -> server.Tree:
    return server.read(
        server.Options(
            root=root.find(folder), host="127.0.0.1", port=0, variables={}, cache=folder, selection=parse(ids)
        )
    )


def test_functions_that_are_not_selected_are_there(tmp_path: Path) -> None:
    tree = read(write(tmp_path, FILES), "b")

    assert [endpoint.id for endpoint in tree.manifest.endpoints] == ["b"]
    assert tree.kept == {"a", "a/more", "b"}


def test_a_removed_function_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    (tmp_path / "endpoints/a/more/handler.py").unlink()

    assert read(tmp_path).kept == {"a", "b"}


def test_nobody_can_tell_while_a_file_does_not_parse(tmp_path: Path) -> None:
    assert read(write(tmp_path, {**FILES, "endpoints/b/handler.py": "def handler(:\n"})).kept is None
