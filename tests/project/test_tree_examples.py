"""The examples in the docstrings of the tree's modules."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("names", "routes", "ignore", "walk", "source", "handlers", "endpoints", "conflicts", "root", "select")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"flashfw.project.{name}")).failed == 0
