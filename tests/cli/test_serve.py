"""What is wrong with a `flashfw serve` is told before anything starts."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from flashfw.cli.main import run
from flashfw.errors import Exit
from tests.serve import certificate
from tests.serve.certificate import DAY, NOW


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str]:
    code = run(["serve", "--data", str(folder / "data"), *arguments])
    return code, capsys.readouterr().err


def test_options_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--key", "x.key"], "--key comes with --cert alone"),
        (["--cert", "x.pem"], "--cert comes with --key alone"),
        (["--as", "shop"], "--as 'shop' names no project and environment"),
        (["--as", "a/b/c"], "--as 'a/b/c' names no project and environment"),
        (["--grace", "soon"], "--grace 'soon' is no duration"),
        (["--log-size", "big"], "--log-size 'big' is no size"),
        (["--log-size", "1kB"], "it takes at least 100kB"),
        (["--grace", "0s"], "it takes 1s to 1h"),
        (["--gateway", "x"], "--gateway is what `flashfw serve` starts its own processes with"),
        (["--database", "postgresql://me:pass@db/x"], "--as PROJECT/ENVIRONMENT"),
    ):
        code, told = refused(capsys, tmp_path, *arguments)
        assert (code, words in told) == (Exit.USAGE, True), told
        assert "pass@" not in told


def test_certificates_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over = certificate.write(tmp_path, ends=NOW - DAY / 2)

    code, told = refused(capsys, tmp_path, "--cert", str(over.cert), "--key", str(over.key))
    assert code == Exit.USAGE
    assert "expired on" in told
    code, told = refused(capsys, tmp_path, "--cert", str(tmp_path / "none"), "--key", str(over.key))
    assert code == Exit.USAGE
    assert "cannot read the certificate" in told
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        code, told = refused(capsys, tmp_path, "--port", str(port))

    assert code == Exit.TARGET
    assert f"port {port} on 127.0.0.1 is in use" in told


def test_data_of_a_newer_flashfw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "server.json").write_text('{"format": 7}')

    assert run(["serve", "--data", str(tmp_path / "data"), "--json"]) == Exit.TARGET
    assert "a newer flashfw wrote" in json.loads(capsys.readouterr().out)["error"]["what"]


def test_data_of_another_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "server.json").write_text('{"format": 1, "project": "shop", "environment": "prod"}')

    code, told = refused(capsys, tmp_path, "--as", "shop/test")

    assert code == Exit.TARGET
    assert "is of shop/prod, not of shop/test" in told


def test_a_unit_is_printed_and_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--data", str(tmp_path / "data"), "--grace", "20s", "--print-unit"]) == Exit.DONE

    unit = capsys.readouterr().out
    assert f"serve --data {tmp_path}/data --host 127.0.0.1 --port 8899 --grace 20s" in unit
    assert "TimeoutStopSec=60s" in unit
    assert not (tmp_path / "data").exists()


def test_a_unit_with_a_password_in_it_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url, warns in (("postgresql://me:pass@db/x", True), ("postgresql://me@db/x", False)):
        given = ["--data", str(tmp_path), "--database", url, "--as", "shop/prod", "--print-unit"]

        assert run(["serve", *given]) == Exit.DONE

        out, err = capsys.readouterr()
        assert f"--database {url}" in out
        assert ("~/.pgpass" in err) is warns
        assert "pass@" not in err
