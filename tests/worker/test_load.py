from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from flashfw.worker.load import is_project_file
from tests.worker.harness import write

SCRIPT = """
import json, sys
from pathlib import Path
from flashfw.manifest import Function
from flashfw.worker import load

sys.path.insert(1, sys.argv[2])
load.install(Path(sys.argv[1]))
function = Function(id="a", kind="job", module=sys.argv[3], attribute=sys.argv[4], file="f.py", line=1, route="/a")
try:
    found, cls = load.find(function)
    shown = [found() if cls is None else cls.__name__, load.loaded_files(Path(sys.argv[1]))]
except (load.LoadError, ImportError) as error:
    shown = [type(error).__name__, str(error)]
print(json.dumps(shown))
"""


def load(root: Path, module: str, attribute: str = "handler") -> Any:
    """What a process of its own finds: [the result of the handler, the files], or [the error, its text]."""
    other = root / ".site"
    other.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SCRIPT, str(root), str(other), module, attribute]
    return json.loads(subprocess.run(command, check=True, capture_output=True, cwd=root).stdout)


def test_an_installed_package_of_that_name_cannot_win(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            ".site/endpoints/__init__.py": "raise RuntimeError('the wrong one')\n",
            ".site/lib/__init__.py": "NAME = 'installed'\n",
            "endpoints/a/b/handler.py": "from lib.name import NAME\ndef handler(): return NAME\n",
            "lib/name.py": "NAME = 'lib'\n",
            "lib/__init__.py": "",
        },
    )
    result, files = load(tmp_path, "endpoints.a.b.handler")
    assert result == "lib"
    assert files == ["endpoints/a/b/handler.py", "lib/__init__.py", "lib/name.py"]


def test_a_directory_wins_over_a_module_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": "def handler(): return 1\n", "endpoints/a.py": "raise RuntimeError\n"})
    assert load(tmp_path, "endpoints.a.handler")[0] == 1


def test_packages_and_relative_imports_work(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "endpoints/__init__.py": "",
            "endpoints/a/__init__.py": "VALUE = 3\n",
            "endpoints/a/handler.py": """
                from . import VALUE
                from .other import MORE

                def handler():
                    return VALUE + MORE
            """,
            "endpoints/a/other.py": "MORE = 4\n",
        },
    )
    assert load(tmp_path, "endpoints.a.handler")[0] == 7


def test_a_quick_edit_of_the_same_size_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "endpoints" / "a" / "handler.py"
    write(
        tmp_path,
        {"endpoints/a/handler.py": "import lib.x\ndef handler(): return 'old', lib.x.V\n", "lib/x.py": "V = 1\n"},
    )
    before = [os.stat(file), os.stat(tmp_path / "lib" / "x.py")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(tmp_path)], check=True)  # someone else's pyc
    assert load(tmp_path, "endpoints.a.handler")[0] == ["old", 1]
    write(
        tmp_path,
        {"endpoints/a/handler.py": "import lib.x\ndef handler(): return 'new', lib.x.V\n", "lib/x.py": "V = 2\n"},
    )
    for path, stat in zip([file, tmp_path / "lib" / "x.py"], before, strict=True):
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load(tmp_path, "endpoints.a.handler")[0] == ["new", 2]


def test_no_pyc_is_written(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": "import lib.x\ndef handler(): return 1\n", "lib/x.py": ""})
    load(tmp_path, "endpoints.a.handler")
    assert not list(tmp_path.rglob("*.pyc"))


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("missing", "f.py does not define 'missing', which a names"),
        ("handler.go", "'handler' is a function, so there is no 'handler.go'"),
        ("Model.stop", "does not define 'Model.stop'"),
    ],
)
def test_a_name_that_is_not_there(tmp_path: Path, attribute: str, text: str) -> None:
    source = "def handler(): return 1\nclass Model:\n    def go(self): ...\n"
    write(tmp_path, {"endpoints/a/handler.py": source})
    assert load(tmp_path, "endpoints.a.handler", "Model.go")[0] == "Model"
    kind, message = load(tmp_path, "endpoints.a.handler", attribute)
    assert kind == "LoadError"
    assert text in message


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": ""})
    assert load(tmp_path, "endpoints.b.handler")[0] == "ModuleNotFoundError"


@pytest.mark.parametrize(
    ("file", "belongs"),
    [
        ("/p/endpoints/a/handler.py", True),
        ("/p/lib/x.py", True),
        ("/p", True),
        ("/p/.venv/lib/python3.11/site-packages/x.py", False),
        ("/p/env/lib/python3.11/site-packages/x.py", False),
        ("/p/.flashfw/overlay/flashfw/errors.py", False),
        ("/p/./lib/x.py", True),
        ("/p/../lib/x.py", False),
        ("/other/x.py", False),
        ("/pp/x.py", False),
        ("<string>", False),
    ],
)
def test_what_belongs_to_a_project(file: str, belongs: bool) -> None:
    assert is_project_file(file, Path("/p")) is belongs


def test_what_was_imported_before_the_mark_is_none_of_the_projects(tmp_path: Path) -> None:
    write(tmp_path, {"before.py": "", "after.py": "", "again.py": ""})
    script = """
        import sys
        from pathlib import Path
        from flashfw.worker import load

        root = Path(sys.argv[1])
        load.install(root)
        import before, again
        print(*load.loaded_files(root))
        load.mark()
        del sys.modules["again"]
        import after, again
        print(*load.loaded_files(root))
    """
    command = [sys.executable, "-c", dedent(script), str(tmp_path)]
    shown = subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, text=True).stdout

    assert shown.splitlines() == ["again.py before.py", "after.py again.py"]
