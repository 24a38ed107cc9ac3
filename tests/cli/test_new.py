"""`flashfw new` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashfw.cli.main import run
from flashfw.errors import Exit

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_makes_a_project_and_says_what_to_do_next(tmp_path: Path, capsys: Capture) -> None:
    assert run(["new", "shop"]) == Exit.DONE

    out = capsys.readouterr().out
    assert (tmp_path / "shop" / "flashfw.toml").is_file()
    assert "cd shop\n  flashfw dev\n" in out
    assert "flashfw call hello" in out


def test_in_the_working_directory_there_is_no_cd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")

    assert run(["new", "."]) == Exit.DONE
    assert "cd " not in capsys.readouterr().out


def test_a_path_with_a_blank_is_quoted(tmp_path: Path, capsys: Capture) -> None:
    assert run(["new", "my work/shop"]) == Exit.DONE
    assert "cd 'my work/shop'" in capsys.readouterr().out


def test_json_is_one_document(tmp_path: Path, capsys: Capture) -> None:
    assert run(["new", "shop", "--json"]) == Exit.DONE

    document = json.loads(capsys.readouterr().out)
    assert document["project"] == "shop"
    assert document["path"] == str(tmp_path / "shop")
    assert "endpoints/hello/handler.py" in document["files"]


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "notes.txt").touch()

    assert run(["new", "shop"]) == Exit.USAGE

    captured = capsys.readouterr()
    assert "shop is not empty: notes.txt" in captured.err
    assert captured.out == ""


def test_a_refusal_in_json(tmp_path: Path, capsys: Capture) -> None:
    assert run(["new", "My Shop", "--json"]) == Exit.USAGE

    error = json.loads(capsys.readouterr().out)["error"]
    assert "'My Shop' is no project name" in error["what"]
    assert error["hint"] == "did you mean 'my-shop'?"


def test_without_a_path_it_is_wrong_usage(capsys: Capture) -> None:
    assert run(["new"]) == Exit.USAGE
    assert "PATH" in capsys.readouterr().err
