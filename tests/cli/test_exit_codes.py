"""What scripts rely on: each exit code by a real command, and with `--json` one document on stdout whatever happens."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flashfw.cli.main import INTERRUPTED, VERBS
from flashfw.errors import Exit
from tests.command import COMMAND, flashfw
from tests.conftest import StartDev
from tests.dev_process import DevServer

NOBODY = "http://127.0.0.1:1"

TREE = {
    "flashfw.toml": '[project]\nname = "shop"\n',
    "endpoints/add/handler.py": "def handler(a: int, b: int = 1) -> int:\n    return a + b\n",
    "endpoints/fail/handler.py": "def handler() -> None:\n    raise ValueError('no luck')\n",
    "endpoints/gate/handler.py": (
        "import pathlib, time\n\n\ndef handler(file: str) -> str:\n"
        "    while not pathlib.Path(file).exists():\n        time.sleep(0.02)\n    return 'open'\n"
    ),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(tmp_path_factory.mktemp("exit") / "shop", TREE)


@pytest.fixture(scope="module")
def dev(project: Path, module_flashfw_dev: StartDev) -> DevServer:
    return module_flashfw_dev(project)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return _written(tmp_path / "broken", {**TREE, "endpoints/add/endpoint.toml": "worker = 3\n"})


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return _written(tmp_path / "empty", {"flashfw.toml": ""})


def _written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def told(folder: Path, arguments: Sequence[str], code: int) -> Any:
    """The document of a command, which must end with that code; one that fails must say so in it, and on stderr."""
    done = flashfw(*arguments, "--json", cwd=folder)
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    if code not in (Exit.DONE, Exit.PROBLEMS, Exit.NOTHING):
        assert document["error"]["exit"] == code
    assert bool(done.stderr) == (code != Exit.DONE)
    return document


@pytest.mark.parametrize("arguments", [["collect"], ["check"], ["config", "add"]], ids=" ".join)
def test_0_done(project: Path, arguments: list[str]) -> None:
    assert flashfw(*arguments, cwd=project).returncode == Exit.DONE
    assert told(project, arguments, Exit.DONE)


def test_0_new(tmp_path: Path) -> None:
    assert flashfw("new", "one", cwd=tmp_path).returncode == Exit.DONE
    assert told(tmp_path, ["new", "two"], Exit.DONE)["project"] == "two"


def test_0_a_call(dev: DevServer) -> None:
    assert flashfw("call", "add", '{"a": 2}', cwd=dev.project).stdout == "3\n"
    assert told(dev.project, ["call", "add", '{"a": 2}'], Exit.DONE) == 3


def test_1_a_failed_job(dev: DevServer) -> None:
    assert flashfw("call", "fail", cwd=dev.project).returncode == Exit.FAILED
    assert "no luck" in told(dev.project, ["call", "fail"], Exit.FAILED)["error"]["what"]


@pytest.mark.parametrize("arguments", [["collect"], ["check"], ["config", "add"]], ids=" ".join)
def test_2_problems(broken: Path, arguments: list[str]) -> None:
    if arguments == ["collect"]:  # which reads no configuration
        (broken / "endpoints/fail/handler.py").write_text("def handler(:\n")

    assert flashfw(*arguments, cwd=broken).returncode == Exit.PROBLEMS
    assert told(broken, arguments, Exit.PROBLEMS)["problems"]


def test_3_a_defect_of_ours(tmp_path: Path) -> None:
    (tmp_path / "defect.py").write_text("1 / 0\n")
    program = (
        "import sys; from flashfw.cli import main\n"
        "main.VERBS['defect'] = ('defect', ''); sys.exit(main.run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "defect", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == json.loads(done.stdout)["error"]["exit"] == Exit.INTERNAL
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["new"],
        ["new", "."],
        ["collect", "--nonsense"],
        ["collect", "-k", "("],
        ["collect", "nothing"],
        ["check", "surplus"],
        ["check", "--env", "nothing"],
        ["config"],
        ["config", "nothing"],
        ["dev", "--port", "many"],
        ["dev", "nothing"],
        ["call"],
        ["call", "add", "{"],
        ["call", "add", "@nothing"],
        ["call", "add", "--env", "nothing"],
        ["no-such-verb"],
    ],
    ids=" ".join,
)
def test_4_wrong_usage(project: Path, arguments: list[str]) -> None:
    assert told(project, arguments, Exit.USAGE)["error"]["what"]


ASKED = {
    "jobs": ["list"],
    "why": ["a-job-of-old"],
    "env": ["list"],
    **{verb: ["prod"] for verb in ("ship", "rollback", "remove", "logs")},
    **{verb: ["list", "prod"] for verb in ("key", "secret")},
}
"""What a verb needs besides, to get as far as to look for its project."""


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("new", "call", "config", "serve")])
def test_4_outside_of_a_project(tmp_path: Path, verb: str) -> None:
    assert told(tmp_path, [verb, *ASKED.get(verb, [])], Exit.USAGE)["error"]["what"].startswith("no flashfw.toml")


def test_4_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"rmdir {shlex.quote(str(gone))}; {shlex.quote(sys.executable)} -m flashfw check --json"
    done = subprocess.run(["sh", "-c", script], cwd=gone, capture_output=True, text=True, timeout=60)

    assert done.returncode == Exit.USAGE
    assert json.loads(done.stdout)["error"]["what"] == "the folder that you are in is gone"


@pytest.mark.parametrize("arguments", [["collect"], ["check"], ["dev", "--port", "0"]], ids=" ".join)
def test_5_nothing_collected(empty: Path, arguments: list[str]) -> None:
    assert flashfw(*arguments, cwd=empty).returncode == Exit.NOTHING
    assert told(empty, arguments, Exit.NOTHING)


def test_5_nothing_selected(project: Path) -> None:
    assert flashfw("collect", "-k", "nothing", cwd=project).returncode == Exit.NOTHING


def test_5_a_function_that_the_server_has_not(dev: DevServer) -> None:
    assert "did you mean 'add'?" in told(dev.project, ["call", "ad"], Exit.NOTHING)["error"]["hint"]


def test_7_nobody_there(project: Path) -> None:
    assert NOBODY in told(project, ["call", "add", "--url", NOBODY], Exit.TARGET)["error"]["what"]


def test_7_served_already(dev: DevServer) -> None:
    assert dev.url in told(dev.project, ["dev", "--port", "0"], Exit.TARGET)["error"]["what"]


def test_dev_tells_where_it_serves_and_ends_with_0(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    folder = _written(tmp_path / "shop", TREE)
    with _started(folder, "dev", "--port", "0", "--json", environ=dev_environ) as process:
        assert process.stderr is not None
        assert any(line.startswith("ready") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)

    assert process.returncode == Exit.DONE
    assert json.loads(printed)["pid"] == process.pid


def test_ctrl_c_while_input_is_read(project: Path) -> None:
    read, write = os.pipe()
    with _started(project, "call", "add", "--json", stdin=read) as process:
        os.close(read)
        os.write(write, b" " * 1_000_000)  # more than a pipe holds: once it is written, somebody reads
        process.send_signal(signal.SIGINT)
        os.close(write)
        printed, said = process.communicate(timeout=60)

    assert (process.returncode, printed) == (INTERRUPTED, "")
    assert "Traceback" not in said


def test_ctrl_c_while_a_job_runs(dev: DevServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    with _started(dev.project, "call", "gate", json.dumps({"file": str(key)}), "--stream", "--json") as process:
        assert process.stderr is not None
        assert any(line.startswith("started") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    key.touch()

    assert (process.returncode, printed) == (INTERRUPTED, "")
    assert "Traceback" not in said


def _started(
    folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL, environ: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(COMMAND), *arguments],
        cwd=folder,
        env=environ,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
