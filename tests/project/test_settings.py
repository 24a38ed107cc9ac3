from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.project import root
from flashfw.project.settings import BuildSettings, Environment, ProjectSettings, Requirement, load_settings
from tests.project import shop


def load(folder: Path) -> tuple[ProjectSettings, list[str]]:
    settings, problems = load_settings(root.find(folder))
    return settings, [str(problem) for problem in problems]


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    settings, problems = load(shop.write(tmp_path, {}))

    assert problems == []
    assert settings == ProjectSettings(name=tmp_path.name, host="127.0.0.1", port=8888)


FULL = """
[{0}project]
name = "shop"
python = "3.12"
[{0}dev]
host = "0.0.0.0"
port = 9000
[{0}environments.prod]
target = "cluster"
url = "https://shop.example.com:8443/base"
cafile = "certs/ca.pem"
registry = "ghcr.io/shop"
protected = true
[{0}environments.staging]
"""


@pytest.mark.parametrize(("file", "prefix"), [("flashfw.toml", ""), ("pyproject.toml", "tool.flashfw.")])
def test_every_key_in_either_file(tmp_path: Path, file: str, prefix: str) -> None:
    (tmp_path / file).write_text(FULL.format(prefix))

    settings, problems = load(tmp_path)

    assert problems == []
    assert settings == ProjectSettings(
        name="shop",
        python="3.12",
        host="0.0.0.0",
        port=9000,
        environments=(
            Environment("prod", "cluster", "https://shop.example.com:8443/base", "certs/ca.pem", "ghcr.io/shop", True),
            Environment("staging"),
        ),
        python_at=(file, 4),
    )
    assert settings.environment("staging") == Environment("staging")
    assert settings.environment("dev") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[projct]", ":1: unknown key 'projct'; did you mean 'project'?"),
        ("[project]\nnam = 'x'", ":2: unknown key 'project.nam'; did you mean 'name'?"),
        ("[project]\nname = 'a b'", ":2: 'project.name' must be a name of letters"),
        ("[project]\npython = '2.7'", ":2: 'project.python' must be \"3.10\" or"),
        ("[project]\npython = 3.12", ":2: 'project.python' must be a string, not 3.12; write \"3.12\" in quotes"),
        ("project = 1", ":1: 'project' must be a table, not 1"),
        ("[dev]\nport = 70000", ":2: 'dev.port' must be a whole number from 1 to 65,535, not 70000"),
        ("[dev]\nhost = 'http://x'", ":2: 'dev.host' must be a host name or address"),
        ("[environments.prod]\nurl = 'x'", ":2: 'environments.prod.url' must be an address"),
        ("[environments.prod]\nurl = 'https://u:p@x'", ":2: 'environments.prod.url' must be an address"),
        ("[environments.prod]\nurl = 'https://x:99999'", ":2: 'environments.prod.url' must be an address"),
        ("[environments.prod]\ntarget = 'clutser'", ":2: 'environments.prod.target' must be \"cluster\""),
        ("[environments.prod]\nprotected = 1", ":2: 'environments.prod.protected' must be true or false"),
        ("[environments.prod]\nprotekted = true", ":2: unknown key 'environments.prod.protekted'; did you mean"),
        ("[environments.Prod]", ":1: 'environments.Prod' must be named with small letters"),
        ("[environments.dev]", ":1: 'environments.dev' is always the laptop's and cannot be declared"),
        ("[build]\nexclude = 'data/'", ":2: 'build.exclude' must be a list of patterns, not"),
        ("[build]\nexclude = ['data/',\n'!']", ":3: 'build.exclude[1]' must be a pattern of an ignore file such as"),
        ("[build]\nmax_size = '10 apples'", ":2: 'build.max_size' must be a size such as"),
        ("[build]\nmax_size = 5", ":2: 'build.max_size' must be 1MB or more, not 5"),
        ("[build]\nexclud = []", ":2: unknown key 'build.exclud'; did you mean 'exclude'?"),
        ("environments = []", ":1: 'environments' must be a table, not a list"),
        ("environments.prod = 1", ":1: 'environments.prod' must be a table, not 1"),
        ("[project]\nname = ", ":2: not TOML: Invalid value"),
    ],
)
def test_a_problem_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    _, problems = load(shop.write(tmp_path, {"flashfw.toml": text}))

    assert len(problems) == 1
    assert problems[0].startswith(f"flashfw.toml{expected}")


def test_what_a_build_leaves_out(tmp_path: Path) -> None:
    text = "[build]\nexclude = ['data/']\nexclude_installed = ['**/tests/', '*.pyi']\nmax_size = '6GB'\n"
    settings, problems = load(shop.write(tmp_path, {"flashfw.toml": text}))

    assert settings.build == BuildSettings(("data/",), ("**/tests/", "*.pyi"), 6_000_000_000)
    assert problems == []
    assert ProjectSettings(name="x").build.max_size_bytes == 10_000_000_000


def test_what_is_wrong_has_its_default_and_hides_nothing_else(tmp_path: Path) -> None:
    text = "[project]\nname = 'shop'\npython = '2.7'\n[dev]\nport = 0\nhots = 'x'\n[environments.prod]\nurl = 1"

    settings, problems = load(shop.write(tmp_path, {"flashfw.toml": text}))

    assert settings == ProjectSettings(name="shop", environments=(Environment("prod"),))
    assert [int(problem.split(":")[1]) for problem in problems] == [3, 5, 6, 8]


def test_the_project_s_own_dependencies(tmp_path: Path) -> None:
    text = "[project]\ndependencies = [\n  'httpx>=0.27',\n  'torch=2',\n  'numpy',\n]"

    settings, problems = load(shop.write(tmp_path, {"pyproject.toml": text}))

    assert settings.dependencies == (Requirement("httpx>=0.27", 3), Requirement("numpy", 5))
    assert len(problems) == 1
    assert problems[0].startswith("pyproject.toml:4: 'project.dependencies[1]' must be a requirement")


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\ndynamic = ['dependencies']", "[tool.x]\ny = 1", "[project]"])
def test_a_pyproject_without_dependencies(tmp_path: Path, text: str) -> None:
    settings, problems = load(shop.write(tmp_path, {"pyproject.toml": text}))

    assert (settings.dependencies, problems) == ((), [])


def test_a_pyproject_that_does_not_parse_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.flashfw]\nx = \n")

    _, problems = load(tmp_path)

    assert problems == ["pyproject.toml:2: not TOML: Invalid value"]


def test_local_needs_no_declaration(tmp_path: Path) -> None:
    settings, problems = load(
        shop.write(tmp_path, {"flashfw.toml": "[environments.prod]\nurl = 'https://shop.example.com'\n"})
    )

    assert problems == []
    assert [(found.name, found.url) for found in settings.shippable] == [
        ("prod", "https://shop.example.com"),
        ("local", "http://127.0.0.1:8899"),
    ]
    assert settings.environment("local") == Environment("local", url="http://127.0.0.1:8899")


def test_local_may_be_declared(tmp_path: Path) -> None:
    settings, _ = load(shop.write(tmp_path, {"flashfw.toml": "[environments.local]\nprotected = true\n"}))

    assert settings.environment("local") == Environment("local", url="http://127.0.0.1:8899", protected=True)
