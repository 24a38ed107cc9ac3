"""Which folder is the project, and which file says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashfw.errors import NoProjectError
from flashfw.project import root
from flashfw.project.collect import collect
from flashfw.project.model import Root


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_nearest_flashfw_toml_wins(tmp_path: Path) -> None:
    write(tmp_path, {"flashfw.toml": "", "a/flashfw.toml": "", "a/b/c.py": ""})

    assert root.find(tmp_path / "a" / "b") == Root(tmp_path / "a", tmp_path / "a" / "flashfw.toml")


def test_a_pyproject_counts_only_with_the_table(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": "[tool.flashfw]\n", "a/pyproject.toml": "[project]\nname = 'flashfw'\n"})

    assert root.find(tmp_path / "a") == Root(tmp_path, tmp_path / "pyproject.toml")


def test_any_flashfw_toml_goes_before_a_nearer_pyproject(tmp_path: Path) -> None:
    write(tmp_path, {"flashfw.toml": "", "a/pyproject.toml": "[tool.flashfw]\n"})

    assert root.find(tmp_path / "a").config == tmp_path / "flashfw.toml"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("[tool.flashfw]\n", True),
        ("[tool.flashfw.dev]\nport = 1\n", True),
        ("[tool]\nflashfw = {}\n", True),
        ("tool.flashfw.dev.port = 1\n", True),
        ("[tool.flashfw-x]\n", False),
        ("# [tool.flashfw]\n", False),
        ("[tool]\nflashfw = 3\n", False),
        ("tool = 3\nflashfw = 1\n", False),
        ("[tool.flashfw]\nbroken = \n", True),
        ("[tool.other]\nbroken = \n# flashfw\n", False),
        ("", False),
    ],
)
def test_the_table_is_recognised_even_where_the_file_does_not_parse(tmp_path: Path, text: str, has: bool) -> None:
    write(tmp_path, {"pyproject.toml": text})

    assert root.has_table(tmp_path / "pyproject.toml") is has


def test_both_in_one_folder_are_a_problem(tmp_path: Path) -> None:
    write(tmp_path, {"flashfw.toml": "", "pyproject.toml": "[project]\n\n[tool.flashfw.dev]\nport = 1\n"})
    found = root.find(tmp_path)
    (problem,) = collect(found).problems

    assert found.config.name == "flashfw.toml"
    assert str(problem).startswith("pyproject.toml:3: [tool.flashfw] stands beside a flashfw.toml")


def test_root_given_by_hand_is_not_searched_upwards(tmp_path: Path) -> None:
    write(tmp_path, {"flashfw.toml": "", "a/x": "", "b/pyproject.toml": "[tool.flashfw]\n"})

    assert root.find(tmp_path, explicit=Path("b")).path == tmp_path / "b"
    with pytest.raises(NoProjectError, match=r"--root 'a' holds no flashfw\.toml"):
        root.find(tmp_path, explicit=Path("a"))
    with pytest.raises(NoProjectError, match="--root 'nowhere' is no folder"):
        root.find(tmp_path, explicit=Path("nowhere"))


def test_no_project_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoProjectError, match="flashfw new PATH"):
        root.find(tmp_path)

    (tmp_path / "endpoints").mkdir()
    with pytest.raises(NoProjectError, match=r"put an empty flashfw\.toml beside it"):
        root.find(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("flashfw.toml", '[project]\nname = "shop"\n', "shop"),
        ("flashfw.toml", "", "folder"),
        ("flashfw.toml", "[project]\nname = 3\n", "folder"),
        ("flashfw.toml", "project = 3\n", "folder"),
        ("flashfw.toml", "broken = \n", "folder"),
        ("pyproject.toml", '[tool.flashfw.project]\nname = "a"\n[project]\nname = "b"\n', "a"),
        ("pyproject.toml", '[tool.flashfw]\n[project]\nname = "b"\n', "b"),
        ("pyproject.toml", "[tool.flashfw]\n", "folder"),
    ],
)
def test_the_name_is_what_the_file_says_or_the_folders(tmp_path: Path, file: str, text: str, name: str) -> None:
    folder = write(tmp_path / "folder", {file: text})

    assert collect(Root(folder, folder / file)).name == name


def test_a_config_that_cannot_be_read_is_no_project(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "flashfw.toml")

    with pytest.raises(NoProjectError):
        root.find(tmp_path)
