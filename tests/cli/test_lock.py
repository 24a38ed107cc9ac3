"""`flashfw lock` and what `flashfw check` says of it, as people and scripts run them; packages come from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashfw.build.lock import FILE, PLATFORM
from flashfw.cli import main
from flashfw.errors import Exit
from tests.build.wheels import links, wheel
from tests.project.shop import JOB, write


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one endpoint that asks for `alpha`, entered."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "uv"))
    table = links(tmp_path / "wheels")
    wheel(tmp_path / "wheels", "alpha", "1.0")
    wheel(tmp_path / "wheels", "alpha", "2.0")
    files = {
        "flashfw.toml": "[project]\nname = 'shop'\n[environments.prod]\nurl = 'https://shop.example.com'\n",
        "pyproject.toml": table,
        "endpoints/a/handler.py": JOB,
        "endpoints/a/endpoint.toml": 'dependencies = ["alpha<2"]\n',
    }
    write(tmp_path / "shop", files)
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def ask(shop: Path, dependencies: str) -> None:
    (shop / "endpoints/a/endpoint.toml").write_text(f"dependencies = [{dependencies}]\n")


def test_a_lock_is_made_kept_and_upgraded(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lock"]) == Exit.DONE
    made = capfd.readouterr()
    assert made.out.startswith(f"locked 7 packages in 1 environment of 1 endpoint for {PLATFORM} (")
    assert made.err.startswith("resolving a (Python ")
    before = (shop / FILE).read_bytes()

    assert main.run(["lock"]) == main.run(["lock", "--check"]) == Exit.DONE
    assert capfd.readouterr() == (f"{FILE} is up to date\n" * 2, "")
    assert (shop / FILE).read_bytes() == before

    ask(shop, '"alpha"')
    assert main.run(["lock", "--check"]) == Exit.PROBLEMS
    said = f"{FILE}: is out of date for a: alpha is new, alpha<2 is gone; run `flashfw lock`\n1 problem\n"
    assert capfd.readouterr() == ("", said)
    assert main.run(["lock"]) == Exit.DONE
    assert main.run(["lock", "--upgrade", "alpha"]) == Exit.DONE
    assert "\n  alpha  1.0 -> 2.0  a\n" in capfd.readouterr().out


def test_the_document(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lock", "--json"]) == Exit.DONE
    document = json.loads(capfd.readouterr().out)

    assert (document["file"], document["changed"]) == (FILE, True)
    (environment,) = document["environments"]
    assert environment["endpoints"] == ["a"]
    assert {"name": "alpha", "before": "", "after": "1.0", "endpoints": ["a"]} in document["changes"]
    ask(shop, '"alpha>5"')
    assert main.run(["lock", "--check", "--json"]) == Exit.PROBLEMS
    assert json.loads(capfd.readouterr().out)["current"] is False
    assert main.run(["lock", "--json"]) == Exit.PROBLEMS
    (problem,) = json.loads(capfd.readouterr().out)["problems"]
    assert (problem["file"], problem["line"]) == ("endpoints/a/endpoint.toml", 1)


def test_an_archive_that_is_another(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lock"]) == Exit.DONE
    wheel(shop.parent / "wheels", "alpha", "1.0", files={"alpha.py": b"VERSION = 'rebuilt'"})
    assert main.run(["lock", "--upgrade"]) == Exit.DONE
    assert "\n  alpha  1.0 (another archive)  a\n" in capfd.readouterr().out


def test_the_platform_stays_what_it_is(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lock", "--platform", "linux-arm"]) == main.run(["lock"]) == main.run(["lock", "--check"]) == 0
    assert 'platform = "aarch64-manylinux_2_28"' in (shop / FILE).read_text()
    assert main.run(["lock", "--check", "--platform", "linux"]) == Exit.PROBLEMS
    assert f"is for aarch64-manylinux_2_28, not for {PLATFORM}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--platform", "amiga"], Exit.USAGE, "--platform 'amiga'"),
        (["--check", "--upgrade"], Exit.USAGE, "--check changes nothing"),
        (["--upgrade", "six"], Exit.USAGE, "'six'"),
        (["six"], Exit.USAGE, "six"),
        (["--root", "nowhere"], Exit.USAGE, "nowhere"),
    ],
)
def test_what_is_asked_wrongly(
    shop: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: Exit, said: str
) -> None:
    assert main.run(["lock", *arguments]) == code
    assert said in capfd.readouterr().err
    assert not (shop / FILE).exists()


def test_nothing_is_written_where_something_is_wrong(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (shop / "endpoints/b").mkdir()
    (shop / "endpoints/b/handler.py").write_text("def handler(:\n")
    assert main.run(["lock"]) == main.run(["lock", "--check"]) == Exit.PROBLEMS
    assert "endpoints/b/handler.py:1: syntax error" in capfd.readouterr().err
    assert not (shop / FILE).exists()


def test_a_project_without_endpoints(shop: Path) -> None:
    (shop / "endpoints/a/handler.py").unlink()
    (shop / "endpoints/a/endpoint.toml").unlink()
    assert main.run(["lock"]) == Exit.NOTHING


def test_a_lock_that_a_merge_left(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (shop / FILE).write_text("version = 1\n<<<<<<< ours\n")
    assert main.run(["lock"]) == Exit.PROBLEMS
    assert "line 2 is left of a merge" in capfd.readouterr().err


def test_an_index_that_is_silent(
    shop: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "pyproject.toml").unlink()
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    assert main.run(["lock"]) == Exit.TARGET
    assert "packages cannot be fetched: " in capfd.readouterr().err


def test_check_tells_of_the_lock_where_it_is_shipped(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["check"]) == Exit.DONE
    assert FILE not in capfd.readouterr().err
    assert main.run(["check", "--env", "prod"]) == Exit.DONE
    assert f"{FILE}: warning: is not there; make it with `flashfw lock`" in capfd.readouterr().err

    assert main.run(["lock"]) == main.run(["check", "--env", "prod"]) == Exit.DONE
    ask(shop, '"alpha"')
    assert main.run(["check", "--env", "prod"]) == Exit.PROBLEMS
    assert f"{FILE}: is out of date for a: " in capfd.readouterr().err
    assert main.run(["check"]) == Exit.DONE
    (shop / FILE).write_text("version = 99\n")
    assert main.run(["check", "--env", "prod"]) == Exit.PROBLEMS
    assert f"{FILE} has version 99" in capfd.readouterr().err
