"""Fixtures that several folders share."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from uv import find_uv_bin

from tests import dev_process
from tests.dev_process import DevServer
from tests.postgres_server import own_postgres, postgres

__all__ = ["own_postgres", "postgres"]

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("flashfw", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flashfw")

# Who starts the tests in the background may have them ignore Ctrl-C, and so every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

StartDev = Callable[..., DevServer]


@pytest.fixture(scope="session")
def dev_environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a `flashfw dev` under test.

    Its cache is one folder for the whole run, shared by all test processes, so that an environment is
    made once; the downloads of uv stay where they are, so that the index is asked once per machine.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    uv_cache = subprocess.run(
        [find_uv_bin(), "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {**os.environ, "XDG_CACHE_HOME": str(shared / "cache"), "UV_CACHE_DIR": uv_cache, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def flashfw_dev(dev_environ: dict[str, str], tmp_path: Path) -> Iterator[StartDev]:
    """Start `flashfw dev` over a project folder: `flashfw_dev(project, "--cron")`.

    At the end each server gets Ctrl-C, must end with 0, and must leave no process behind.
    """
    with _servers(dev_environ, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def module_flashfw_dev(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDev]:
    """As `flashfw_dev`, for a server that all tests of a module share."""
    with _servers(dev_environ, tmp_path_factory.mktemp("dev")) as start:
        yield start


@contextmanager
def _servers(environ: dict[str, str], logs: Path) -> Iterator[StartDev]:
    with ExitStack() as running:

        def start(project: Path, *arguments: str) -> DevServer:
            log = logs / f"dev-{project.name}.log"
            server = dev_process.start(project, *arguments, environ=environ, log=log)
            running.callback(server.stop)
            return server

        yield start
