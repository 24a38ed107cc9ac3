"""`flashfw build` as people type it: what it prints, and what it ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashfw.bundle import release as releases
from flashfw.bundle.archive import unpack
from flashfw.cli.main import run
from flashfw.errors import Exit
from tests.build.wheels import links


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shop"
    (root / "endpoints/hello").mkdir(parents=True)
    (root / "endpoints/hello/handler.py").write_text("def handler() -> int:\n    return 1\n")
    (root / "flashfw.toml").write_text("[environments.prod]\nurl = 'https://shop.example.com'\n")
    (root / "pyproject.toml").write_text(links(tmp_path / "wheels"))
    (root / ".env").write_text("KEY=1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(root)
    return root


def test_a_build_says_what_it_made(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build", "--env", "prod"]) == Exit.DONE
    first = capsys.readouterr()
    assert run(["build", "--env", "prod"]) == Exit.DONE
    again = capsys.readouterr()

    assert "shop/prod  release " in first.out
    assert "locked: flashfw.lock written; commit it" in first.err
    assert "left out: .env (credentials never travel)" in first.out
    assert [line.split()[-1] for line in first.out.splitlines()[2:4]] == ["built", "built"]
    assert [line.split()[-1] for line in again.out.splitlines()[2:4]] == ["unchanged", "unchanged"]
    assert again.err == ""


def test_the_document(shop: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["build", "--json", "-o", str(tmp_path / "out")]) == Exit.DONE
    document = json.loads(capsys.readouterr().out)
    release = releases.loads((tmp_path / "out/release.json").read_text())

    assert document["release"] == release.id
    assert (document["environment"], document["source"]["files"]) == ("local", 3)
    assert {".env", ".flashfw/"} <= {found["path"] for found in document["source"]["left_out"]}
    assert document["packages"][0]["endpoints"] == ["hello"]
    for layer in release.layers:
        with (tmp_path / f"out/layers/{layer.digest}.tar.zst").open("rb") as stream:
            unpack(stream, tmp_path / layer.digest, layer=layer)


def test_problems_end_with_2_and_nothing_is_built(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "endpoints/hello/handler.py").write_text("def handler(:\n")
    (shop / "out").symlink_to("/etc")

    assert run(["build"]) == Exit.PROBLEMS
    assert run(["build", "--json"]) == Exit.PROBLEMS
    shown = capsys.readouterr()
    assert "endpoints/hello/handler.py:1" in shown.err
    assert "out: is a link that leads out of the project" in shown.err
    assert len(json.loads(shown.out)["problems"]) == 2
    assert not (shop / ".flashfw/build/release.json").exists()


def test_nothing_collected_ends_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flashfw.toml").touch()

    assert run(["build", "--root", str(tmp_path)]) == Exit.NOTHING
    assert "no endpoint in" in capsys.readouterr().err
    assert run(["build", "--root", str(tmp_path / "gone")]) == Exit.USAGE


def test_a_folder_that_cannot_be_written_is_told(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "file").touch()

    assert run(["build", "-o", str(shop / "file")]) == Exit.USAGE
    assert "cannot write to" in capsys.readouterr().err
    assert run(["build", "--env", "prd"]) == Exit.USAGE
    assert "did you mean 'prod'?" in capsys.readouterr().err
