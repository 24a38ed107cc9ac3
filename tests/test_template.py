"""The template as its user gets it: clean to every tool, and answering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flashfw.project import template
from tests.command import flashfw
from tests.dev_process import DevServer, wait_until


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was just made."""
    return template.create(tmp_path_factory.mktemp("new") / "shop").path


def test_its_own_tests_pass(shop: Path) -> None:
    ran = _run(shop, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")

    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout


def test_mypy_is_strict_and_content(shop: Path, tmp_path: Path) -> None:
    ran = _run(shop, sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path))

    assert ran.returncode == 0, ran.stdout
    assert "strict = true" in (shop / "pyproject.toml").read_text()


def test_it_has_no_problems(shop: Path) -> None:
    ran = flashfw("check", cwd=shop)

    assert ran.returncode == 0, ran.stderr


def test_it_is_collected_as_meant(shop: Path) -> None:
    ran = flashfw("collect", "--json", cwd=shop)

    assert ran.returncode == 0, ran.stderr
    for node in ("hello", "gpu_fractal", "api::get", "api/users::post", "api/users/_id_::delete"):
        assert f'"{node}"' in ran.stdout


@pytest.fixture(scope="module")
def server(shop: Path, module_flashfw_dev: Callable[..., DevServer]) -> DevServer:
    return module_flashfw_dev(shop)


def test_the_job_on_the_cpu_answers(server: DevServer) -> None:
    answer: Any = server.call("/hello", {"text": "the cat and the hat", "top": 1})

    assert answer == {"words": 5, "different": 4, "longest": "the", "most_common": {"the": 2}}


def test_the_job_for_a_gpu_says_where_it_ran(server: DevServer) -> None:
    answer: Any = server.call("/gpu_fractal", {"width": 40, "height": 10})

    assert answer["device"] == "cpu"  # the template does not depend on torch
    assert len(answer["rows"]) == 10
    wait_until(lambda: "fractal: computes on cpu" in server.output(), "the fixture's line is shown")
    assert server.output().count("fractal: computes on cpu") == 1


def test_users_are_made_found_and_removed(server: DevServer) -> None:
    ada: Any = server.call("/api/users", {"name": "Ada"})

    assert server.request("GET", f"/api/users/{ada['id']}").json() == ada
    assert ada in json.loads(server.request("GET", "/api/users").body)
    assert server.request("DELETE", f"/api/users/{ada['id']}").status == 204
    assert server.request("GET", f"/api/users/{ada['id']}").status == 404


def test_a_user_without_a_name_is_refused(server: DevServer) -> None:
    answer = server.request("POST", "/api/users", b'{"name": ""}', content_type="application/json")

    assert answer.status == 422
    assert b"name" in answer.body


def test_the_command_calls_it(server: DevServer) -> None:
    ran = flashfw("call", "hello", '{"text": "a b"}', "--json", cwd=server.project)

    assert ran.returncode == 0, ran.stderr
    assert '"words": 2' in ran.stdout


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # Test processes hand down variables that would make the inner pytest believe it is one of them.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
