"""The examples in the docstrings of the project's modules."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import flashfw.project

MODULES = sorted(found.name for found in pkgutil.iter_modules(flashfw.project.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"flashfw.project.{name}")).failed == 0
