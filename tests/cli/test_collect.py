"""`flashfw collect` as people and scripts run it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flashfw.cli import main
from flashfw.errors import Exit
from tests import command


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a job and HTTP, entered."""
    files = {
        "flashfw.toml": '[project]\nname = "shop"\n',
        "endpoints/gpu/handler.py": '"""Docs."""\n\ndef handler(prompt: str): ...\n',
        "endpoints/gpu/endpoint.toml": 'marks = ["slow"]\n',
        "endpoints/api/handler.py": "def get(): ...\n",
        "endpoints/api/users/_id_/handler.py": "def get(id: int): ...\ndef delete(id: int): ...\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def flashfw(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command.flashfw(*arguments, cwd=Path.cwd())


def test_the_tree(shop: Path) -> None:
    done = flashfw("collect")

    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert done.stdout.splitlines()[1:] == [
        f"root: {shop}, config: flashfw.toml",
        "",
        "api http",
        "  api::get                GET     /api             endpoints/api/handler.py:1",
        "  api/users/_id_::get     GET     /api/users/{id}  endpoints/api/users/_id_/handler.py:1",
        "  api/users/_id_::delete  DELETE  /api/users/{id}  endpoints/api/users/_id_/handler.py:2",
        "",
        "gpu job",
        "  gpu                     POST    /gpu             endpoints/gpu/handler.py:3",
        "",
        "4 functions in 2 endpoints",
    ]


def test_the_tree_as_json(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["collect", "gpu", "--json"]) == Exit.DONE

    captured = capfd.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "project": "shop",
        "root": str(shop),
        "config": str(shop / "flashfw.toml"),
        "endpoints": [
            {
                "id": "gpu",
                "kind": "job",
                "directory": "endpoints/gpu",
                "broken": False,
                "functions": [
                    {
                        "id": "gpu",
                        "kind": "job",
                        "method": "POST",
                        "url": "/gpu",
                        "file": "endpoints/gpu/handler.py",
                        "line": 3,
                    }
                ],
            }
        ],
        "problems": [],
    }


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (["api"], "3 functions in 1 endpoint, 1 deselected"),
        (["api/users", "gpu"], "3 functions in 2 endpoints, 1 deselected"),
        (["-k", "get and not users"], "1 function in 1 endpoint, 3 deselected"),
        (["-m", "slow"], "1 function in 1 endpoint, 3 deselected"),
        (["-m", "not slow"], "3 functions in 1 endpoint, 1 deselected"),
    ],
)
def test_selection(shop: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], last: str) -> None:
    assert main.run(["collect", *arguments]) == Exit.DONE
    assert capfd.readouterr().out.splitlines()[-1] == last


def test_the_tree_from_elsewhere(
    shop: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop / "endpoints" / "api")
    assert main.run(["collect"]) == Exit.DONE
    from_below = capfd.readouterr().out
    monkeypatch.chdir("/")
    assert main.run(["collect", "--root", str(shop)]) == Exit.DONE
    assert capfd.readouterr().out == from_below


def test_with_problems_the_rest_is_shown_and_it_ends_with_2(shop: Path) -> None:
    (shop / "endpoints/api/handler.py").write_text("def get(:\n")
    done = flashfw("collect")

    assert done.returncode == Exit.PROBLEMS
    assert "api http broken" in done.stdout
    assert "gpu job" in done.stdout
    assert done.stderr.splitlines() == ["endpoints/api/handler.py:1: syntax error: invalid syntax", "1 problem"]


def test_warnings_end_with_0(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (shop / "endpoints/gpu/fixture.py").touch()

    assert main.run(["collect"]) == Exit.DONE
    assert capfd.readouterr().err.splitlines()[-1] == "1 warning"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpuu"], "error: no endpoint or function is called 'gpuu'\n  did you mean 'gpu'?"),
        (["-k", "a and"], "error: -k 'a and': expected a name at column 6, where it ends"),
        (["-m", "("], "error: -m '(': expected a name at column 2, where it ends"),
    ],
)
def test_a_wrong_selection_ends_with_4(
    shop: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main.run(["collect", *arguments]) == Exit.USAGE

    captured = capfd.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_wrong_usage_in_a_process_ends_with_4(shop: Path) -> None:
    assert flashfw("collect", "gpuu").returncode == Exit.USAGE


def test_an_id_of_a_broken_endpoint_is_known(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (shop / "endpoints/gpu/handler.py").write_text("def handler(:\n")

    assert main.run(["collect", "gpu"]) == Exit.PROBLEMS
    assert "gpu broken" in capfd.readouterr().out


def test_nothing_collected_ends_with_5(
    shop: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    done = flashfw("collect", "-k", "nothing", "--json")
    assert done.returncode == Exit.NOTHING
    assert json.loads(done.stdout)["endpoints"] == []
    assert "the selection matches nothing" in done.stderr

    empty = tmp_path_factory.mktemp("empty")
    (empty / "flashfw.toml").touch()
    assert main.run(["collect", "--root", str(empty)]) == Exit.NOTHING
    assert "there is no endpoints/ folder" in capfd.readouterr().err

    (empty / "endpoints").mkdir()
    assert main.run(["collect", "--root", str(empty)]) == Exit.NOTHING
    assert "endpoints/ holds no handler.py" in capfd.readouterr().err


def test_names_of_odd_bytes_and_control_characters_are_escaped(shop: Path) -> None:
    (shop / "endpoints" / "a\x1b[2J\udcff").mkdir()
    (shop / "endpoints" / "a\x1b[2J\udcff" / "handler.py").write_text("def handler(): ...")

    done = flashfw("collect")
    assert done.returncode == Exit.PROBLEMS
    assert "\x1b" not in done.stdout + done.stderr
    assert "a\\x1b[2J\\udcff job broken" in done.stdout


def test_a_reader_that_leaves_early_is_no_defect(shop: Path) -> None:
    done = subprocess.run(
        f"{command.COMMAND} collect | head -1", shell=True, capture_output=True, text=True, timeout=60
    )

    assert done.stdout.startswith("flashfw ")
    assert "internal error" not in done.stderr


def test_another_process_prints_the_same(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main.run(["collect", "--json"])

    assert flashfw("collect", "--json").stdout == capfd.readouterr().out
