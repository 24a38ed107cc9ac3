"""`flashfw dev` as people meet it: a command in a terminal, with signals, pipes and a second one beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import dev_process
from tests.command import COMMAND, flashfw
from tests.conftest import StartDev
from tests.dev_process import DevServer, wait_until
from tests.served import write
from tests.test_bad_input import fill, small_disk

FILES = {
    "endpoints/echo/handler.py": """
        def handler(text: str) -> str:
            print("got", text)
            return text
        """,
    "endpoints/long/handler.py": """
        import time

        def handler() -> None:
            print("begun")
            time.sleep(600)
        """,
}
DEADLINE_S = 60.0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path / "shop", FILES)


@contextmanager
def started(project: Path, environ: Mapping[str, str]) -> Iterator[DevServer]:
    """A server that the test itself ends."""
    server = dev_process.start(project, environ=environ, log=project.parent / "dev.log")
    try:
        yield server
    finally:
        server.crash()


def run(project: Path, *arguments: str, environ: Mapping[str, str]) -> tuple[int, str]:
    """A `flashfw dev` that cannot serve: its exit code and what it said after the header."""
    done = flashfw("dev", *arguments, cwd=project, environ=environ)
    assert done.stdout == ""
    header, _, said = done.stderr.partition("\n")
    assert header.startswith("flashfw ")
    return done.returncode, said


def test_a_call_is_told_with_its_output_job_and_request(
    flashfw_dev: StartDev, project: Path, dev_environ: dict[str, str]
) -> None:
    server = flashfw_dev(project)
    assert server.call("/echo", {"text": "hi"}) == "hi"

    wait_until(lambda: "200 POST /echo" in server.output(), "the request is told")
    said = server.output()
    assert re.search(
        r"^\[echo ([0-9a-f]{8})\] got hi\nCOMPLETED echo \1  waited .*, ran .*\n200 POST /echo  ", said, re.M
    )
    assert "  echo  POST   /echo\n" in said
    assert f"\nready  {server.url}  docs: {server.url}/docs  (Ctrl-C stops)\n" in said
    assert "\x1b" not in said


def test_a_second_server_is_refused_with_the_first_ones_address(
    flashfw_dev: StartDev, project: Path, tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    server = flashfw_dev(project)
    port = server.url.rpartition(":")[2]

    code, said = run(project, "--port", "0", environ=dev_environ)
    assert (code, said.splitlines()[0]) == (
        7,
        f"error: this project is served already at {server.url} (pid {server.process.pid})",
    )
    code, said = run(write(tmp_path / "other", FILES), "--port", port, environ=dev_environ)
    assert (code, said.splitlines()[0]) == (7, f"error: port {port} on 127.0.0.1 is in use")


def test_what_cannot_be_served_is_an_error_with_a_code(
    project: Path, tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    code, said = run(write(tmp_path / "empty", {}), environ=dev_environ)
    assert (code, said.splitlines()[0]) == (5, f"error: no endpoint in {tmp_path / 'empty'}")

    code, said = run(project, "ehco", environ=dev_environ)
    assert code == 4
    assert "did you mean 'echo'?" in said


def test_a_port_that_is_none_is_refused_before_anything_starts(project: Path) -> None:
    for port in ("65536", "-1", "http"):
        done = flashfw("dev", "--port", port, cwd=project)
        assert (done.returncode, done.stdout) == (4, "")
        assert f"Invalid value for '--port' / '-p': {port}" in done.stderr.replace("'" + port + "'", port)


def test_sigterm_stops_it_in_good_order_and_jobs_are_kept(project: Path, dev_environ: dict[str, str]) -> None:
    with started(project, dev_environ) as server:
        _begin_long_job(server)
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(DEADLINE_S)
        said = server.output()

    assert code == 0
    assert "\nstopping\nwaiting 3 s for 1 running job; what is not done goes back to the queue\n" in said
    with started(project, dev_environ) as again:
        assert "\n1 job of the last run in the queue  (long 1)\n" in again.output()


def test_a_closed_terminal_stops_it_in_good_order(project: Path, dev_environ: dict[str, str]) -> None:
    with started(project, dev_environ) as server:
        server.process.send_signal(signal.SIGHUP)

        assert server.process.wait(DEADLINE_S) == 0
        assert server.output().endswith("\nstopping\n")


def test_a_second_ctrl_c_stops_at_once_and_leaves_no_worker(project: Path, dev_environ: dict[str, str]) -> None:
    with started(project, dev_environ) as server:
        _begin_long_job(server)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "waiting 3 s for 1 running job" in server.output(), "it stops in good order")
        server.process.send_signal(signal.SIGINT)
        code = server.process.wait(DEADLINE_S)

        assert code == -signal.SIGINT
        wait_until(lambda: not dev_process._alive([], project), "the workers have ended")


def test_a_terminal_gets_colours_and_nothing_raw(project: Path, dev_environ: dict[str, str]) -> None:
    said = _in_a_terminal(project, {**dev_environ, "TERM": "xterm"})

    assert re.search(r"\x1b\[32mready\x1b\[0m  \x1b\[1mhttp://127\.0\.0\.1:\d+\x1b\[0m  docs: ", said)
    assert "\\x1b" not in said


def test_it_serves_on_when_nobody_reads_its_output(project: Path, dev_environ: dict[str, str]) -> None:
    command = [str(COMMAND), "dev", "--port", "0"]
    process = subprocess.Popen(command, cwd=project, env=dev_environ, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        while b"ready" not in process.stderr.readline():
            assert process.poll() is None
        process.stderr.close()
        server = DevServer(project, dev_process._address(project, process.pid), process, project.parent / "none")
        assert [server.call("/echo", {"text": text}) for text in ("a", "b")] == ["a", "b"]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()


def _begin_long_job(server: DevServer) -> None:
    body = b'{"input": {}}'
    assert server.request("POST", "/v2/long/run", body, content_type="application/json").status == 200
    wait_until(lambda: "] begun" in server.output(), "the job runs")


def _in_a_terminal(project: Path, environ: Mapping[str, str]) -> str:
    """All that a terminal gets from the start to the end by Ctrl-C."""
    master, slave = os.openpty()
    command = [str(COMMAND), "dev", "--port", "0"]
    process = subprocess.Popen(command, cwd=project, env=dict(environ), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said, is_stopping = b"", False
    try:
        while chunk := _read(master):
            said += chunk
            if not is_stopping and b"Ctrl-C stops" in said:
                is_stopping = True
                process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return said.decode()


def _read(descriptor: int) -> bytes:
    """What came; nothing once the other side is closed, which a terminal tells by an error."""
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        return b""


def test_a_disk_without_room_is_told_as_such(project: Path, dev_environ: dict[str, str]) -> None:
    (project / ".flashfw").mkdir()
    with small_disk(project / ".flashfw", 100_000) as place:
        fill(place / "filled")
        code, said = run(project, "--port", "0", environ=dev_environ)

    assert code == 7
    assert f"error: cannot keep the server's state in {project}/.flashfw: No space left on device" in said
    assert "free some space" in said
    assert "defect" not in said
