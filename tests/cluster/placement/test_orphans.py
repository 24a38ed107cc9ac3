"""What happens to workers when their server is killed."""

from __future__ import annotations

import doctest
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

import flashfw
from flashfw.cluster.placement import guard
from flashfw.cluster.placement.fork import can_fork
from flashfw.cluster.placement.process import ProcessPlacement
from flashfw.cluster.placement.records import Records, identity
from flashfw.cluster.placement.tree import descendants, kill_tree, start_time
from tests.cluster.placement.workers import FAMILY, is_running, until


@pytest.fixture(params=["process", "fork"])
def how(request: pytest.FixtureRequest) -> str:
    """How the worker is started."""
    if request.param == "fork" and not can_fork():
        pytest.skip("workers are not forked here")
    return str(request.param)


@contextmanager
def server(how: str, state: Path, folder: Path, script: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A server with one worker, and the process ids that the worker said."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.placement.server", how, state, folder, script],
        cwd=Path(flashfw.__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    pids: list[int] = []
    try:
        pids = [int(pid) for pid in started.stdout.readline().split()]
        yield started, pids
    finally:
        started.kill()
        started.wait()
        started.stdout.close()
        for pid in pids:
            kill_tree(pid)


def helpers(pid: int, workers: list[int]) -> list[int]:
    """The guard of a server first, then its zygotes."""
    found = set(descendants(pid)) - set(workers)
    return sorted(found, key=lambda one: b"guard.py" not in Path(f"/proc/{one}/cmdline").read_bytes())


def test_a_zygote_that_is_stopped_outlives_no_server(tmp_path: Path) -> None:
    if not can_fork():
        pytest.skip("workers are not forked here")
    with server("fork", tmp_path / "state", tmp_path, FAMILY) as (process, pids):
        guard, zygote = helpers(process.pid, pids)
        os.kill(zygote, signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        process.kill()
        process.wait()

        assert sorted(sweep(tmp_path / "state")) == sorted([zygote, pids[0]])

        until(lambda: not any(map(is_running, [zygote, *pids])), "all end")


def test_examples() -> None:
    assert doctest.testmod(guard).failed == 0


def sweep(state: Path) -> list[int]:
    return anyio.run(ProcessPlacement(state).sweep)


def test_a_killed_server_leaves_no_worker_however_deaf(how: str, tmp_path: Path) -> None:
    with server(how, tmp_path / "state", tmp_path, FAMILY) as (process, pids):
        worker, member, apart = pids
        guard, *zygotes = helpers(process.pid, pids)
        process.kill()

        until(lambda: not is_running(worker) and not is_running(member), "the worker and its child end")
        until(lambda: not any(map(is_running, [guard, *zygotes])), "the guard ends, and the zygote if there is one")
        os.kill(apart, signal.SIGKILL)

    assert sweep(tmp_path / "state") == []
    assert list((tmp_path / "state" / "workers").iterdir()) == []


def test_sweep_kills_what_a_server_left_that_died_with_its_guard(how: str, tmp_path: Path) -> None:
    with server(how, tmp_path / "state", tmp_path, FAMILY) as (process, pids):
        guard, *zygotes = helpers(process.pid, pids)
        os.kill(guard, signal.SIGKILL)
        process.kill()
        process.wait()
        until(lambda: not any(map(is_running, zygotes)), "the zygote ends, if there is one")
        assert all(map(is_running, pids))

        assert sweep(tmp_path / "state") == pids[:1]

        until(lambda: not any(map(is_running, pids)), "the worker and all that it started end")
    assert sweep(tmp_path / "state") == []


def test_sweep_leaves_the_workers_of_a_server_that_lives(how: str, tmp_path: Path) -> None:
    with server(how, tmp_path / "state", tmp_path, FAMILY) as (_, pids):
        assert sweep(tmp_path / "state") == []

        assert is_running(pids[0])
        assert "w-1.json" in [path.name for path in (tmp_path / "state" / "workers").iterdir()]


def test_sweep_never_kills_a_stranger_with_the_same_id(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    try:
        note = Records(tmp_path / "workers").write("w-1", stranger.pid)
        for side, started in (("server", "before"), ("worker", "before")):
            value = json.loads(note.read_text())
            value[side]["started"] = started
            note.write_text(json.dumps(value))

        assert sweep(tmp_path) == []
        assert stranger.poll() is None
        assert not note.exists()
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"worker": 1}', '{"worker": {"pid": "x"}}', "\x00"])
def test_a_note_that_makes_no_sense_is_dropped(tmp_path: Path, text: str) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "w-1.json").write_text(text)

    assert sweep(tmp_path) == []
    assert list((tmp_path / "workers").iterdir()) == []


def test_a_process_is_itself_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    known = identity(child.pid)
    assert known.is_alive
    assert known != identity(os.getpid())
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not known.is_alive  # a zombie
    child.wait()
    assert not known.is_alive
    assert not identity(child.pid).is_alive
    assert start_time(child.pid) is None
