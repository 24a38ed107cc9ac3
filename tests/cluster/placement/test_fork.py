"""What forked workers have that spawned ones have too, what they never inherit, and what happens when a zygote ends."""

from __future__ import annotations

import asyncio
import doctest
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from flashfw.cluster.clock import Clock, ManualClock, SystemClock
from flashfw.cluster.placement import recipe
from flashfw.cluster.placement.base import PlacementError, WorkerSpec
from flashfw.cluster.placement.child import WorkerProcess
from flashfw.cluster.placement.fork import UNUSED_S, WARM_S, ForkPlacement, can_fork, placement
from flashfw.cluster.placement.tree import descendants
from flashfw.cluster.placement.zygote import PATIENCE_S, UNKNOWN_CODE
from tests.cluster.placement.workers import HOLD, is_running, spec, until

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not can_fork(), reason="workers are not forked here")]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@asynccontextmanager
async def running(folder: Path, clock: Clock | None = None) -> AsyncIterator[ForkPlacement]:
    made = ForkPlacement(folder / "state", clock or SystemClock())
    try:
        yield made
    finally:
        with anyio.CancelScope(shield=True):
            await made.close()
    assert list((folder / "state" / "workers").glob("*")) == []
    assert not any("run_zygote" in _command(pid) for pid in descendants(os.getpid()) if _is_of(pid, folder))


async def said(process: WorkerProcess) -> str:
    """What the worker says first; then its link is closed."""
    with process.sock:
        return (await asyncio.get_running_loop().sock_recv(process.sock, 100_000)).decode().strip()


def telling(expression: str) -> str:
    """A worker that says what an expression is, and lives until its link ends."""
    return f"""
import json, os, signal, socket, sys, threading
link = socket.socket(fileno=int(sys.argv[1]))
link.sendall(json.dumps({expression}).encode())
link.recv(1)
"""


def zygote(folder: Path) -> int:
    """The one that forks workers of overlays in this folder."""
    (found,) = (pid for pid in descendants(os.getpid()) if "run_zygote" in _command(pid) and _is_of(pid, folder))
    return found


def _is_of(pid: int, folder: Path) -> bool:
    return os.path.join(str(folder), "") in _command(pid) and _parent(pid) == os.getpid()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def module(folder: Path, source: str) -> dict[str, str]:
    """A module `warmed` that is installed, so to speak: the variables that make it importable."""
    (folder / "site").mkdir()
    (folder / "site" / "warmed.py").write_text(source)
    return {"PYTHONPATH": str(folder / "site")}


def test_examples() -> None:
    assert doctest.testmod(recipe).failed == 0


async def test_is_what_a_server_on_linux_takes(tmp_path: Path) -> None:
    assert isinstance(placement(tmp_path), ForkPlacement)


async def test_workers_share_one_zygote_and_are_told_to_be_forked(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        wanted = spec(tmp_path, telling("os.getppid()"))
        workers = [await made.start(replace(wanted, worker=f"w-{n}")) for n in range(3)]

        assert [int(await said(worker)) for worker in workers] == [zygote(tmp_path)] * 3
        assert [worker.origin for worker in workers] == ["forked"] * 3
        assert len({worker.pid for worker in workers}) == 3


async def test_is_as_a_fresh_interpreter(tmp_path: Path) -> None:
    expression = """[
        dict(os.environ), os.getcwd(), sys.path[0], sys.argv, os.getpid() == os.getpgid(0) == os.getsid(0),
        sys.stdin.read(), sorted(os.listdir("/proc/self/fd"))[:-1], threading.active_count(), __name__, __file__,
        [str(signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1)],
        [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])], sys.modules["__main__"].__file__,
        sys.flags.dev_mode, os.umask(0o22), sys.stdout.fileno(), os.get_inheritable(2),
    ]"""
    noisy = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.environ["LEFT"] = "behind"
sys.argv.append("left")
sys.stdout = sys.stderr
"""
    environ = module(tmp_path, noisy)
    wanted = spec(tmp_path, telling(expression), preload=("warmed",), GREETING="hello", PATH="/bin", **environ)
    async with running(tmp_path) as made:
        forked = await made.start(wanted)
        one = json.loads(await said(forked))
        spawned = await made._spawn(replace(wanted, worker="w-2"))
        other = json.loads(await said(spawned))

    assert (forked.origin, spawned.origin) == ("forked", "spawned")
    for told in (one, other):
        told[3][1] = told[6] = ""  # the number of the link
    assert one == other


@pytest.mark.parametrize("name", ["environ", "maps", "mem"])
async def test_no_secret_is_ever_in_the_process_that_forks(tmp_path: Path, name: str) -> None:
    secret = "correct-horse-battery-staple"
    wanted = replace(spec(tmp_path, telling("os.environ['API_KEY']"), API_KEY=secret), secrets=frozenset({"API_KEY"}))
    async with running(tmp_path) as made:
        worker = await made.start(wanted)
        assert json.loads(await said(worker)) == secret
        assert secret.encode() not in _memory(zygote(tmp_path)) if name == "mem" else True
        if name != "mem":
            assert secret not in Path(f"/proc/{zygote(tmp_path)}/{name}").read_text()


def _memory(pid: int) -> bytes:
    """All that a process has written to its memory."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            begin, end = (int(one, 16) for one in span.split("-"))
            if rights.startswith("rw"):
                memory.seek(begin)
                found.append(memory.read(end - begin))
    return b"".join(found)


async def test_random_numbers_are_each_worker_its_own(tmp_path: Path) -> None:
    environ = module(tmp_path, "import random\nrandom.seed(1)")
    wanted = spec(tmp_path, telling("__import__('random').random()"), preload=("warmed",), **environ)
    async with running(tmp_path) as made:
        told = {await said(await made.start(replace(wanted, worker=f"w-{n}"))) for n in range(3)}

    assert len(told) == 3


async def test_other_variables_that_are_read_once_make_another_zygote(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        parents = set()
        for n, zone in enumerate(("UTC", "Asia/Tokyo", "UTC")):
            wanted = spec(tmp_path, telling("[os.getppid(), __import__('time').tzname[0]]"), TZ=zone)
            worker = await made.start(replace(wanted, worker=f"w-{n}"))
            parent, name = json.loads(await said(worker))
            parents.add(parent)
            assert (worker.origin, name) == ("forked", "JST" if zone.startswith("Asia") else "UTC")

    assert len(parents) == 2


REFUSED = {
    "raise ValueError('no weights')": "'warmed' cannot be imported ahead of time: ValueError: no weights",
    "import sys; sys.exit(4)": "'warmed' cannot be imported ahead of time: SystemExit: 4",
    "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()": (
        "what is preloaded runs 1 thread of its own"
    ),
    "kept = open(__file__)": "what is preloaded keeps files open: ",
    "import sys, types\nsys.modules['torch'] = torch = types.ModuleType('torch')\n"
    "torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)": "what is preloaded has initialised CUDA",
    "import os; os.write(2, b'out of luck'); os._exit(9)": "ended while it imported: out of luck",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "ended while it imported",
}


@pytest.mark.parametrize("source", REFUSED, ids=range(len(REFUSED)))
async def test_what_cannot_be_forked_is_spawned_and_says_why(tmp_path: Path, source: str) -> None:
    wanted = spec(tmp_path, HOLD, preload=("warmed",), **module(tmp_path, source))
    async with running(tmp_path) as made:
        for n in range(2):
            worker = await made.start(replace(wanted, worker=f"w-{n}"))
            assert await said(worker) == "up"
            assert worker.origin.startswith("spawned: ")
            assert REFUSED[source] in worker.origin


async def test_a_device_of_nvidia_counts_as_cuda(tmp_path: Path) -> None:
    from flashfw.worker.zygote import is_cuda_initialized

    assert is_cuda_initialized(["5 /dev/nvidiactl"])
    assert not is_cuda_initialized(["5 /dev/null"])


async def test_a_secret_that_an_interpreter_reads_first_is_no_zygotes(tmp_path: Path) -> None:
    wanted = replace(spec(tmp_path, HOLD, PYTHONSECRET="x"), secrets=frozenset({"PYTHONSECRET"}))
    async with running(tmp_path) as made:
        worker = await made.start(wanted)
        worker.sock.close()

    assert worker.origin == "spawned: its secret PYTHONSECRET has to be there when its interpreter starts"


async def test_modules_of_the_project_are_the_workers_own(tmp_path: Path) -> None:
    environ = module(tmp_path, "")
    (tmp_path / "warmed.py").write_text("raise SystemExit('the project has one of that name')")
    async with running(tmp_path) as made:
        own = await made.start(spec(tmp_path, telling("'warmed' in sys.modules"), preload=("warmed",), **environ))
        assert (own.origin, await said(own)) == ("forked", "false")

        (tmp_path / "h11").mkdir()  # only a folder: an installed package of its name wins
        plain = await made.start(spec(tmp_path, telling("'h11' in sys.modules"), worker="w-3", **environ))
        assert (plain.origin, await said(plain)) == ("forked", "true")

        (tmp_path / "h11" / "__init__.py").touch()
        other = await made.start(spec(tmp_path, telling("'h11' in sys.modules"), worker="w-2", **environ))
        assert "the project has a module 'h11'" in other.origin
        assert await said(other) == "false"


async def test_packages_that_changed_make_another_zygote(tmp_path: Path) -> None:
    environment = tmp_path / "env"
    (environment / "bin").mkdir(parents=True)
    (environment / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    wanted = replace(spec(tmp_path, HOLD), python=environment / "bin" / "python")
    before = recipe.Recipe.of(wanted)
    assert recipe.Recipe.of(wanted) == before

    (environment / "lib" / "python3.11" / "site-packages" / "__pycache__").mkdir()
    assert recipe.Recipe.of(wanted) == before

    (environment / "lib" / "python3.11" / "site-packages" / "new").mkdir()
    assert recipe.Recipe.of(wanted) != before


async def test_a_killed_zygote_takes_no_worker_along_and_is_replaced(tmp_path: Path) -> None:
    wanted = spec(tmp_path, HOLD)
    async with running(tmp_path) as made:
        first, second = [await made.start(replace(wanted, worker=f"w-{n}")) for n in range(2)]
        killed = zygote(tmp_path)
        os.kill(killed, signal.SIGKILL)
        until(lambda: not is_running(killed), "the zygote ends")

        third = await made.start(replace(wanted, worker="w-3"))

        assert [one.origin for one in (first, second, third)] == ["forked"] * 3
        assert is_running(first.pid)
        assert is_running(second.pid)
        assert zygote(tmp_path) != killed
        assert await said(first) == "up"  # and its link ends
        assert await first.wait() == UNKNOWN_CODE
        second.kill()
        assert await second.wait() == UNKNOWN_CODE
        until(lambda: not is_running(second.pid), "it is gone")
        second.kill()
        assert await said(third) == "up"
        assert await third.wait() == 0
        second.sock.close()


async def test_a_zygote_that_was_stopped_is_given_up(tmp_path: Path) -> None:
    clock = ManualClock()
    wanted = spec(tmp_path, HOLD)
    async with running(tmp_path, clock) as made:
        first = await made.start(wanted)
        stopped = zygote(tmp_path)
        os.kill(stopped, signal.SIGSTOP)
        starting = asyncio.ensure_future(made.start(replace(wanted, worker="w-2")))
        while is_running(stopped):
            clock.advance(PATIENCE_S)
            await asyncio.sleep(0.01)

        second = await starting

        assert second.origin == "forked"
        assert is_running(first.pid)
        assert zygote(tmp_path) != stopped
        first.sock.close()
        second.sock.close()


async def test_a_zygote_ends_once_it_was_unused_for_long(tmp_path: Path) -> None:
    clock = ManualClock()
    wanted = spec(tmp_path, HOLD)
    async with running(tmp_path, clock) as made:
        worker = await made.start(wanted)
        used = zygote(tmp_path)
        clock.advance(2 * UNUSED_S)
        assert is_running(used)
        assert await said(worker) == "up"
        await worker.wait()

        clock.advance(2 * UNUSED_S)
        until(lambda: not is_running(used), "it ends")

        again = await made.start(replace(wanted, worker="w-2"))
        assert again.origin == "forked"
        again.sock.close()


async def test_a_zygote_that_was_prepared_forks_the_first_worker_and_stays_while_asked_for(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    wanted = spec(tmp_path, telling("os.getppid()"))
    async with running(tmp_path, clock) as made:
        await made.prepare(wanted)
        prepared = zygote(tmp_path)
        clock.advance(UNUSED_S - 1)
        await made.prepare(wanted)
        clock.advance(UNUSED_S - 1)

        assert int(await said(await made.start(wanted))) == prepared


async def test_what_cannot_be_preloaded_is_prepared_once(tmp_path: Path) -> None:
    clock = ManualClock()
    wanted = spec(tmp_path, HOLD, preload=("warmed",), **module(tmp_path, "open('tried', 'a').write('.'); 1 / 0"))
    async with running(tmp_path, clock) as made:
        await made.prepare(wanted)
        worker = await made.start(wanted)  # which waits until it is known
        assert "'warmed' cannot be imported ahead of time: ZeroDivisionError" in worker.origin
        await made.prepare(wanted)
        clock.advance(2 * UNUSED_S)
        await made.prepare(wanted)

        assert made._zygotes._made == {}
        worker.sock.close()


async def test_a_worker_does_not_wait_for_ever_for_what_is_preloaded(tmp_path: Path) -> None:
    clock = ManualClock()
    wanted = spec(tmp_path, HOLD, preload=("warmed",), **module(tmp_path, "import signal; signal.pause()"))
    async with running(tmp_path, clock) as made:
        starting = asyncio.ensure_future(made.start(wanted))
        while not starting.done():
            clock.advance(WARM_S / 10)
            await asyncio.sleep(0.01)
        worker = await starting
        assert worker.origin == "spawned: what is preloaded is still being imported"
        worker.sock.close()


async def test_close_does_not_wait_for_what_is_preloaded(tmp_path: Path) -> None:
    wanted = spec(tmp_path, HOLD, preload=("warmed",), **module(tmp_path, "import signal; signal.pause()"))
    async with running(tmp_path) as made:
        starting = asyncio.ensure_future(made.start(wanted))
        await asyncio.to_thread(until, lambda: bool(made._zygotes._made), "the zygote is started")
        await made.close()

        with pytest.raises(PlacementError, match="the server is stopping"):
            await starting


async def test_a_note_that_cannot_be_written_ends_the_forked_worker(tmp_path: Path) -> None:
    wanted = spec(tmp_path, HOLD)
    async with running(tmp_path) as made:
        first = await made.start(wanted)
        before = set(descendants(os.getpid()))
        notes = tmp_path / "state" / "workers"
        notes.rename(tmp_path / "aside")
        notes.write_text("in the way")
        with pytest.raises(PlacementError, match="cannot note a worker of a"):
            await made.start(replace(wanted, worker="w-2"))
        notes.unlink()
        (tmp_path / "aside").rename(notes)
        until(lambda: {one for one in descendants(os.getpid()) if is_running(one)} <= before, "it is gone")
        first.sock.close()


async def test_a_large_environment_arrives_whole(tmp_path: Path) -> None:
    wanted = spec(tmp_path, telling("len(os.environ['LARGE'])"), LARGE="x" * 1_000_000)
    async with running(tmp_path) as made:
        worker = await made.start(wanted)
        assert (worker.origin, await said(worker)) == ("forked", "1000000")


def test_many_at_once_get_their_own_answers(tmp_path: Path) -> None:

    async def main() -> None:
        wanted: WorkerSpec = spec(tmp_path, telling("os.getpid()"))
        async with running(tmp_path) as made:
            workers = await asyncio.gather(*(made.start(replace(wanted, worker=f"w-{n}")) for n in range(12)))
            assert [int(await said(one)) for one in workers] == [one.pid for one in workers]
            assert {one.origin for one in workers} == {"forked"}
            assert [await one.wait() for one in workers] == [0] * 12

    anyio.run(main)
