from __future__ import annotations

import doctest
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from flashfw.bundle import needs, uv
from flashfw.bundle.needs import WORKER_NEEDS, EnvironmentFailed, read
from flashfw.cluster.environments.requirements import want

ROOT = Path(__file__).parents[3]
TOML = "[project]\nname = 'shop'\n"


def key(
    asked: Sequence[str] = ("six",),
    *,
    root: Path = Path("/nowhere"),
    python: str = "3.11",
    variables: Mapping[str, str] | None = None,
) -> str:
    return want(asked, python=python, root=root, askers={}, variables=variables or {}).key


@pytest.mark.parametrize("module", [needs, uv])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_the_workers_needs_are_those_of_flashfw() -> None:
    own = uv.read_toml(ROOT / "pyproject.toml")["project"]["dependencies"]
    declared = {Requirement(text).name: Requirement(text).specifier for text in own}

    for need in map(Requirement, WORKER_NEEDS):
        assert set(declared[need.name]) <= set(need.specifier), need


def test_the_order_and_the_spelling_do_not_count() -> None:
    assert key(["Foo_Bar[b,a] >= 1, <2", "six", "six"]) == key(["six", "foo-bar[a,b]<2,>=1"])


NAMES = st.sampled_from(["six", "iniconfig", "numpy", "torch>=2.4", "magika[cli]"])


@given(st.lists(NAMES, unique=True), st.randoms())
def test_another_set_is_another_key(asked: list[str], random: st.DataObject) -> None:
    shuffled = list(asked)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert key(shuffled) == key(asked)
    assert all(key(asked) != key([*asked[:n], *asked[n + 1 :]]) for n in range(len(asked)))


def test_versions_of_python_are_apart() -> None:
    assert key(python="3.11") != key(python="3.12")


def test_the_projects_uv_settings_count(tmp_path: Path) -> None:
    inside = tmp_path / "services" / "shop"
    inside.mkdir(parents=True)
    pyproject = inside / "pyproject.toml"
    pyproject.write_text(TOML)
    plain = key(root=inside)
    pyproject.write_text(TOML + "[tool.ruff]\nline-length = 100\n")
    assert key(root=inside) == plain

    pyproject.write_text(TOML + '[tool.uv]\nindex-url = "https://a:b@one.example/simple"\n')
    one = key(root=inside)
    pyproject.write_text(TOML + '[tool.uv]\nindex-url = "https://c:d@one.example/simple"  # another token\n')
    assert key(root=inside) == one != plain

    (inside / "uv.toml").write_text('index-url = "https://two.example/simple"\n')  # goes before pyproject.toml
    two = key(root=inside)
    assert two not in (one, plain)

    (inside / "uv.toml").unlink()
    pyproject.write_text(TOML)
    (tmp_path / "uv.toml").write_text('index-url = "https://two.example/simple"\n')  # as uv looks further up
    assert key(root=inside) == two


def test_uvs_variables_count_if_they_change_what_is_installed() -> None:
    plain = key()

    assert key(variables={"PATH": "/bin", "UV_CACHE_DIR": "/x", "UV_INDEX_ONE_PASSWORD": "secret"}) == plain
    assert key(variables={"UV_EXTRA_INDEX_URL": "https://one.example"}) != plain
    assert key(variables={"UV_INDEX_URL": "https://a:b@one.example"}) == key(
        variables={"UV_INDEX_URL": "https://c:d@one.example"}
    )


def test_a_path_counts_by_its_content(tmp_path: Path) -> None:
    library = tmp_path / "libs" / "x"
    library.mkdir(parents=True)
    (library / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (library / "x.py").write_text("A = 1")
    for asked in (["./libs/x"], ["x @ ./libs/x"], [f"x @ {library.as_uri()}"]):
        first = key(asked, root=tmp_path)
        for left in ("__pycache__", "build", "x.egg-info", ".git"):
            (library / left).mkdir(exist_ok=True)
            (library / left / "f").write_text("left by a build")
        assert key(asked, root=tmp_path) == first

        (library / "x.py").write_text("A = 2")
        assert key(asked, root=tmp_path) != first
        (library / "x.py").write_text("A = 1")


def test_a_relative_path_starts_at_the_project(tmp_path: Path) -> None:
    (tmp_path / "my libs").mkdir()
    wheel = tmp_path / "my libs" / "x-1-py3-none-any.whl"
    wheel.write_bytes(b"")

    assert read("./my libs/x-1-py3-none-any.whl", "a", tmp_path).line == str(wheel)
    assert read(str(wheel), "a", tmp_path).line == str(wheel)
    assert read(f"x@{wheel.as_uri()}", "a", tmp_path).path == wheel
    assert read(wheel.as_uri(), "a", tmp_path).path == wheel
    assert read("X @ file:my%20libs/x-1-py3-none-any.whl", "a", tmp_path).line == f"x @ {wheel.as_uri()}"
    assert read("x @ https://one.example/x-1-py3-none-any.whl", "a", tmp_path).path is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-e ./libs/x", "a/endpoint.toml:3 asks for '-e ./libs/x', which is no requirement; write the path alone"),
        ("--index-url https://x", "which is no requirement; write the requirement alone; indexes belong under"),
        ("six\n--pre", "which is no requirement"),
        ("six >", "asks for 'six >', which is no requirement: "),
        ("./libs/gone", "asks for ./libs/gone, and /nowhere/libs/gone does not exist; paths start at /nowhere"),
    ],
)
def test_what_is_no_requirement_is_said(text: str, said: str) -> None:
    with pytest.raises(EnvironmentFailed) as failed:
        read(text, "a/endpoint.toml:3", Path("/nowhere"))

    assert said in str(failed.value)


def test_uvs_older_frame_is_taken_off() -> None:
    message = (
        "warning: something else\n"
        "  × No solution found when resolving dependencies:\n"
        "  ╰─▶ Because you require pydantic<2 and pydantic>=2.8, we can conclude that\n"
        "      your requirements are unsatisfiable.\n"
        "\n"
        "      hint: try harder\n"
    )

    assert uv.cleaned(message) == (
        "No solution found when resolving dependencies: Because you require pydantic<2 and pydantic>=2.8, "
        "we can conclude that your requirements are unsatisfiable."
    )


def test_the_end_of_what_a_build_printed_is_kept() -> None:
    printed = "\n".join(f"         line {n}" for n in range(100))
    message = f"error: The build failed\n  cause: exit status: 1\n\n         [stderr]\n{printed}\n"

    lines = uv.cleaned(message).splitlines()

    assert lines[0] == "The build failed: exit status: 1"
    assert lines[-1] == "line 99"
    assert len(lines) == 1 + uv.SHOWN_LINES
