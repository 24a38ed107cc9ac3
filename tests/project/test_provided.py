from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import shop


def told(folder: Path, source: str, dependencies: str = "[]", **files: str) -> list[str]:
    tree = {
        "endpoints/a/handler.py": f"{source}\n{shop.JOB}",
        "endpoints/a/endpoint.toml": f"dependencies = {dependencies}",
    }
    return shop.told(shop.write(folder, {**tree, **files}))


@pytest.mark.parametrize(
    ("source", "dependencies"),
    [
        ("import json, asyncio.subprocess, __future__", "[]"),
        ("import flashfw, pydantic, starlette.requests, anyio", "[]"),
        ("import lib.x, single, endpoints.a", "[]"),
        ("from . import x", "[]"),
        ("import torch.nn", "['torch>=2']"),
        ("import Some_Package", "['some.package[extra]; python_version > \"3\"']"),
        ("import PIL, cv2, yaml, sklearn", "['Pillow', 'opencv-python-headless', 'PyYAML', 'scikit-learn']"),
        ("import h11, httpcore", "['httpx']"),
        ("try:\n  import torch\nexcept ImportError:\n  torch = None", "[]"),
    ],
)
def test_nothing_is_missing(tmp_path: Path, source: str, dependencies: str) -> None:
    assert told(tmp_path, source, dependencies, **{"lib/x.py": "", "single.py": "", "endpoints/a/x.py": ""}) == []


@pytest.mark.parametrize(
    ("module", "suggestion"),
    [("torch", "torch"), ("yaml", "pyyaml"), ("PIL", "pillow"), ("some_thing", "some-thing"), ("httpx", "httpx")],
)
def test_a_missing_module_is_a_warning_with_the_line_and_the_mend(tmp_path: Path, module: str, suggestion: str) -> None:
    found = told(tmp_path, f"import os\nimport {module}.sub\nimport {module}", "['numpy']")

    assert found == [
        f"endpoints/a/handler.py:2: imports '{module}', which no dependency of 'a' provides; "
        f'add "{suggestion}" to dependencies in endpoint.toml'
    ]


def test_the_project_s_dependencies_count(tmp_path: Path) -> None:
    assert told(tmp_path, "import torch", **{"pyproject.toml": "[project]\ndependencies = ['torch']"}) == []


def test_a_library_s_import_is_told_for_the_endpoint_that_needs_it(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/b/handler.py": shop.JOB})

    found = told(tmp_path, "import lib", **{"lib.py": "import torch"})

    assert [text.split(",")[0] for text in found] == ["lib.py:1: imports 'torch'"]


def test_a_test_beside_a_handler_may_import_what_it_likes(tmp_path: Path) -> None:
    assert (
        told(tmp_path, "", **{"endpoints/a/test_handler.py": "import pytest", "endpoints/a/conftest.py": "import x"})
        == []
    )


def test_a_warning_leaves_the_endpoint_in_the_manifest(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": f"import torch\n{shop.JOB}"})

    manifest, problems = shop.compiled(tmp_path)

    assert [problem.level for problem in problems] == ["warning"]
    assert [endpoint.id for endpoint in manifest.endpoints] == ["a"]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("lib.warm", None),
        ("lib", None),
        ("single", None),
        ("json.tool", None),
        ("numpy.linalg", None),
        ("pydantic", None),
        ("lib.cold", "'preload' names 'lib.cold', which the project does not have"),
        ("torch", "'preload' names 'torch', which no dependency of 'a' provides; add \"torch\" to dependencies"),
    ],
)
def test_what_is_preloaded_must_come_from_somewhere(tmp_path: Path, module: str, expected: str | None) -> None:
    tree = {
        "lib/warm.py": "",
        "single.py": "",
        "endpoints/a/handler.py": shop.JOB,
        "endpoints/a/endpoint.toml": f"dependencies = ['numpy']\npreload = [\n'os',\n'{module}']",
    }

    assert shop.told(shop.write(tmp_path, tree)) == (
        [] if expected is None else [f"endpoints/a/endpoint.toml:4: {expected}"]
    )
