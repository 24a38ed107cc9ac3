"""The imports of a package, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """`module` imports `target` (absolute dotted names) in that line."""

    module: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(file: Path, package: Path) -> str:
    """`flashfw/jobs/model.py` as `flashfw.jobs.model`, a package's `__init__.py` as the package."""
    parts = [package.name, *file.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(file: Path, package: Path) -> Iterator[Import]:
    """Every import of a file, those inside functions and under TYPE_CHECKING too; relative ones made absolute."""
    module = module_name(file, package)
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, is_package=file.name == "__init__.py")
            yield from (Import(module, _target(base, alias.name, package), node.lineno) for alias in node.names)


def _base(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, node.module] if node.module else kept)


def _target(base: str, name: str, package: Path) -> str:
    """`from base import name` imports `base.name` where that is a module of the package, else `base`."""
    inside = package.parent.joinpath(*base.split("."), name)
    return f"{base}.{name}" if inside.is_dir() or inside.with_suffix(".py").is_file() else base
