"""One table says what a target makes of a key: check, the documentation and this test go by it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from flashfw.project.keys import KEYS
from flashfw.project.targets import TABLE, row
from tests.project import shop

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
VALUES = {
    "gpu": "'L40S'",
    "gpu_count": "2",
    "cuda": "'12.8'",
    "cpu": "'cpu3g-4-16'",
    "memory": "'8GB'",
    "workers": "[1, 2]",
    "idle_timeout": "5",
    "concurrency": "2",
    "scaler": "{value = 1}",
    "start_timeout": "5",
    "drain_timeout": "5",
    "max_queue": "5",
    "max_body": "5",
    "strategy": "'replace'",
    "dependencies": "['httpx']",
    "system_dependencies": "['ffmpeg']",
    "python": "'3.12'",
    "preload": "['json']",
    "command": "'node server.js'",
    "ready": "'/health'",
    "image": "'a:1'",
    "disk": "'10GB'",
    "registry": "'ghcr'",
    "datacenters": "['EU-RO-1']",
    "flashboot": "false",
    "env": "{A = '1'}",
    "secrets": "['A']",
    "volume": "{name = 'a', size = '10GB'}",
    "include": "['handler.py']",
    "timeout": "60",
    "ttl": "60",
    "result_ttl": "60",
    "retries": "2",
    "batch": "{max_size = 2}",
    "schedule": "[{cron = '0 6 * * *', input = {items = []}}]",
    "public": "true",
    "marks": "['a']",
}


def told(folder: Path, text: str, environment: str) -> list[tuple[str, str]]:
    text = f"command = 'x'\n{text}" if text.startswith("ready") else text
    files = {"flashfw.toml": "[environments.prod]", "endpoints/a/endpoint.toml": text}
    if not text.startswith("command"):  # which stands in place of a handler
        files["endpoints/a/handler.py"] = "def handler(items: list[str]): ..."
    manifest, problems = shop.compiled(shop.write(folder, files), environment)
    assert len(manifest.endpoints) == (not any(problem.level == "error" for problem in problems))
    return [(problem.level, problem.what) for problem in problems]


def test_every_key_is_tried() -> None:
    assert VALUES.keys() == KEYS.keys()
    assert all(table.keys() <= KEYS.keys() for table in TABLE.values())


@pytest.mark.parametrize(("target", "key"), list(itertools.product(TABLE, KEYS)))
def test_what_is_not_honoured_is_told(tmp_path: Path, target: str, key: str) -> None:
    hardware = "gpu = 'L40S'\n" if key in ("gpu_count", "cuda") else ""
    found = told(tmp_path, f"{hardware}{key} = {VALUES[key]}", "prod")

    expected, why = row(target, key)
    level = {"honoured": [], "noted": ["warning"], "refused": ["error"]}[expected]
    assert [level for level, what in found if what.startswith(f"'{key}'")] == level
    assert all(what.endswith(why) for _, what in found if what.startswith(f"'{key}'"))


@pytest.mark.parametrize("key", list(KEYS))
def test_dev_takes_every_key(tmp_path: Path, key: str) -> None:
    hardware = "gpu = 'L40S'\n" if key in ("gpu_count", "cuda") else ""

    assert told(tmp_path, f"{hardware}{key} = {VALUES[key]}", "dev") == []


@pytest.mark.parametrize("text", ["flashboot = true", "strategy = 'surge'", "volume = {name = 'a'}", "gpu = false"])
def test_what_the_target_does_anyway_is_not_told(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text, "prod") == []


def test_a_key_may_be_unset_for_the_environment(tmp_path: Path) -> None:
    assert told(tmp_path, "image = 'a:1'\n[on.prod]\nimage = false", "prod") == []


def test_the_documentation_has_the_table() -> None:
    section = DOCS.read_text(encoding="utf-8").partition("## What a target honours")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]

    assert rows == [f"| `{key}` | {found.verdict} | {found.why} |" for key, found in TABLE["cluster"].items()]
    assert f"| key | {' | '.join(f'`{target}`' for target in TABLE)} | why |" in section
