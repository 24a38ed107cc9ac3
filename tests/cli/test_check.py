"""`flashfw check` as people and scripts run it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flashfw.cli import main
from flashfw.errors import Exit, Problem, ordered
from tests import command


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one sound job, entered."""
    (tmp_path / "flashfw.toml").write_text('[project]\nname = "shop"\n')
    (tmp_path / "endpoints" / "gpu").mkdir(parents=True)
    (tmp_path / "endpoints" / "gpu" / "handler.py").write_text("def handler(x: int): ...\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def flashfw(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command.flashfw(*arguments, cwd=Path.cwd())


def test_a_sound_project(project: Path) -> None:
    done = flashfw("check")

    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert done.stdout == "no problems in 1 function of 1 endpoint\n"


def test_problems_of_tree_and_configuration_are_told_at_once(project: Path) -> None:
    (project / "endpoints/gpu/endpoint.toml").write_text("worker = 3\n")
    (project / "endpoints/api").mkdir()
    (project / "endpoints/api/handler.py").write_text("def get(:\n")
    done = flashfw("check")

    assert (done.returncode, done.stdout) == (Exit.PROBLEMS, "")
    api, gpu, tally = done.stderr.splitlines()
    assert api == "endpoints/api/handler.py:1: syntax error: invalid syntax"
    assert gpu.startswith("endpoints/gpu/endpoint.toml:1: ")
    assert "workers" in gpu
    assert tally == "2 problems"


def test_warnings_do_not_fail(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "endpoints/gpu/fixture.py").touch()

    assert main.run(["check"]) == Exit.DONE
    assert "did you mean 'fixtures.py'?" in capfd.readouterr().err


def test_the_problems_as_json(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "endpoints/gpu/handler.py").write_text("\ndef handle(x: int): ...\n")
    assert main.run(["check", "--json"]) == Exit.PROBLEMS

    document = json.loads(capfd.readouterr().out)
    assert (document["project"], document["environment"]) == ("shop", "dev")
    assert (document["errors"], document["warnings"]) == (1, 0)
    assert document["problems"] == [
        {
            "level": "error",
            "what": "defines 'handle', but no handler, app or HTTP verb",
            "file": "endpoints/gpu/handler.py",
            "line": 2,
            "column": None,
            "hint": "did you mean 'handler'?",
            "also": [],
        }
    ]


def test_an_environment_that_is_not_declared_is_refused(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["check", "--env", "nowhere"]) in (Exit.PROBLEMS, Exit.USAGE)
    assert "nowhere" in capfd.readouterr().err


def test_no_project_ends_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = flashfw("check")

    assert done.returncode == Exit.USAGE
    assert "flashfw new PATH" in done.stderr


def test_an_empty_project_ends_with_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flashfw.toml").touch()
    monkeypatch.chdir(tmp_path)
    done = flashfw("check")

    assert done.returncode == Exit.NOTHING
    assert "there is no endpoints/ folder" in done.stderr


def test_merging_keeps_each_problem_once_in_the_order_of_places() -> None:
    one, two, three = Problem("a", "x.py", 2), Problem("b", "x.py", 10), Problem("c", "a.py")

    assert ordered([two, one], [one, three]) == (three, one, two)
