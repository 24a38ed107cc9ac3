"""The command itself: verbs, help, exit codes, and what is imported on the way."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from flashfw.cli import main, output
from flashfw.errors import Exit, Problem

FLASHFW = str(Path(sys.executable).with_name("flashfw"))


def flashfw(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FLASHFW, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_help_lists_every_verb_on_stdout() -> None:
    done = flashfw("--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.split("Verbs:\n")[1].splitlines()] == list(main.VERBS)


def test_no_verb_is_wrong_usage_with_help_on_stderr() -> None:
    done = flashfw()

    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "Verbs:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["colect"], "No such verb 'colect'. Did you mean 'collect'?"),
        (["zzz"], "No such verb 'zzz'."),
        (["--nonsense"], "--nonsense"),
        (["collect", "--nonsense"], "--nonsense"),
        (["check", "surplus"], "surplus"),
        (["collect", "-k"], "-k"),
    ],
)
def test_wrong_usage_ends_with_4(capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main.run(arguments) == Exit.USAGE
    captured = capfd.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_the_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == Exit.DONE
    assert capfd.readouterr().out.startswith("flashfw ")


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_every_verb_has_help(capfd: pytest.CaptureFixture[str], verb: str) -> None:
    assert main.run([verb, "--help"]) == Exit.DONE

    usage, _, first, *_ = capfd.readouterr().out.splitlines()
    assert usage.startswith(f"Usage: flashfw {verb} ")
    assert first.strip() == main.VERBS[verb][1]


def test_help_imports_no_verb_and_nothing_heavy() -> None:
    code = (
        "import sys\nfrom flashfw.cli import main\nmain.run(['--help'])\n"
        "print(*(name for name in sys.modules if name.startswith(('flashfw.', 'pydantic', 'rich', 'starlette'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set(done.stdout.splitlines()[-1].split()) == {
        "flashfw.cli",
        "flashfw.cli.main",
        "flashfw.cli.output",
        "flashfw.errors",
    }


@pytest.mark.parametrize("arguments", [["collect"], ["check"], ["config", "gpu"]], ids=" ".join)
def test_verbs_that_read_the_project_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "flashfw.toml").touch()
    (tmp_path / "endpoints" / "gpu").mkdir(parents=True)
    (tmp_path / "endpoints" / "gpu" / "handler.py").write_text("def handler(x: int): ...\n")
    code = (
        "import sys\nfrom flashfw.cli import main\ncode = main.run(sys.argv[1:])\n"
        "heavy = {'pydantic', 'rich', 'starlette', 'httpx', 'anyio', 'asyncio', 'uvicorn'}\n"
        "print(int(code), sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_defect_is_short_and_v_shows_its_traceback(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(main.VERBS, "broken", ("flashfw.cli.no_such_module", "Does not exist."))

    assert main.run(["broken"]) == Exit.INTERNAL
    short = capfd.readouterr().err
    assert main.run(["-v", "broken"]) == Exit.INTERNAL
    long = capfd.readouterr().err

    assert short.startswith("internal error: ModuleNotFoundError: ")
    assert "flashfw -v broken" in short
    assert "Traceback" not in short
    assert "Traceback" in long


def test_an_error_with_json_is_one_document(tmp_path: Path) -> None:
    done = flashfw("collect", "--json", cwd=tmp_path)

    document = json.loads(done.stdout)
    assert done.returncode == document["error"]["exit"] == Exit.USAGE
    assert document["error"]["what"].startswith("no flashfw.toml in")
    assert "error: no flashfw.toml in" in done.stderr


def test_problems_are_one_per_line_with_a_tally(capfd: pytest.CaptureFixture[str]) -> None:
    output.problems([Problem("wrong", "a.py", 3, hint="mend it"), Problem("odd\x1b[2J", level="warning")])

    assert capfd.readouterr().err.splitlines() == [
        "a.py:3: wrong; mend it",
        "warning: odd\\x1b[2J",
        "1 problem, 1 warning",
    ]


@pytest.mark.parametrize(
    ("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_colour_is_for_terminals_that_want_it(extra: dict[str, str], coloured: bool) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    script = "from flashfw.cli import output; print(output.paint('text', 'red'))"
    parent, child = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", script], stdout=child, env={**plain, "TERM": "xterm", **extra}, check=True
        )
        shown = os.read(parent, 1000).decode()
    finally:
        os.close(parent)
        os.close(child)

    assert ("\x1b[31m" in shown) is coloured
    piped = subprocess.run([sys.executable, "-c", script], capture_output=True, env=plain, check=True)
    assert piped.stdout == b"text\n"


@pytest.mark.parametrize(("verb", "is_told"), [("status", True), ("ship", True), ("collect", False)])
def test_env_is_an_argument_of_the_verbs_about_one(verb: str, is_told: bool, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run([verb, "--env", "prod"]) == Exit.USAGE
    assert ("takes the environment without --env" in capfd.readouterr().err) is is_told
