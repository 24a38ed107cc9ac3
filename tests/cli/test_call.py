from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cli import inputs
from flashfw.cli.inputs import Given
from flashfw.cli.main import run
from flashfw.errors import Exit, UsageError
from tests import command
from tests.client.conftest import SHOP
from tests.client.server import Wire, serving
from tests.conftest import StartDev

FLASHFW = Path(sys.executable).with_name("flashfw")


@pytest.fixture(scope="module")
def wire_url() -> Iterator[str]:
    with serving(Wire().app()) as url:
        yield url


@pytest.fixture(scope="module")
def gateway_url(module_flashfw_dev: StartDev, tmp_path_factory: pytest.TempPathFactory) -> str:
    project = shutil.copytree(SHOP, tmp_path_factory.mktemp("call") / "shop")
    return module_flashfw_dev(project).url


@pytest.fixture(scope="module", params=["wire", "gateway"])
def url(request: pytest.FixtureRequest) -> str:
    """A server of the project under `tests/client/shop`: each implementation of the wire in turn."""
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address


@pytest.fixture
def project(tmp_path: Path, url: str) -> Path:
    """A project whose `flashfw dev` runs."""
    (tmp_path / "flashfw.toml").touch()
    (tmp_path / ".flashfw").mkdir()
    (tmp_path / ".flashfw" / "dev.json").write_text(json.dumps({"url": url, "pid": os.getpid(), "key": "k"}))
    (tmp_path / "endpoints").mkdir()
    return tmp_path


class Done(NamedTuple):
    """How a command ended and what it printed."""

    returncode: int
    stdout: bytes
    stderr: bytes


Command = Callable[..., Done]


@pytest.fixture
def flashfw(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Command:
    """Run a command line in a folder, in this process: a start of Python for each test would take its time."""

    def invoke(folder: Path, *arguments: str) -> Done:
        monkeypatch.chdir(folder)
        code = run(arguments)
        return Done(int(code), *capsysbinary.readouterr())

    return invoke


def process(folder: Path, *arguments: str, stdin: bytes = b"") -> Done:
    """The same in a process of its own."""
    done = command.flashfw(*arguments, cwd=folder, stdin=stdin)
    return Done(done.returncode, done.stdout.encode(), done.stderr.encode())


def test_the_output_is_json_on_stdout(flashfw: Command, project: Path) -> None:
    done = flashfw(project / "endpoints", "call", "tools::shout", '{"text": "grüße"}')

    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, '"GRÜSSE"\n', b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_the_output_is_json_whatever_the_terminal_shows(wire_url: str, tmp_path: Path, encoding: str) -> None:
    text = "caf\u00e9 \u2603 \U0001f600"
    arguments = [FLASHFW, "call", "echo", json.dumps({"text": text}), "--url", wire_url]
    done = subprocess.run(
        arguments, cwd=tmp_path, capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": encoding}
    )

    assert json.loads(done.stdout.decode(encoding)) == {"text": text}


def test_a_closed_stdout_is_no_error(wire_url: str, tmp_path: Path) -> None:
    script = f"exec {FLASHFW} call echo '{{}}' --url {wire_url} >&-"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, timeout=60)

    assert (done.returncode, done.stderr) == (Exit.DONE, b"")


def test_input_from_a_file(flashfw: Command, project: Path) -> None:
    (project / "in.json").write_text('{"a": 1}')

    assert json.loads(flashfw(project, "call", "echo", "@in.json").stdout) == {"a": 1}


@pytest.mark.parametrize(("arguments", "stdin", "output"), [(["-"], b"[1]", [1]), ([], b"[2]", [2]), ([], b"", {})])
def test_input_from_stdin(wire_url: str, tmp_path: Path, arguments: list[str], stdin: bytes, output: Any) -> None:
    done = process(tmp_path, "call", "--url", wire_url, "echo", *arguments, stdin=stdin)

    assert json.loads(done.stdout) == output


def test_a_failed_job_exits_with_1_and_shows_its_traceback(flashfw: Command, project: Path) -> None:
    done = flashfw(project, "call", "fail", '{"number": 7}')
    told = done.stderr.decode()

    assert (done.returncode, done.stdout) == (Exit.FAILED, b"")
    assert told.index("endpoints/fail/handler.py") < told.index("error: fail (job ")
    assert "the handler raised: ValueError: no luck with 7" in told


@pytest.mark.parametrize("how", [[], ["--stream"]])
def test_a_call_that_the_handler_refuses_shows_status_and_detail_alone(
    flashfw: Command, project: Path, how: list[str]
) -> None:
    done = flashfw(project, "call", "fail", '{"number": 404}', *how)
    told = done.stderr.decode()

    assert (done.returncode, done.stdout) == (Exit.FAILED, b"")
    assert told.splitlines()[-1].startswith("error: fail (job ")
    assert told.splitlines()[-1].endswith("): 404: no such order")
    assert "Traceback" not in told
    assert "handler.py" not in told


def test_json_errors_are_one_document(flashfw: Command, project: Path) -> None:
    done = flashfw(project, "call", "strict", '{"n": "x"}', "--json")

    assert done.returncode == Exit.FAILED
    assert (
        json.loads(done.stdout)["error"]["what"].endswith(
            "the input does not fit: n: Input should be a valid integer, unable to parse string as an integer"
        )
        or "the input does not fit: n: " in json.loads(done.stdout)["error"]["what"]
    )


def test_input_that_is_no_json_shows_the_place(flashfw: Command, project: Path) -> None:
    done = flashfw(project, "call", "echo", '{"a": 1 "b": 2}')

    assert done.returncode == Exit.USAGE
    assert done.stderr.decode() == (
        'error: INPUT is not JSON at line 1, column 9: Expecting \',\' delimiter\n  {"a": 1 "b": 2}\n          ^\n'
    )


def test_an_unknown_id_exits_with_5_and_a_suggestion(flashfw: Command, project: Path) -> None:
    done = flashfw(project, "call", "tools::shuot", "{}")

    assert done.returncode == Exit.NOTHING
    assert b"did you mean 'tools::shout'?" in done.stderr


def test_nobody_there_exits_with_7(flashfw: Command, tmp_path: Path) -> None:
    (tmp_path / "flashfw.toml").write_text("[dev]\nport = 1\n")
    done = flashfw(tmp_path, "call", "echo", "{}")

    assert done.returncode == Exit.TARGET
    assert b"no answer from http://127.0.0.1:1" in done.stderr
    assert b"is `flashfw dev`, or on a server `flashfw serve`, running there?" in done.stderr


def test_outside_of_a_project_a_url_is_needed(flashfw: Command, tmp_path: Path, url: str) -> None:
    nowhere = flashfw(tmp_path, "call", "echo", "{}")
    there = flashfw(tmp_path, "call", "echo", "3", "--url", url.removeprefix("http://"))

    assert nowhere.returncode == Exit.USAGE
    assert b"no flashfw.toml" in nowhere.stderr
    assert there.stdout == b"3\n"


def test_environments_are_those_of_the_project(flashfw: Command, project: Path, url: str) -> None:
    (project / "flashfw.toml").write_text(
        f'[environments.live]\ntarget = "cluster"\nurl = "{url}"\n[environments.bare]\ntarget = "cluster"\n'
    )
    live = flashfw(project, "call", "echo", "3", "--env", "live")
    wrong = flashfw(project, "call", "echo", "3", "--env", "lvie")
    bare = flashfw(project, "call", "echo", "3", "--env", "bare")

    assert live.stdout == b"3\n"
    assert (wrong.returncode, bare.returncode) == (Exit.USAGE, Exit.USAGE)
    assert b"did you mean 'live'?" in wrong.stderr
    assert b"has no address" in bare.stderr


def test_spawn_prints_the_id_at_once(flashfw: Command, project: Path) -> None:
    given = json.dumps({"file": str(project)})
    plain = flashfw(project, "call", "gate", given, "--spawn")
    document = flashfw(project, "call", "gate", given, "--spawn", "--json")

    assert plain.returncode == 0
    assert len(plain.stdout.split()) == 1
    assert json.loads(document.stdout)["function"] == "gate"


def test_stream_prints_each_item_on_a_line(flashfw: Command, project: Path) -> None:
    done = flashfw(project, "call", "count", '{"n": 3}', "--stream")

    assert (done.returncode, done.stdout) == (0, b"0\n1\n2\n")
    assert b"started: attempt 1" in done.stderr


def test_stream_with_json_is_the_output_alone(flashfw: Command, project: Path) -> None:
    done = flashfw(project, "call", "count", '{"n": 2}', "--stream", "--json")

    assert json.loads(done.stdout) == [0, 1]
    assert b"chunk: 1" in done.stderr


def test_progress_goes_to_stderr_while_the_job_runs(project: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    arguments = [FLASHFW, "call", "gate", json.dumps({"file": str(key)}), "--stream"]
    with subprocess.Popen(arguments, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert any(line.startswith(b'progress: "no key yet"') for line in process.stderr)
            key.touch()
            assert process.stdout.read() == b'"open"\n'
            process.stderr.read()
        finally:
            watchdog.cancel()

    assert process.returncode == 0


def test_http_functions_get_their_path_query_and_body(flashfw: Command, project: Path) -> None:
    got = flashfw(project, "call", "api/users/_id_::get", '{"id": 3, "q": "a b"}')
    put = flashfw(project, "call", "api/users/_id_::put", '{"id": 3, "name": "x", "tags": ["y"]}')

    assert json.loads(got.stdout) == {"id": 3, "q": "a b"}
    assert json.loads(put.stdout) == {"id": 3, "name": "x", "tags": ["y"]}


def test_a_file_is_the_raw_body_of_a_function_that_takes_bytes(flashfw: Command, project: Path) -> None:
    (project / "photo.bin").write_bytes(bytes(range(256)))
    done = flashfw(project, "call", "api/notes::post", "@photo.bin")

    assert json.loads(done.stdout) == {"size": 256}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["echo", "{}", "--spawn", "--stream"], Exit.USAGE, "give one of them"),
        (["echo", "@nothing"], Exit.USAGE, "cannot read 'nothing': No such file"),
        (["api/users/_id_::get", "{}"], Exit.USAGE, "needs 'id' in its path"),
        (["api/users/_id_::get", '{"id": 1}', "--spawn"], Exit.USAGE, "--spawn is for jobs"),
        (["api/users/_id_::get", '{"id": "x"}'], Exit.FAILED, "api/users/_id_::get answered 404 Not Found"),
    ],
)
def test_wrong_use_is_said(flashfw: Command, project: Path, arguments: list[str], code: Exit, message: str) -> None:
    done = flashfw(project, "call", *arguments)

    assert done.returncode == code
    assert message in done.stderr.decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", """INPUT is not JSON at line 1, column 1: Expecting value (a text is written '"hello"')"""),
        ('{"a": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_typed_input_that_is_no_json(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        inputs.parse(Given(text.encode(), "INPUT", is_text=True))

    assert message in caught.value.what


def test_a_file_that_is_no_text_is_said() -> None:
    with pytest.raises(UsageError, match="a.bin is not UTF-8: byte 1 is 0xff"):
        inputs.parse(Given(b"{\xff}", "a.bin"))


def test_a_long_line_is_shown_around_the_place() -> None:
    text = '{"a": "' + "x" * 300 + '" "b": "' + "y" * 300 + '"}'
    with pytest.raises(UsageError) as caught:
        inputs.parse(Given(text.encode(), "INPUT"))
    line, caret = caught.value.hint.split("\n")

    assert len(line) <= 72
    assert line[len(caret) - 3] == '"'


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_is_read_as_it_is(value: Any) -> None:
    assert inputs.parse(Given(json.dumps(value).encode(), "INPUT")) == value


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(UsageError):
        inputs.parse(Given(content, "INPUT", is_text=True))
