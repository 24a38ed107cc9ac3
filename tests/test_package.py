"""The house rules that a reader of the design relies on: who imports whom, what is public, how long things are."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flashfw
from tests import imports
from tests.imports import Import

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parent.parent
PYPROJECT = REPOSITORY / "pyproject.toml"
PACKAGE = REPOSITORY / "flashfw"
FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [found for file in FILES for found in imports.read(file, PACKAGE)]

LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "durations": set(),
    "whole": set(),
    "manifest": {"errors"},
    "project": {"manifest", "durations", "errors"},
    "bundle": {"manifest", "whole", "errors"},
    "worker": {"manifest", "errors"},
    "cluster": {"bundle", "worker", "manifest", "durations", "whole", "errors"},
    "client": {"manifest", "whole", "errors"},
    "build": {"project", "bundle", "manifest", "whole", "errors"},
    "ship": {"build", "bundle", "client", "project", "manifest", "errors"},
    "serve": {"bundle", "cluster", "worker", "manifest", "whole", "errors"},
    "dev": {"build", "client", "cluster", "project", "worker", "manifest", "errors"},
    "__main__": {"cli"},
    "cli": {
        *("ship", "serve", "dev", "build", "bundle", "client", "cluster", "project", "worker", "manifest"),
        *("durations", "errors"),
    },
}
"""What each part may import, besides itself."""

BELOW_THE_GATEWAY = {
    *("dispatch", "environments", "explaining", "jobs", "listening", "metrics", "placement", "schedules", "webhooks"),
    *(
        "workers",
        "claim",
        "clock",
        "events",
        "housekeeping",
        "job_files",
        "site",
        "staging",
        "state",
        "trouble",
        "watch",
    ),
}
"""Rooms of the cluster that know nothing of how requests are answered."""

WITH_PAGES = {
    "auth": {"pages"},
    "logs": {"pages"},
    "metrics": {"pages"},
    "secrets": {"pages"},
    "releases": {"pages", "releases"},
}
"""Rooms with pages of their own, and the modules of them that answer requests; the rest could be asked by anybody."""

STANDARD = sys.stdlib_module_names | {"annotationlib", "tomllib"}
"""The standard library, with what newer versions of Python than this one have."""

WITH_PYDANTIC = {"pydantic_core", "typing_extensions"}
"""What pydantic always brings, so that nobody declares it."""

BESIDE_USER_CODE = {"pydantic", "starlette", "python_multipart", "anyio", "h11", "wsproto"} | WITH_PYDANTIC
"""What an endpoint's environment holds for the worker."""

DISTRIBUTIONS = {"multipart": "python-multipart", "python_multipart": "python-multipart", "pynvml": "nvidia-ml-py"}
"""Where the name of a module is not the name of what installs it."""


def test_each_part_imports_only_what_the_design_allows() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if (source := _part(found.module))
        and (target := _part(found.target))
        and target not in LAYERS[source] | {source}
    ]

    assert wrong == []


def test_nothing_below_the_gateway_imports_it() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if found.target.startswith("flashfw.cluster.gateway") and found.module.split(".")[2:3] != ["gateway"]
        if found.module.startswith("flashfw.cluster.") and found.module.split(".")[2] in BELOW_THE_GATEWAY
    ]

    assert wrong == []


def test_of_rooms_with_pages_nothing_else_imports_the_gateway() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if found.target.startswith("flashfw.cluster.gateway") and found.module.startswith("flashfw.cluster.")
        if (path := found.module.split(".")[2:])[0] in WITH_PAGES and path[-1] not in WITH_PAGES[path[0]]
    ]

    assert wrong == []


def test_every_part_is_in_the_table() -> None:
    assert {_part(imports.module_name(file, PACKAGE)) for file in FILES} - {""} <= LAYERS.keys()


def test_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {imports.module_name(file, PACKAGE): set() for file in FILES}
    packages = {imports.module_name(file, PACKAGE) for file in FILES if file.name == "__init__.py"}
    for found in IMPORTS:
        if found.target in graph.keys() - packages and found.module not in packages:
            graph[found.module].add(found.target)

    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_beside_user_code_the_worker_needs_little() -> None:
    shipped = [found for found in IMPORTS if _part(found.module) in ("", "errors", "manifest", "worker")]

    assert {_top(found) for found in shipped} - STANDARD - {"flashfw"} <= BESIDE_USER_CODE


def test_errors_and_manifest_need_the_standard_library_only() -> None:
    low = [found for found in IMPORTS if _part(found.module) in ("errors", "manifest")]

    assert {_top(found) for found in low} - STANDARD == {"flashfw"}


def test_every_import_is_declared() -> None:
    declared = _declared()
    third = {_top(found): found for found in IMPORTS if _top(found) not in STANDARD | WITH_PYDANTIC | {"flashfw"}}
    undeclared = [str(found) for name, found in third.items() if DISTRIBUTIONS.get(name, name) not in declared]

    assert undeclared == []


def test_every_import_of_the_tests_is_declared() -> None:
    elsewhere = REPOSITORY / "tests" / "vendor" / "clients"  # they run in environments of their own
    files = [file for file in sorted((REPOSITORY / "tests").rglob("*.py")) if elsewhere not in file.parents]
    found = {_top(found) for file in files for found in imports.read(file, REPOSITORY / "tests")}
    scripts = (REPOSITORY / "benchmarks").glob("*.py")
    ours = {
        "flashfw",
        "tests",
        "endpoints",
        "lib",
        "elsewhere",
        *(file.stem for file in (*files, *scripts)),
    }  # no elsewhere
    declared = _declared() | _names(tomllib.loads(PYPROJECT.read_text("utf-8"))["dependency-groups"]["dev"])

    assert {DISTRIBUTIONS.get(name, name) for name in found - STANDARD - WITH_PYDANTIC - ours} <= declared


def test_only_the_entry_points_end_the_process() -> None:
    entries = {f"flashfw/worker/{name}.py" for name in ("main", "run_worker")}
    found = [
        f"{file.relative_to(REPOSITORY)}:{node.lineno}"
        for file in FILES
        if _part(imports.module_name(file, PACKAGE)) != "cli" and file.relative_to(REPOSITORY).as_posix() not in entries
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "exit", "quit", "SystemExit")
    ]

    assert found == []


@pytest.mark.parametrize("name", [name for name in flashfw.__all__ if name != "__version__"])
def test_a_public_name_is_there_and_explained(name: str) -> None:
    value = getattr(flashfw, name)

    assert _docstring(name) or value.__doc__
    assert name in dir(flashfw)


def test_public_names_are_the_same_for_a_type_checker() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    seen = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert seen - {None} == set(flashfw.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'jobb'"):
        flashfw.jobb  # noqa: B018


def test_the_import_is_light() -> None:
    program = "import sys, flashfw; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert "flashfw" in loaded
    assert not {"pydantic", "starlette", "uvicorn", "click", "anyio", "asyncio"} & set(loaded)


def test_help_imports_no_pydantic() -> None:
    program = (
        "import sys; from flashfw.cli.main import run; code = run(['--help'])\n"
        "print(code, sorted({'pydantic', 'starlette', 'uvicorn', 'rich'} & sys.modules.keys()), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stderr == "0 []\n"


def test_verbs_that_one_waits_for_import_little() -> None:
    heavy = {"pydantic", "starlette", "uvicorn", "prometheus_client", "cryptography", "asyncio", "sqlite3"}
    heavy |= {"packaging", "importlib.metadata", "flashfw.cluster.gateway", "flashfw.cluster.jobs"}
    verbs = ", ".join(f"flashfw.cli.{verb}" for verb in ("build", "check", "ship", "status", "call"))
    program = f"import sys, {verbs}; print(*sorted({heavy} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout == "\n"


def test_functions_are_short() -> None:
    lengths = sorted((length, place) for file in FILES for length, place in _functions(file))
    ninetieth = lengths[len(lengths) * 9 // 10][0]

    assert [f"{place}: {length} lines" for length, place in lengths if length > 60] == []
    assert ninetieth <= 30


def test_files_are_short() -> None:
    lengths = {str(file.relative_to(REPOSITORY)): len(file.read_text("utf-8").splitlines()) for file in FILES}

    assert {file: lines for file, lines in lengths.items() if lines > 450} == {}


def test_the_version_is_the_same_everywhere() -> None:
    assert _project_table()["version"] == flashfw.__version__


def _part(module: str) -> str:
    """`cluster` of `flashfw.cluster.jobs.model`; empty for the package itself and for what is not ours."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "flashfw" else ""


def _top(found: Import) -> str:
    return found.target.partition(".")[0]


def _project_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    return table


def _declared() -> set[str]:
    project = _project_table()
    extras = project.get("optional-dependencies", {}).values()
    return _names([*project["dependencies"], *(line for extra in extras for line in extra)])


def _names(requirements: list[str]) -> set[str]:
    """The distributions of requirement lines, as they are written and as a module would be."""
    written = {re.split(r"[^A-Za-z0-9._-]", line)[0] for line in requirements}
    return written | {name.replace("-", "_") for name in written}


def _docstring(name: str) -> str:
    """The string below an assignment, which explains a value as a docstring does a function."""
    module = sys.modules[flashfw._PUBLIC[name]]
    body = ast.parse(Path(str(module.__file__)).read_text("utf-8")).body
    for node, after in zip(body, body[1:], strict=False):
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == name and isinstance(after, ast.Expr):
            return ast.unparse(after.value)
    return ""


def _functions(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield length, f"{file.relative_to(REPOSITORY)}:{node.lineno} {node.name}"
