"""What collection knows of a tree: plain records, in the order of the walk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flashfw.errors import Problem
from flashfw.manifest import Kind


@dataclass(frozen=True, slots=True)
class Root:
    """Where a project is and which file says so (`flashfw.toml`, or `pyproject.toml` with the table)."""

    path: Path
    config: Path


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter as written; `annotation` is its source text, empty without one.

    `injected` tells that its default is `flashfw.injected`.
    """

    name: str
    annotation: str = ""
    has_default: bool = False
    kind: Literal["positional", "keyword", "args", "kwargs"] = "positional"
    injected: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """A top-level name of a handler.py that counts: `handler`, an HTTP verb, `websocket`, `app`.

    `parameters` are None where the source alone does not tell (an assignment, an import, a decorator).
    For a class they are those of `__init__`, and `methods` are the public methods of its body. `yields` tells of
    a generator.
    """

    name: str
    line: int
    form: Literal["function", "class", "assignment", "import"]
    parameters: tuple[Parameter, ...] | None = None
    methods: tuple[Definition, ...] = ()
    doc: str = ""
    yields: bool = False
    is_async: bool = False


@dataclass(frozen=True, slots=True)
class Handler:
    """One handler.py: `path` is its directory below `endpoints/` (`api/users/_id_`, empty for the top)."""

    path: str
    file: str
    module: str
    kind: Kind
    definitions: tuple[Definition, ...]
    route: str
    """The Starlette path: `/api/users/{id}`, or what a `route = "..."` constant says."""


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory of the tree: its path below `endpoints/` (empty for the top) and its files, sorted.

    Only files that are special, or that somebody may have meant to be, are listed. What is below an
    `unread` directory is not known.
    """

    path: str
    files: tuple[str, ...]
    unread: bool = False


@dataclass(frozen=True, slots=True)
class FixtureFile:
    """One fixtures.py: its directory below `endpoints/` and its fixtures, None where it does not parse."""

    path: str
    file: str
    fixtures: tuple[Definition, ...] | None


@dataclass(frozen=True, slots=True)
class EndpointTree:
    """One endpoint as found: its handlers, and the endpoint.toml files that apply, root to leaf.

    `directory` is relative to the root (`endpoints/gpu_a100`). `broken` tells that a problem touches it,
    such as a file that does not parse: it is kept, so that nobody takes it for removed, nor what was below it;
    its `handlers` are those that could be read, and `kind` is "job" where none could.
    """

    id: str
    directory: str
    kind: Kind
    handlers: tuple[Handler, ...]
    configs: tuple[str, ...]
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """A collected tree with everything that is wrong with it.

    `directories` and `fixtures` are what later stages need of the walk, so that all see the same tree.
    """

    root: Root
    name: str
    endpoints: tuple[EndpointTree, ...]
    problems: tuple[Problem, ...] = field(default=())
    directories: tuple[Directory, ...] = ()
    fixtures: tuple[FixtureFile, ...] = ()
