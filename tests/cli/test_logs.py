"""`flashfw logs`: read, followed over a server that goes away, and ended by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from flashfw.cluster.events import Event
from flashfw.errors import Exit
from tests.cli.administered import Administered, administered
from tests.cli.test_key import Run, home, made, run, server
from tests.command import Forked

__all__ = ["home", "run", "server"]

DEADLINE_S = 60.0


@pytest.fixture
def key(server: Administered) -> str:
    return made(server)


def writes(server: Administered, *texts: str, job: str | None = None, **more: Any) -> None:
    for text in texts:
        fields = {"worker": "w-1", "job": job, "stream": "stdout", "text": text + "\n", **more}
        server.logs.take(Event("output", "gpu", fields))


def test_lines_are_shown_with_their_time_and_origin(run: Run, server: Administered, key: str) -> None:
    writes(server, "hello", "esc \x1b[2J")
    writes(server, "of a job", job="01a1fc26-2261-7233-b45d-26597e28603c")
    writes(server, "Boom\nTraceback\n  line 3", stream="log", level="error")

    shown = run("logs", "prod", key=key)
    assert (shown.returncode, shown.stderr) == (Exit.DONE, "")
    lines = [line[15:] if line[:1].isdigit() else line for line in shown.stdout.splitlines()]
    assert lines == [
        "[gpu w-1] hello",
        "[gpu w-1] esc \\x1b[2J",
        "[gpu 7e28603c] of a job",
        "[gpu w-1] Boom",
        "    Traceback",
        "      line 3",
    ]
    assert run("logs", "prod", "gpu", "-n", "1", key=key).stdout.startswith(shown.stdout.splitlines()[3][:14])
    assert "[w-1] Boom" in run("logs", "prod", "gpu", "-n", "1", key=key).stdout
    found = [
        json.loads(line) for line in run("logs", "prod", "--json", "--job", "7e28603c", key=key).stdout.split("\n")[:-1]
    ]
    assert [line["text"] for line in found] == ["of a job"]
    assert run("logs", "prod", "--since", "1h", key=key).stdout == shown.stdout
    none = run("logs", "prod", "--job", "nothing-there", key=key)
    assert (none.returncode, none.stdout, none.stderr) == (Exit.DONE, "", "no such lines\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["prod", "gpo"], Exit.USAGE, "did you mean 'gpu'"),
        (["prod", "--since", "soon"], Exit.USAGE, "no duration"),
        (["prod", "--job", "x"], Exit.USAGE, "6 or more"),
        (["prod", "-n", "-1"], Exit.USAGE, "-1"),
        (["nowhere"], Exit.USAGE, "no environment"),
        (["dev"], Exit.USAGE, "own terminal"),
    ],
)
def test_what_cannot_be_is_said(run: Run, key: str, arguments: list[str], code: int, said: str) -> None:
    done = run("logs", *arguments, key=key)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


class Following:
    """A running `flashfw logs -f`; a line that does not come ends the wait for it by ending the command."""

    def __init__(self, url: str, key: str, folder: Path) -> None:
        (folder / "flashfw.toml").write_text(f'[environments.prod]\nurl = "{url}"\n')
        out, into = os.pipe()
        environ = {**os.environ, "FLASHFW_KEY": key, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        self.errors = folder / "errors"
        with self.errors.open("wb") as errors:
            arguments = ("logs", "prod", "gpu", "-f", "--json")
            self.process = Forked(*arguments, cwd=folder, environ=environ, stdout=into, stderr=errors)
        os.close(into)
        self.out: IO[str] = os.fdopen(out)

    def text(self) -> str:
        watchdog = threading.Timer(DEADLINE_S, self.process.kill)
        watchdog.start()
        try:
            return str(json.loads(self.out.readline())["text"])
        finally:
            watchdog.cancel()


@pytest.fixture
def following(server: Administered, key: str, tmp_path: Path) -> Iterator[Following]:
    folder = tmp_path / "follows"
    folder.mkdir()
    writes(server, "before")
    found = Following(server.url, key, folder)
    yield found
    found.process.kill()
    found.process.wait()
    found.out.close()


def test_what_comes_is_shown_until_ctrl_c_which_is_no_error(server: Administered, following: Following) -> None:
    assert following.text() == "before"
    writes(server, "now")
    assert following.text() == "now"
    following.process.send_signal(signal.SIGINT)

    assert following.process.wait() == Exit.DONE
    assert following.out.read() == ""


def test_a_key_that_is_revoked_ends_it_and_says_why(server: Administered, following: Following, key: str) -> None:
    assert following.text() == "before"
    made(server)
    server.keys.revoke(key[3:11])
    writes(server, "for others")

    assert following.process.wait() == Exit.TARGET
    told = json.loads(following.out.read())
    assert "was revoked" in told["error"]["what"]
    assert key not in f"{told} {following.errors.read_text()}"


def test_it_goes_on_where_it_was_when_the_server_starts_anew(tmp_path: Path) -> None:
    for name in ("data", "follows"):
        (tmp_path / name).mkdir()
    with administered(tmp_path / "data") as first:
        key, port = made(first), int(first.url.rpartition(":")[2])
        writes(first, "one", "two")
        following = Following(first.url, key, tmp_path / "follows")
        try:
            assert [following.text(), following.text()] == ["one", "two"]
        except BaseException:
            following.process.kill()
            raise
    with administered(tmp_path / "data", port=port) as second:
        writes(second, "three")
        try:
            assert following.text() == "three"
        finally:
            following.process.kill()
            following.process.wait()
            following.out.close()
