from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.placement import exits
from flashfw.cluster.placement.base import PlacementError
from flashfw.cluster.placement.child import WorkerProcess
from flashfw.cluster.placement.fork import ForkPlacement, can_fork
from flashfw.cluster.placement.output import LAST_OUTPUT_BYTES
from flashfw.cluster.placement.process import OOM_SCORE_ADJUSTMENT, ProcessPlacement
from flashfw.cluster.placement.tree import descendants
from tests.cluster.placement.workers import FAMILY, HOLD, is_running, spec, until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


PLACEMENTS: dict[str, Callable[[Path], ProcessPlacement]] = {
    "process": ProcessPlacement,
    "fork": lambda state: ForkPlacement(state, SystemClock()),
}
Running = Callable[[Path], AbstractAsyncContextManager[ProcessPlacement]]


@pytest.fixture(params=PLACEMENTS)
def running(request: pytest.FixtureRequest) -> Running:
    """A placement while a block runs, spawning its workers or forking them."""
    if request.param == "fork" and not can_fork():
        pytest.skip("workers are not forked here")

    @asynccontextmanager
    async def running(state: Path) -> AsyncIterator[ProcessPlacement]:
        placement = PLACEMENTS[request.param](state)
        try:
            yield placement
        finally:
            with anyio.CancelScope(shield=True):
                await placement.close()

    return running


async def line(process: WorkerProcess) -> str:
    """What the worker says first; the socket stays open."""
    said = await asyncio.get_running_loop().sock_recv(process.sock, 1000)
    return said.decode().strip()


async def test_runs_the_launcher_with_the_link_and_exactly_its_environment(running: Running, tmp_path: Path) -> None:
    script = """
import json, os, socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
told = [dict(os.environ), os.getcwd(), sys.path[0], os.getpid() == os.getpgid(0) == os.getsid(0), sys.stdin.read()]
link.sendall(json.dumps(told).encode())
"""
    wanted = spec(tmp_path, script, GREETING="hello", PATH="/bin")
    async with running(tmp_path / "state") as placement:
        process = await placement.start(wanted)
        with process.sock:
            environ, cwd, first, leads, stdin = json.loads(await line(process))
        code = await process.wait()

    environ.pop("LC_CTYPE", None)  # Python's own, under the C locale
    assert environ == {"GREETING": "hello", "PATH": "/bin"}
    assert (cwd, first) == (str(tmp_path), str(wanted.overlay))
    assert (leads, stdin, code) == (True, "", 0)


async def test_inherits_no_descriptor_but_the_link(running: Running, tmp_path: Path) -> None:
    script = """
import os, socket, sys
here = "/proc/self/fd"
descriptors = [fd for fd in os.listdir(here) if int(fd) > 2 and os.path.exists(f"{here}/{fd}")]
socket.socket(fileno=int(sys.argv[1])).sendall(" ".join(descriptors).encode())
sys.stdout.write(sys.argv[1])
"""
    async with running(tmp_path / "state") as placement:
        inheritable = os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(inheritable, True)
        process = await placement.start(spec(tmp_path, script))
        os.close(inheritable)
        with process.sock:
            said = await line(process)
        await process.wait()

    assert said == process.last_output


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("import os; os._exit(0)", 0),
    ],
)
async def test_tells_how_it_ended_to_all_who_wait(running: Running, tmp_path: Path, script: str, code: int) -> None:
    async with running(tmp_path / "state") as placement:
        process = await placement.start(spec(tmp_path, script))
        process.sock.close()
        assert [code] * 3 == await asyncio.gather(*(process.wait() for _ in range(3)))
        assert await process.wait() == code
        process.kill()


async def test_shows_why_the_interpreter_did_not_start(running: Running, tmp_path: Path) -> None:
    async with running(tmp_path / "state") as placement:
        process = await placement.start(spec(tmp_path, "import flashfw_is_not_here"))
        process.sock.close()

        assert await process.wait() == 1

    assert "ModuleNotFoundError: No module named 'flashfw_is_not_here'" in process.last_output


async def test_keeps_the_end_of_a_flood(running: Running, tmp_path: Path) -> None:
    script = "import os\nfor n in range(3000): os.write(2, b'%05d ' % n + b'x' * 994)\nos.write(1, b'the end')"
    async with running(tmp_path / "state") as placement:
        process = await placement.start(spec(tmp_path, script))
        process.sock.close()
        await process.wait()

    assert len(process.last_output) == LAST_OUTPUT_BYTES
    assert process.last_output.endswith("the end")
    assert "02999 x" in process.last_output


async def test_kill_takes_the_group_and_what_left_it(running: Running, tmp_path: Path) -> None:
    async with running(tmp_path / "state") as placement:
        process = await placement.start(spec(tmp_path, FAMILY))
        with process.sock:
            pids = [int(pid) for pid in (await line(process)).split()]
        assert set(pids[1:]) == set(descendants(process.pid))

        process.kill()

        assert await process.wait() == -signal.SIGKILL
    until(lambda: not any(map(is_running, pids)), "the whole family ends")


async def test_a_worker_that_ends_takes_its_group_along(running: Running, tmp_path: Path) -> None:
    script = """
import os, socket, subprocess, sys
member = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
socket.socket(fileno=int(sys.argv[1])).sendall(str(member.pid).encode())
os._exit(7)
"""
    async with running(tmp_path / "state") as placement:
        process = await placement.start(spec(tmp_path, script))
        with process.sock:
            member = int(await line(process))
        assert await process.wait() == 7
    until(lambda: not is_running(member), "what the worker started ends")


@pytest.mark.parametrize("name", PLACEMENTS)
async def test_close_leaves_nothing(name: str, tmp_path: Path) -> None:
    placement = PLACEMENTS[name](tmp_path / "state")
    started = [await placement.start(spec(tmp_path, HOLD, worker=f"w-{n}")) for n in range(3)]

    await placement.close()

    assert not any(is_running(process.pid) for process in started)
    assert [await process.wait() for process in started] == [-signal.SIGKILL] * 3
    assert list((tmp_path / "state" / "workers").iterdir()) == []
    assert _guards_of(os.getpid(), 0) == []
    with pytest.raises(PlacementError, match="the server is stopping"):
        await placement.start(spec(tmp_path, HOLD))
    for process in started:
        process.sock.close()


async def test_a_cancelled_start_loses_no_worker(running: Running, tmp_path: Path) -> None:
    async with running(tmp_path / "state") as placement:
        with anyio.CancelScope() as scope:
            scope.cancel()
            process = await placement.start(spec(tmp_path, HOLD))
        with process.sock:
            assert await line(process) == "up"


@pytest.mark.parametrize("missing", ["python", "root"])
async def test_what_cannot_be_started_is_named(running: Running, tmp_path: Path, missing: str) -> None:
    gone = tmp_path / "gone"
    wanted = spec(tmp_path, HOLD)
    wanted = type(wanted)(**{**vars(wanted), missing: gone})
    async with running(tmp_path / "state") as placement:
        with pytest.raises(PlacementError, match=f"a worker of a with .*{gone}.*: No such file"):
            await placement.start(wanted)
        gc.collect()  # a socket that was left open would warn now


async def test_a_record_that_cannot_be_written_ends_the_worker(running: Running, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "workers").write_text("in the way")
    others = descendants(os.getpid())  # what other tests of this process keep running
    async with running(state) as placement:
        with pytest.raises(PlacementError, match="cannot note a worker of a"):
            await placement.start(spec(tmp_path, HOLD))
    assert set(descendants(os.getpid())) <= set(others)


async def test_the_kernel_prefers_to_kill_the_worker(running: Running, tmp_path: Path) -> None:
    async with running(tmp_path / "state") as placement:
        process = await placement.start(spec(tmp_path, HOLD))
        process.sock.close()
        adjustment = int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())

    assert adjustment == OOM_SCORE_ADJUSTMENT


def test_can_wait_without_pidfd_and_leave_the_code() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(4)"])

    exits.until_ended(child.pid)

    assert child.wait() == 4


async def test_a_killed_guard_is_replaced(running: Running, tmp_path: Path) -> None:
    async with running(tmp_path / "state") as placement:
        first = await placement.start(spec(tmp_path, HOLD, worker="w-1"))
        [guard] = _guards_of(os.getpid(), 1)
        os.kill(guard, signal.SIGKILL)
        until(lambda: not is_running(guard), "the guard ends")

        second = await placement.start(spec(tmp_path, HOLD, worker="w-2"))

        assert guard not in _guards_of(os.getpid(), 1)
        first.sock.close()
        second.sock.close()


def _guards_of(pid: int, count: int) -> list[int]:
    """The guards among its children, once there are that many: a process has no command line while it execs."""

    def found() -> list[int]:
        return [child for child in descendants(pid) if b"guard.py" in Path(f"/proc/{child}/cmdline").read_bytes()]

    until(lambda: len(found()) == count, f"{count} guards")
    return found()
