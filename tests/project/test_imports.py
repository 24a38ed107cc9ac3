from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.errors import Problem
from flashfw.project.files import Files, module
from flashfw.project.imports import Import
from tests.project import shop


def closure(folder: Path, *paths: str) -> set[str]:
    return set(Files(folder).closure(paths))


def found(source: str) -> tuple[Import, ...]:
    read = module(source.encode(), "x.py")
    assert not isinstance(read, Problem)
    return read.imports


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a, b.c as d", [("a", "", 0), ("b.c", "", 0)]),
        ("from a.b import c, d", [("a.b", "c", 0), ("a.b", "d", 0)]),
        ("from . import x\nfrom .y import z\nfrom ..w import *", [("", "x", 1), ("y", "z", 1), ("w", "*", 2)]),
        ("def f():\n  import a\n  class C:\n    import b", [("a", "", 0), ("b", "", 0)]),
        ("with x:\n  import a\nfor i in y:\n  import b\nelse:\n  import c", [("a", "", 0), ("b", "", 0), ("c", "", 0)]),
        ("match x:\n  case 1:\n    import a\n  case _:\n    import b", [("a", "", 0), ("b", "", 0)]),
        ("'import x'\n# import y\nz = 'from q import r'", []),
    ],
)
def test_the_imports_of_a_file(source: str, expected: list[tuple[str, str, int]]) -> None:
    assert [(item.module, item.name, item.level) for item in found(source)] == expected


@pytest.mark.parametrize("source", ["import a\ndef (", "import a\x00", "x = " + "(" * 5000])
def test_a_file_that_does_not_parse_is_a_problem_and_still_counts(tmp_path: Path, source: str) -> None:
    shop.write(tmp_path, {"lib/x.py": source})

    file = Files(tmp_path).file("lib/x.py")

    assert file is not None
    assert file.imports == ()
    assert file.problem is not None
    assert file.problem.file == "lib/x.py"


@pytest.mark.parametrize(
    ("source", "optional"),
    [
        ("import a", False),
        ("try:\n  import a\nexcept ImportError:\n  b = 1", True),
        ("try:\n  import a\nexcept (OSError, ModuleNotFoundError):\n  b = 1", True),
        ("try:\n  b = 1\nexcept ImportError:\n  import a", True),
        ("try:\n  import a\nexcept OSError:\n  b = 1", False),
        ("try:\n  import a\nfinally:\n  b = 1", False),
        ("from typing import TYPE_CHECKING as T\nif typing.TYPE_CHECKING:\n  import a", True),
        ("if TYPE_CHECKING:\n  b = 1\nelse:\n  import a", False),
    ],
)
def test_what_a_file_also_works_without(source: str, optional: bool) -> None:
    assert [item.optional for item in found(source) if item.module == "a"] == [optional]


TREE = {
    "endpoints/a/handler.py": "import lib.deep.x\nfrom lib import y, name\nfrom .helper import f\nimport os, torch\n",
    "endpoints/a/helper.py": "from . import other\nfrom ... import top\n",
    "endpoints/a/other.py": "",
    "lib/__init__.py": "import single\n",
    "lib/deep/__init__.py": "",
    "lib/deep/x.py": "from ..y import z\n",
    "lib/y.py": "",
    "lib/unused.py": "",
    "single.py": "import lib\n",
    "namespace/part.py": "",
    "both.py": "",
    "both/__init__.py": "",
    "shadow.py": "",
    "shadow/x.py": "",
}


def test_the_closure_is_every_project_file_that_an_import_runs(tmp_path: Path) -> None:
    assert closure(shop.write(tmp_path, TREE), "endpoints/a/handler.py") == {
        "endpoints/a/handler.py",
        "endpoints/a/helper.py",
        "endpoints/a/other.py",
        "lib/__init__.py",
        "lib/deep/__init__.py",
        "lib/deep/x.py",
        "lib/y.py",
        "single.py",
    }


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("namespace.part", ("namespace/part.py",)),
        ("lib.deep", ("lib/__init__.py", "lib/deep/__init__.py")),
        ("lib.deep.nothing", ("lib/__init__.py", "lib/deep/__init__.py")),
        ("both", ("both/__init__.py",)),
        ("shadow.x", ("shadow.py",)),
        ("single.x", ("single.py",)),
        ("json", ()),
    ],
)
def test_what_importing_a_module_runs(tmp_path: Path, name: str, files: tuple[str, ...]) -> None:
    assert Files(shop.write(tmp_path, TREE)).module(name) == files


def test_files_that_import_each_other_end(tmp_path: Path) -> None:
    shop.write(tmp_path, {"a.py": "import b", "b.py": "import a"})

    assert closure(tmp_path, "a.py", "gone.py") == {"a.py", "b.py"}


def test_more_dots_than_folders_lead_nowhere(tmp_path: Path) -> None:
    assert closure(shop.write(tmp_path, {"a.py": "from .... import b", "b.py": ""}), "a.py") == {"a.py"}
