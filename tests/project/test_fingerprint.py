"""The fingerprint of an endpoint changes exactly when something that its workers depend on does."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.project.fingerprint import included
from flashfw.project.keys import KEYS
from flashfw.project.values import Invalid
from tests.project import shop

TREE = {
    "flashfw.toml": "[project]\npython = '3.11'\n[environments.prod]\n",
    "pyproject.toml": "[project]\nname = 'shop'\ndependencies = ['httpx', 'numpy']\n",
    "README.md": "shop\n",
    "lib/__init__.py": "",
    "lib/a.py": "import lib.deep\n",
    "lib/deep.py": "",
    "lib/b.py": "",
    "lib/warm.py": "",
    "lib/nobody.py": "",
    "data/words.txt": "x\n",
    "data/more/words.txt": "x\n",
    "tests/test_a.py": "import lib.nobody\n",
    "endpoints/endpoint.toml": "idle_timeout = '2m'\n",
    "endpoints/fixtures.py": "def shared(): ...\n",
    "endpoints/loose.py": "",
    "endpoints/group/middleware.py": "middleware = []\n",
    "endpoints/group/loose.py": "",
    "endpoints/group/a/endpoint.toml": "preload = ['lib.warm']\ninclude = ['/data']\n",
    "endpoints/group/a/handler.py": f"import lib.a\n{shop.JOB}",
    "endpoints/group/a/fixtures.py": "def model(): ...\n",
    "endpoints/group/a/module.py": "",
    "endpoints/group/a/_private/hidden.py": "",
    "endpoints/group/a/__pycache__/handler.py": "",
    "endpoints/group/a/notes.txt": "x\n",
    "endpoints/group/a/up/handler.py": shop.JOB,
    "endpoints/group/a/nested/endpoint.toml": "",
    "endpoints/group/a/nested/handler.py": shop.HTTP,
    "endpoints/b/handler.py": f"from lib import b\n{shop.JOB}",
}
A = "group/a"
COUNTS = {
    A: {
        "lib/__init__.py",
        "lib/a.py",
        "lib/deep.py",
        "lib/warm.py",
        "data/words.txt",
        "data/more/words.txt",
        "endpoints/endpoint.toml",
        "endpoints/fixtures.py",
        "endpoints/group/middleware.py",
        "endpoints/group/a/endpoint.toml",
        "endpoints/group/a/handler.py",
        "endpoints/group/a/fixtures.py",
        "endpoints/group/a/module.py",
        "endpoints/group/a/up/handler.py",
    },
    "group/a/nested": {
        "lib/__init__.py",
        "lib/warm.py",
        "endpoints/endpoint.toml",
        "endpoints/fixtures.py",
        "endpoints/group/middleware.py",
        "endpoints/group/a/endpoint.toml",
        "endpoints/group/a/fixtures.py",
        "endpoints/group/a/nested/endpoint.toml",
        "endpoints/group/a/nested/handler.py",
        "data/words.txt",
        "data/more/words.txt",
    },
    "b": {
        "lib/__init__.py",
        "lib/b.py",
        "endpoints/endpoint.toml",
        "endpoints/fixtures.py",
        "endpoints/b/handler.py",
    },
}


def prints(folder: Path, environment: str = "dev") -> dict[str, str]:
    return {endpoint.id: endpoint.fingerprint for endpoint in shop.sound(folder, environment).endpoints}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop.write(tmp_path_factory.mktemp("shop"), TREE)


def test_the_files_that_count(tree: Path) -> None:
    found = {endpoint.id: {source.path for source in endpoint.sources} for endpoint in shop.sound(tree).endpoints}

    assert found == COUNTS


@pytest.mark.parametrize("file", [name for name in TREE if name not in ("flashfw.toml", "pyproject.toml")])
def test_an_edit_changes_the_endpoints_that_the_file_counts_for_and_no_other(tree: Path, file: str) -> None:
    before = prints(tree)
    comment = "\n# an edit\n"

    (tree / file).write_text(TREE[file] + comment)
    after = prints(tree)
    (tree / file).write_text(TREE[file])

    assert changed(before, after) == {endpoint for endpoint, files in COUNTS.items() if file in files}
    assert prints(tree) == before


EDITED = st.sampled_from(sorted(set(TREE) - {"flashfw.toml", "pyproject.toml"}))


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(EDITED, st.integers(1, 3), max_size=4))
def test_any_set_of_edits_changes_what_it_must(tree: Path, blanks: dict[str, int]) -> None:
    before = prints(tree)

    for file, count in blanks.items():
        (tree / file).write_text(TREE[file] + "\n" * count)
    after = prints(tree)
    for file in blanks:
        (tree / file).write_text(TREE[file])

    assert changed(before, after) == {endpoint for endpoint, counted in COUNTS.items() if counted & blanks.keys()}


def test_the_same_bytes_elsewhere_and_later_have_the_same_fingerprints(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other" / tree.name
    shutil.copytree(tree, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))

    assert prints(copy) == prints(tree)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("flashfw.toml", "3.11", "3.12", set(COUNTS)),
        ("flashfw.toml", "[environments.prod]", "[environments.live]", set()),
        ("flashfw.toml", "[project]", "[project]\nname = 'x'", set()),
        ("pyproject.toml", "'numpy'", "'numpy>=2'", set(COUNTS)),
        ("pyproject.toml", "'httpx', 'numpy'", "'numpy', 'httpx'", set()),
        ("pyproject.toml", "'httpx', 'numpy'", "'httpx', 'numpy', 'httpx'", set()),
        ("pyproject.toml", "name = 'shop'", "name = 'shop'\nversion = '2'", set()),
    ],
)
def test_the_project_s_own_files(tree: Path, file: str, old: str, new: str, expected: set[str]) -> None:
    before = prints(tree)

    (tree / file).write_text(TREE[file].replace(old, new))
    after = prints(tree)
    (tree / file).write_text(TREE[file])

    assert changed(before, after) == expected


def test_an_environment_changes_the_endpoints_that_differ_in_it(tree: Path) -> None:
    (tree / "endpoints/b/endpoint.toml").write_text("[on.prod]\nworkers = 9\n")

    found = changed(prints(tree), prints(tree, "prod"))
    (tree / "endpoints/b/endpoint.toml").unlink()

    assert found == {"b"}


def test_a_new_file_and_a_new_endpoint(tree: Path) -> None:
    before = prints(tree)
    new = shop.write(tree, {**TREE, "endpoints/c/handler.py": shop.JOB, "endpoints/b/more.py": ""})

    after = prints(new)
    shutil.rmtree(tree / "endpoints/c")
    (tree / "endpoints/b/more.py").unlink()

    assert changed(before, after) == {"b"}
    assert after.keys() == {*before, "c"}


def test_the_index_endpoint_is_its_directory_alone(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/handler.py": shop.HTTP, "endpoints/x.py": "", "endpoints/g/y.py": "",
                          "endpoints/g/a/handler.py": shop.JOB, "endpoints/g/a/endpoint.toml": ""})  # fmt: skip

    index = shop.sound(tmp_path).endpoint("index")

    assert index is not None
    assert [source.path for source in index.sources] == ["endpoints/handler.py", "endpoints/x.py"]


def test_a_pattern_finds_files_inside_the_project_only(tmp_path: Path) -> None:
    outside = shop.write(tmp_path / "outside", {"secret.txt": "x"})
    root = shop.write(
        tmp_path / "shop", {"d/a.txt": "", "d/e/b.txt": "", "d/.git/config": "", "d/__pycache__/c.txt": ""}
    )
    (root / "d" / "link.txt").symlink_to(outside / "secret.txt")
    (root / "d" / "inner.txt").symlink_to(root / "d" / "a.txt")

    assert included(root, "d") == ("d/a.txt", "d/e/b.txt", "d/inner.txt")
    assert included(root, "d/*.txt") == ("d/a.txt", "d/inner.txt")
    assert included(root, "d/**/*.txt") == ("d/a.txt", "d/e/b.txt", "d/inner.txt")
    assert included(root, "nothing/*") == ()


@given(st.text(st.sampled_from("ab*?[]!./ -\\\0é"), max_size=8))
def test_any_pattern_that_a_key_takes_can_be_searched(tree: Path, pattern: str) -> None:
    with contextlib.suppress(Invalid):
        for taken in KEYS["include"].read([pattern]):
            included(tree, f"data/{taken}")
            included(tree, taken.strip("/"))


def test_a_pattern_that_finds_nothing_is_told(tmp_path: Path) -> None:
    text = "include = [\n  'handler.py',\n  'prompts/*.md',\n]"
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.JOB, "endpoints/a/endpoint.toml": text})

    manifest, problems = shop.compiled(tmp_path)

    assert [(problem.where, problem.what, problem.level) for problem in problems] == [
        ("endpoints/a/endpoint.toml:3", "'include' finds no file: 'endpoints/a/prompts/*.md'", "warning")
    ]
    assert manifest.endpoints[0].include == ("endpoints/a/handler.py", "endpoints/a/prompts/*.md")
