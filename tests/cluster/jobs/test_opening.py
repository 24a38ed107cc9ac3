"""`dev --database`: which store it is, which schema, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.job_files import home_of
from flashfw.cluster.jobs.opening import job_store, schema_of
from flashfw.cluster.jobs.sqlite import SqliteStore
from flashfw.errors import UsageError
from tests.command import flashfw
from tests.served import write

HELLO = {"endpoints/hello/handler.py": "def handler() -> int:\n    return 1\n"}


def test_without_a_url_it_is_a_file_of_the_project(tmp_path: Path) -> None:
    store = job_store(None, folder=tmp_path, project="shop", environment="dev", clock=SystemClock())

    assert isinstance(store, SqliteStore)


def test_a_database_is_told_where_the_files_of_jobs_are(tmp_path: Path) -> None:
    store = job_store("postgresql://h/x", folder=tmp_path, project="shop", environment="dev", clock=SystemClock())

    assert vars(store)["_home"] == home_of(tmp_path / "files")


def test_a_schema_is_named_by_project_and_environment() -> None:
    assert schema_of("shop", "dev") == "flashfw_shop_dev"


def test_each_project_and_environment_has_a_schema_of_its_own() -> None:
    projects = ("shop", "Shop", "a_b", "a-b", "a b", 'a"b', "ä", "x" * 80, "x" * 81, "a_b_c", "")
    names = [schema_of(project, environment) for project in projects for environment in ("dev", "b_dev", "c_dev")]

    assert len(set(names)) == len(names)
    assert all(name.isascii() and name.isidentifier() and len(name) <= 63 for name in names)


@pytest.mark.parametrize("url", ["mysql://u:hidden@h/x", "jobs.sqlite", "", "postgresql://u:hidden@[::1/x"])
def test_a_url_of_something_else_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="database") as told:
        job_store(url, folder=tmp_path, project="shop", environment="dev", clock=SystemClock())

    assert "hidden" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("mysql://u:hidden@h/x", 4, "takes the URL of"),
        ("postgresql://u:hidden@127.0.0.1:1/x", 7, "failed: Connection refused\n  is the server running"),
    ],
)
def test_dev_ends_at_the_start_and_says_why(
    url: str, code: int, words: str, tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    ended = flashfw("dev", "--port", "0", "--database", url, cwd=write(tmp_path, HELLO), environ=dev_environ)

    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "hidden" not in ended.stdout + ended.stderr
