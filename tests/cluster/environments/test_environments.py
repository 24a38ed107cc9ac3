from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

import flashfw
from flashfw.bundle.needs import WORKER_NEEDS, EnvironmentFailed
from flashfw.cluster.environments.base import Environment
from flashfw.cluster.environments.environments import AT_ONCE, Environments
from flashfw.cluster.environments.requirements import want
from flashfw.errors import Exit
from tests.cluster.placement.workers import is_running, until

pytestmark = pytest.mark.anyio
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of environments for the tests that do not care who made one."""
    return tmp_path_factory.mktemp("environments")


class Made:
    """Environments with a record of their events."""

    def __init__(self, cache: Path, **variables: str) -> None:
        self.events: list[str] = []
        self.cache = Environments(cache, {**os.environ, **variables}, self._heard)
        self._any = anyio.Event()

    def _heard(self, event: str) -> None:
        self.events.append(event)
        self._any.set()

    async def first(self) -> None:
        """Wait for the first event."""
        with anyio.fail_after(60):
            await self._any.wait()

    @property
    def count(self) -> int:
        return sum(event.startswith("making") for event in self.events)


def run(python: Path, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env={}, check=True)
    return done.stdout.strip()


async def test_holds_what_was_asked_and_what_the_worker_needs_and_nothing_of_the_machine(
    shared: Path, tmp_path: Path
) -> None:
    made = Made(shared, VIRTUAL_ENV=str(Path(sys.prefix)), PYTHONPATH=str(tmp_path))
    (tmp_path / "stray.py").write_text("")

    environment = await made.cache.ensure(["six==1.16.0"], python=VERSION, project_root=tmp_path, owner="a")

    names = {package.partition("==")[0] for package in environment.packages}
    assert "six==1.16.0" in environment.packages
    assert {"anyio", "pydantic", "python_multipart", "starlette"} <= names
    assert "pytest" not in names
    code = "import six, pydantic, starlette, multipart, anyio, sys; print(sys.version_info[:2], sys.prefix)"
    assert run(environment.python, code) == f"{sys.version_info[:2]} {environment.python.parents[1]}"
    assert made.events[0] == f"making an environment for a (Python {VERSION}, 1 requirement)"
    assert made.events[1].startswith("made the environment for a in ")

    again = Made(shared)
    assert await again.cache.ensure(["SIX == 1.16.0"], python=VERSION, project_root=tmp_path) == environment
    assert again.events == []


async def test_calls_for_the_same_make_it_once_and_others_two_at_a_time(tmp_path: Path) -> None:
    made = Made(tmp_path / "cache")
    found: list[Environment] = []

    async def ensure(*asked: str) -> None:
        found.append(await made.cache.ensure(asked, python=VERSION, project_root=tmp_path))

    async with anyio.create_task_group() as tasks:
        for asked in ([], ["iniconfig"], ["six"]):
            for _ in range(3):
                tasks.start_soon(ensure, *asked)

    assert made.count == 3
    assert len({environment.key for environment in found}) == 3
    assert _most_at_once(made.events) == AT_ONCE


async def test_processes_make_it_once(tmp_path: Path) -> None:
    with _holding(tmp_path / "cache", []) as (key, release):
        made = Made(tmp_path / "cache")
        async with anyio.create_task_group() as tasks:

            async def ensure() -> None:
                await made.cache.ensure([], python=VERSION, project_root=tmp_path)

            tasks.start_soon(ensure)
            await made.first()
            assert made.events == ["waiting for the environment, which another process makes"]
            folder = tmp_path / "cache" / key  # as the other process would leave it
            (folder / "bin").mkdir(parents=True)
            (folder / "bin" / "python").symlink_to(sys.executable)
            (folder / ".complete").write_text('{"packages": []}')
            release()
    assert made.count == 0


async def test_what_a_killed_build_left_is_made_anew(tmp_path: Path) -> None:
    stuck, cache = _stuck(tmp_path), tmp_path / "cache"
    build = await anyio.to_thread.run_sync(_kill_while_it_builds, cache, stuck)
    [folder] = [entry for entry in cache.iterdir() if entry.is_dir()]
    assert (folder / "bin" / "python").exists()
    assert not (folder / ".complete").exists()
    assert is_running(build)

    made = Made(cache)
    async with anyio.create_task_group() as tasks:

        async def ensure() -> None:
            await made.cache.ensure(["./stuck"], python=VERSION, project_root=tmp_path)

        tasks.start_soon(ensure)
        await made.first()
        # The uv of the dead server still works in the folder, and holds the lock.
        assert made.events == ["waiting for the environment, which another process makes"]
        (stuck / "go").touch()
    assert made.count == 1
    assert (folder / ".complete").exists()


async def test_a_cancelled_build_ends_and_leaves_nothing(tmp_path: Path) -> None:
    stuck, made = _stuck(tmp_path), Made(tmp_path / "cache")
    async with anyio.create_task_group() as tasks:

        async def ensure() -> None:
            await made.cache.ensure(["./stuck"], python=VERSION, project_root=tmp_path)

        tasks.start_soon(ensure)
        await anyio.to_thread.run_sync(until, (stuck / "pid").exists, "the build runs")
        tasks.cancel_scope.cancel()

    build = int((stuck / "pid").read_text())
    await anyio.to_thread.run_sync(until, lambda: not is_running(build), "the build ends")
    assert [entry.suffix for entry in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize("harm", ["marker", "interpreter", "note"])
async def test_a_damaged_one_is_made_anew(shared: Path, tmp_path: Path, harm: str) -> None:
    environment = await Made(shared).cache.ensure([], python=VERSION, project_root=tmp_path)
    folder = environment.python.parents[1]
    if harm == "marker":
        (folder / ".complete").unlink()
    elif harm == "interpreter":
        environment.python.unlink()
        environment.python.symlink_to(tmp_path / "uninstalled")
    else:
        (folder / ".complete").write_text("")

    made = Made(shared)
    assert await made.cache.ensure([], python=VERSION, project_root=tmp_path) == environment
    assert made.count == 1
    assert json.loads((folder / ".complete").read_text())["python"] == VERSION


async def test_a_conflict_names_both_sides(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed) as failed:
        await Made(shared).cache.ensure(
            ["six", "pydantic<2"],
            python=VERSION,
            project_root=tmp_path,
            askers={"pydantic<2": "endpoints/a/endpoint.toml:4"},
        )

    text = str(failed.value)
    need = next(need for need in WORKER_NEEDS if need.startswith("pydantic"))
    assert failed.value.exit is Exit.PROBLEMS
    assert "endpoints/a/endpoint.toml:4 asks for pydantic<2" in text
    assert f"flashfw's worker needs {need}" in text
    assert "choose versions that the worker can share" in text
    assert "six" not in text
    assert not [entry for entry in shared.iterdir() if entry.is_dir() and not (entry / ".complete").exists()]


async def test_a_package_that_is_nowhere_is_named(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="no-such-package-of-flashfw") as failed:
        await Made(shared).cache.ensure(["six", "No_Such.package-of-flashfw>2"], python=VERSION, project_root=tmp_path)

    assert "the project asks for No_Such.package-of-flashfw>2" in str(failed.value)
    assert "flashfw's worker" not in str(failed.value)


async def test_an_index_that_is_not_there_is_named_without_its_password(shared: Path, tmp_path: Path) -> None:
    made = Made(shared, UV_DEFAULT_INDEX="http://me:hidden@127.0.0.1:9/simple", UV_INDEX_URL="", UV_HTTP_RETRIES="0")

    with pytest.raises(EnvironmentFailed, match=r"127\.0\.0\.1:9") as failed:
        await made.cache.ensure(["six"], python=VERSION, project_root=tmp_path)

    assert "hidden" not in str(failed.value)


async def test_the_python_of_flashfw_need_not_be_on_the_path(tmp_path: Path) -> None:
    hidden = Made(
        tmp_path / "cache", PATH=str(tmp_path), UV_PYTHON_DOWNLOADS="never", UV_PYTHON_INSTALL_DIR=str(tmp_path)
    )

    made = await hidden.cache.ensure([], python=VERSION, project_root=tmp_path)

    assert run(made.python, "import sys; print(sys.base_prefix)") == sys.base_prefix


async def test_an_unknown_python_is_said(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match=r"there is no Python 3\.99 on this machine.*uv python list"):
        await Made(shared).cache.ensure([], python="3.99", project_root=tmp_path)


async def test_those_who_wait_share_the_failure(shared: Path, tmp_path: Path) -> None:
    made = Made(shared)
    failures: list[EnvironmentFailed] = []

    async def ensure() -> None:
        try:
            await made.cache.ensure(["six<1", "six>1"], python=VERSION, project_root=tmp_path)
        except EnvironmentFailed as failed:
            failures.append(failed)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ensure)

    assert made.count == 1
    assert len({str(failure) for failure in failures}) == 1
    assert len(failures) == 3


async def test_a_library_of_the_project_is_installed_as_it_is_now(shared: Path, tmp_path: Path) -> None:
    library = _library(tmp_path / "libs" / "x", "backend.py", BACKEND)
    answers = []
    for answer in ("1", "2"):
        (library / "flashfw_x.py").write_text(f"ANSWER = {answer}")
        environment = await Made(shared).cache.ensure(["x @ ./libs/x"], python=VERSION, project_root=tmp_path)
        answers.append(run(environment.python, "import flashfw_x; print(flashfw_x.ANSWER)"))

    assert answers == ["1", "2"]


async def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")

    with pytest.raises(EnvironmentFailed, match=f"cannot write {tmp_path / 'cache'}"):
        await Made(tmp_path / "cache").cache.ensure([], python=VERSION, project_root=tmp_path)


BACKEND = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "x-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.write("flashfw_x.py")
        wheel.writestr("x-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: x\\nVersion: 1\\n")
        tag = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("x-1.dist-info/WHEEL", tag)
        wheel.writestr("x-1.dist-info/RECORD", "")
    return name
"""
"""A build backend that needs nothing from anywhere."""

STUCK = """
import os, time
from pathlib import Path
here = Path(__file__).parent
(here / "pid.new").write_text(str(os.getpid()))
(here / "pid.new").rename(here / "pid")
while not (here / "go").exists():
    time.sleep(0.01)
"""


def _library(folder: Path, backend: str, source: str) -> Path:
    folder.mkdir(parents=True)
    (folder / backend).write_text(source)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "x"\nversion = "1"\n'
    )
    return folder


def _stuck(root: Path) -> Path:
    """A library whose build says its process id and goes on when told; hidden files do not count as content."""
    folder = _library(root / "stuck", "backend.py", BACKEND + STUCK.replace("here /", 'here / ".build" /'))
    (folder / ".build").mkdir()
    (folder / "flashfw_x.py").write_text("")
    return folder / ".build"


SERVER = f"""
import anyio, os, sys
from pathlib import Path
from flashfw.cluster.environments.environments import Environments
environments = Environments(Path(sys.argv[1]), dict(os.environ))
anyio.run(lambda: environments.ensure(["./stuck"], python={VERSION!r}, project_root=Path(sys.argv[2])))
"""


def _kill_while_it_builds(cache: Path, stuck: Path) -> int:
    """Kill a server in the middle of a build; the process id of the build, which goes on."""
    command = [sys.executable, "-c", SERVER, cache, stuck.parents[1]]
    server = subprocess.Popen(command, cwd=Path(flashfw.__file__).parents[1])
    until((stuck / "pid").exists, "the build runs")
    server.kill()
    server.wait()
    return int((stuck / "pid").read_text())


@contextmanager
def _holding(cache: Path, requirements: list[str]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Hold the lock of an environment as another process does."""
    key = want(requirements, python=VERSION, root=cache.parent, askers={}, variables=os.environ).key
    cache.mkdir()
    with (cache / f"{key}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield key, lambda: fcntl.flock(file, fcntl.LOCK_UN)


def _most_at_once(events: list[str]) -> int:
    running = most = 0
    for event in events:
        running += 1 if event.startswith("making") else -1
        most = max(most, running)
    return most
