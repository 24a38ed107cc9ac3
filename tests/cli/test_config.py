"""`flashfw config` as people and scripts run it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flashfw.cli import main
from flashfw.errors import Exit
from flashfw.project.keys import FUNCTION_KEYS, KEYS
from tests.project import shop

TREE = {
    "flashfw.toml": "[project]\npython = '3.12'\n[environments.prod]\n",
    "pyproject.toml": "[project]\ndependencies = [\n  'httpx',\n]\n",
    "endpoints/endpoint.toml": "idle_timeout = '2m'\nenv = { A = '1' }\n[on.prod]\nworkers = [1, 9]\n",
    "endpoints/gpu/endpoint.toml": """gpu = ["L40S", "AMPERE_48"]
dependencies = ["torch"]
retries = 2
secrets = ["TOKEN"]
[env]
B = "2"
[function.up]
timeout = "1h"
""",
    "endpoints/gpu/handler.py": shop.JOB,
    "endpoints/gpu/up/handler.py": shop.JOB,
    "endpoints/api/handler.py": shop.HTTP,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shop.write(tmp_path, TREE))
    return tmp_path


def lines(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.startswith("  ")]


def values(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["key"]: row["value"] for row in found}


def places(found: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {row["key"]: [f"{place['file']}:{place['line']}" for place in row["places"]] for row in found}


def test_each_value_stands_beside_its_place(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["config", "gpu"]) == Exit.DONE

    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("gpu (job) in dev\n")
    for row in [
        ["gpu", '"NVIDIA L40S"', "endpoints/gpu/endpoint.toml:1"],
        ['"NVIDIA A40"'],
        ['"NVIDIA RTX A6000"'],
        ["workers", "[0, 3]", "default"],
        ["idle_timeout", '"2m"', "endpoints/endpoint.toml:1"],
        ["scaler", '{type = "queue_delay", value = 4}', "default"],
        ["max_body", '"10MB"', "default"],
        ["dependencies", '"httpx"', "pyproject.toml:3"],
        ['"torch"', "endpoints/gpu/endpoint.toml:2"],
        ["python", '"3.12"', "flashfw.toml:2"],
        ["env", 'A = "1"', "endpoints/endpoint.toml:2"],
        ['B = "2"', "endpoints/gpu/endpoint.toml:6"],
        ["secrets", 'TOKEN = "TOKEN"', "endpoints/gpu/endpoint.toml:4"],
        ["timeout", '"10m"', "default"],
        ["timeout", '"1h"', "endpoints/gpu/endpoint.toml:8"],
        ["retries", '{max = 2, backoff = "1s", on = []}', "endpoints/gpu/endpoint.toml:3"],
    ]:
        assert row in lines(out)
    assert "\ngpu/up\n" in out


def test_an_environment_has_its_own_values(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["config", "gpu", "--env", "prod"]) == Exit.DONE

    assert ["workers", "[1, 9]", "endpoints/endpoint.toml:4"] in lines(capsys.readouterr().out)


def test_a_function_s_id_shows_the_endpoint_and_that_function(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["config", "gpu/up", "--json"]) == Exit.DONE

    document = json.loads(capsys.readouterr().out)
    assert document["endpoint"] == "gpu"
    assert list(document["functions"]) == ["gpu/up"]


def test_the_document_has_every_key_in_base_units(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["config", "gpu", "--json"]) == Exit.DONE

    document = json.loads(capsys.readouterr().out)
    own, functions = document["values"], document["functions"]
    assert {**document, "values": 0, "functions": 0} == {
        "endpoint": "gpu",
        "kind": "job",
        "environment": "dev",
        "values": 0,
        "functions": 0,
    }
    assert set(values(own)) == KEYS.keys() - FUNCTION_KEYS
    assert all(set(values(rows)) == FUNCTION_KEYS for rows in functions.values())
    assert values(own)["idle_timeout"] == 120.0
    assert values(own)["gpu"] == ["NVIDIA L40S", "NVIDIA A40", "NVIDIA RTX A6000"]
    assert values(own)["env"] == {"A": "1", "B": "2"}
    assert values(own)["dependencies"] == ["httpx", "torch"]
    assert places(own)["dependencies"] == ["pyproject.toml:3", "endpoints/gpu/endpoint.toml:2"]
    assert places(own)["workers"] == []
    assert values(functions["gpu/up"])["timeout"] == 3600.0
    assert values(functions["gpu"])["retries"] == {"max": 2, "backoff_s": 1.0, "on": []}
    assert [row["default"] for row in functions["gpu"] if row["key"] == "retries"] == [False]


def test_what_is_shown_is_what_the_manifest_holds(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["config", "api", "--json"]) == Exit.DONE

    shown = values(json.loads(capsys.readouterr().out)["values"])
    endpoint = shop.sound(project).endpoint("api")
    assert endpoint is not None
    assert (shown["concurrency"], shown["max_body"]) == (endpoint.concurrency, endpoint.max_body_bytes)
    assert shown["scaler"] == {"type": endpoint.scaler.type, "value": endpoint.scaler.value}
    assert (shown["python"], shown["cpu"]) == (endpoint.python, endpoint.cpu)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpuu"], "did you mean 'gpu'?"),
        (["nothing_like_it"], "`flashfw collect` lists the ids"),
        (["gpu", "--env", "prd"], "did you mean 'prod'?"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage(project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main.run(["config", *arguments]) == Exit.USAGE

    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"endpoints/gpu/endpoint.toml": "\nworker = 1"}, "endpoints/gpu/endpoint.toml:2: unknown key 'worker'"),
        ({"endpoints/gpu/handler.py": "def handler(:"}, "endpoints/gpu/handler.py:1: syntax error"),
        ({"flashfw.toml": "[dev]\nport = 0"}, "flashfw.toml:2: 'dev.port' must be"),
    ],
)
def test_an_endpoint_with_errors_shows_them_and_no_values(
    project: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], message: str
) -> None:
    shop.write(project, {**TREE, **files})

    assert main.run(["config", "gpu"]) == Exit.PROBLEMS

    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_another_endpoint_s_errors_do_not_matter(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write(project, {**TREE, "endpoints/api/endpoint.toml": "worker = 1"})

    assert main.run(["config", "gpu"]) == Exit.DONE
    assert capsys.readouterr().err == ""
