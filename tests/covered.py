"""Tables that say which test tries what, and that each of these tests is there."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).parent


def untested(covered: Mapping[str, str], file: Path) -> set[str]:
    """Names in the table that are no test of the file, nor, as `folder/test_x.py::test_y`, of another one."""
    named = {name for names in covered.values() for name in names.split()}
    files = {name.partition("::")[0] for name in named if "::" in name}
    elsewhere = {f"{name}::{test}" for name in files for test in _tests_of(TESTS / name)}
    return named - _tests_of(file) - elsewhere


def _tests_of(file: Path) -> set[str]:
    found = ast.walk(ast.parse(file.read_text()))
    return {item.name for item in found if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
