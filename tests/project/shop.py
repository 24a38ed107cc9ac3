"""Writes small projects to disk and compiles them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flashfw.errors import Problem
from flashfw.manifest import Manifest
from flashfw.project import root
from flashfw.project.collect import collect
from flashfw.project.compile import compile as compile_project

JOB = "def handler(prompt: str) -> str:\n    return prompt\n"
HTTP = "def get() -> str:\n    return 'x'\n"


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Writes the files of a project; an empty flashfw.toml is there unless one is given."""
    for name, text in {"flashfw.toml": "", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def compiled(folder: Path, environment: str = "dev") -> tuple[Manifest, tuple[Problem, ...]]:
    """The manifest of the project in a folder, and the problems of all stages."""
    project = collect(root.find(folder))
    manifest, problems = compile_project(project, environment=environment)
    return manifest, (*project.problems, *problems)


def sound(folder: Path, environment: str = "dev") -> Manifest:
    """The manifest of a project that has no problem."""
    manifest, problems = compiled(folder, environment)
    assert [str(problem) for problem in problems] == []
    return manifest


def told(folder: Path, environment: str = "dev") -> list[str]:
    """The problems of a project, as a person reads them."""
    return [str(problem) for problem in compiled(folder, environment)[1]]
