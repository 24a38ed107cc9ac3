"""What a zygote says over its socket, asked as a placement asks it."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from flashfw.worker import zygote
from tests.worker.harness import WAIT_S, overlay

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")

SCRIPT = """
import os, socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
link.sendall(f"{os.getcwd()} {os.environ['NAME']}".encode())
sys.exit(int(link.recv(10)))
"""


@contextmanager
def running(folder: Path, *preload: str) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    home = overlay(folder / "overlay")
    (home / "run_worker.py").write_text(SCRIPT)
    (home / "run_zygote.py").write_text(Path(zygote.__file__).with_name("run_zygote.py").read_text())
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.settimeout(WAIT_S)
    with theirs:
        command = [sys.executable, "-W", "error", str(home / "run_zygote.py"), str(theirs.fileno()), *preload]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd="/")
    try:
        with control:
            yield process, control
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()


def heard(control: socket.socket) -> Any:
    return json.loads(control.recv(1 << 20))


def fork(control: socket.socket, told: Path, **spec: Any) -> tuple[socket.socket, Any]:
    """This side's end of a worker's link, and the answer."""
    told.write_text(json.dumps(spec))
    link, theirs = socket.socketpair()
    link.settimeout(WAIT_S)
    with theirs, open(os.devnull, "wb") as output, told.open("rb") as file:
        socket.send_fds(control, [b'{"do": "fork"}'], [theirs.fileno(), output.fileno(), file.fileno()])
        return link, heard(control)


def test_forks_tells_the_exit_code_and_ends_with_its_server(tmp_path: Path) -> None:
    with running(tmp_path) as (process, control):
        assert {"h11", "wsproto"} <= set(heard(control)["warm"])
        link, answer = fork(control, tmp_path / "told", root=str(tmp_path), environ={"NAME": "one"})
        with link:
            assert link.recv(1000).decode() == f"{tmp_path} one"
            link.sendall(b"7")
            assert link.recv(1) == b""
        control.sendall(json.dumps({"do": "reap", "pid": answer["pid"]}).encode())
        assert heard(control) == {"code": 7}
        assert process.poll() is None


def test_a_killed_worker_is_told_by_its_signal(tmp_path: Path) -> None:
    with running(tmp_path) as (_, control):
        heard(control)
        link, answer = fork(control, tmp_path / "told", root="/", environ={"NAME": "one"})
        with link:
            os.kill(answer["pid"], signal.SIGKILL)
            control.sendall(json.dumps({"do": "reap", "pid": answer["pid"]}).encode())
            assert heard(control) == {"code": -signal.SIGKILL}


def test_a_child_that_cannot_become_a_worker_is_refused_and_the_next_is_forked(tmp_path: Path) -> None:
    with running(tmp_path) as (process, control):
        heard(control)
        link, answer = fork(control, tmp_path / "told", root=str(tmp_path / "gone"), environ={})
        with link:
            assert "No such file or directory" in answer["refused"]
            assert link.recv(1) == b""
        link, answer = fork(control, tmp_path / "told", root="/", environ={"NAME": "one"})
        with link:
            assert link.recv(1000) == b"/ one"
            assert Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split() == [str(answer["pid"])]


def test_says_what_cannot_be_preloaded(tmp_path: Path) -> None:
    with running(tmp_path, "json", "not_there") as (_, control):
        why = "'not_there' cannot be imported ahead of time: ModuleNotFoundError: No module named 'not_there'"
        assert heard(control) == {"unfit": why}


def test_imports_nothing_before_a_worker_would_that_the_project_could_have_of_its_own() -> None:
    """Names that both a fresh worker and the zygote have cannot differ; the zygote tells of all others."""
    shown = "import sys, flashfw.worker.{0}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    worker, own = (
        set(subprocess.run([sys.executable, "-c", shown.format(name)], capture_output=True, text=True).stdout.split())
        for name in ("main", "zygote")
    )

    assert own - worker <= set(sys.builtin_module_names)


def test_reseeds_what_was_imported() -> None:
    random.seed(1)
    first = random.random()
    random.seed(1)
    zygote.reseed()

    assert random.random() != first


def test_reseeds_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[str] = []
    generator = SimpleNamespace(seed=lambda: seeded.append("torch"))
    monkeypatch.setitem(sys.modules, "torch", cast(ModuleType, SimpleNamespace(default_generator=generator)))
    zygote.reseed()

    assert seeded == ["torch"]
