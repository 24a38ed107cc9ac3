"""`flashfw.toml`, or `[tool.flashfw]` in pyproject.toml, to the settings of a project."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from flashfw.errors import Problem
from flashfw.project import ignore, targets, tomlkeys
from flashfw.project import root as roots
from flashfw.project.keys import python_version, requirement
from flashfw.project.model import Root
from flashfw.project.root import PYPROJECT
from flashfw.project.tomlkeys import Document, KeyPath
from flashfw.project.validate import DEV
from flashfw.project.values import (
    Fault,
    Invalid,
    Read,
    boolean,
    choice,
    did_you_mean,
    fail,
    integer,
    list_of,
    matching,
    shown,
    size,
    text,
)

LOCAL = "local"
"""The server that `flashfw ship local` starts on this machine: there without being declared."""

LOCAL_URL = "http://127.0.0.1:8899"


@dataclass(frozen=True, slots=True)
class Environment:
    """Where the project can be shipped to. `cafile` is the path of its server's own authorities, from the root on."""

    name: str
    target: str = "cluster"
    url: str | None = None
    cafile: str | None = None
    registry: str | None = None
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Requirement:
    """One entry of pyproject.toml's `[project] dependencies`, and its line there."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What a build leaves out, as patterns of an ignore file, and how large a layer may be.

    `exclude` is of the project's files, `exclude_installed` of the files of installed packages.
    """

    exclude: tuple[str, ...] = ()
    exclude_installed: tuple[str, ...] = ()
    max_size_bytes: int = 10_000_000_000


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """What holds for the whole project. `python` is None where the project does not say; `python_at` is its place."""

    name: str
    python: str | None = None
    host: str = "127.0.0.1"
    port: int = 8888
    environments: tuple[Environment, ...] = ()
    dependencies: tuple[Requirement, ...] = ()
    python_at: tuple[str, int] | None = None
    build: BuildSettings = BuildSettings()

    @property
    def shippable(self) -> tuple[Environment, ...]:
        """The declared environments, and `local`, which needs no declaration and has an address without one."""
        declared = [found for found in self.environments if found.name != LOCAL]
        local = next((found for found in self.environments if found.name == LOCAL), Environment(LOCAL))
        return (*declared, replace(local, url=local.url or LOCAL_URL))

    def environment(self, name: str) -> Environment | None:
        """The environment of that name, if something can be shipped to it."""
        return next((found for found in self.shippable if found.name == name), None)


def load_settings(root: Root) -> tuple[ProjectSettings, tuple[Problem, ...]]:
    """The settings of a project with everything that is wrong in its files; what is wrong has its default."""
    problems: list[Problem] = []
    config, pyproject = _load(root, root.config.name, problems), _load(root, PYPROJECT, problems)
    reader = _Reader(config, ("tool", "flashfw") if config.file == PYPROJECT else (), problems)
    reader.unknown()
    given = reader.table(("project",), _PROJECT) | reader.table(("dev",), _DEV)
    settings = ProjectSettings(
        **{"name": roots.name(root), **given},
        environments=tuple(reader.environments()),
        dependencies=tuple(_dependencies(_Reader(pyproject, (), problems))),
        python_at=reader.place(("project", "python")) if "python" in given else None,
        build=_build(reader),
    )
    return settings, tuple(problems)


def _build(reader: _Reader) -> BuildSettings:
    found = reader.table(("build",), _BUILD)
    if "max_size" in found:
        found["max_size_bytes"] = found.pop("max_size")
    return BuildSettings(**found)


def _pattern(value: Any) -> str:
    found = text(value)
    if not ignore.is_pattern(found):
        raise fail('a pattern of an ignore file such as "data/" or "*.ipynb"', value)
    return str(found)


def _host(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9.:_-]+", value):
        raise fail('a host name or address such as "127.0.0.1"', value)
    return value


def _url(value: Any) -> str:
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or parts.username is not None or parts.query or parts.fragment:
        raise fail('an address such as "https://shop.example.com"', value)
    return str(value)


_name = matching(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "a name of letters, digits, '.', '_' and '-'")
_PROJECT: Mapping[str, Read] = {"name": _name, "python": python_version}
_DEV: Mapping[str, Read] = {"host": _host, "port": integer(1, 65_535)}
_BUILD: Mapping[str, Read] = {
    "exclude": list_of(_pattern, what="a list of patterns"),
    "exclude_installed": list_of(_pattern, what="a list of patterns"),
    "max_size": size("1MB"),
}
_ENVIRONMENT: Mapping[str, Read] = {
    "target": choice(*targets.TABLE),
    "url": _url,
    "cafile": text,
    "registry": text,
    "protected": boolean,
}
_TABLES = ("project", "dev", "build", "environments")


class _Reader:
    """Reads known keys below a prefix of one document; what it cannot read becomes a problem."""

    def __init__(self, document: Document, prefix: KeyPath, problems: list[Problem]) -> None:
        self.document = document
        self.prefix = prefix
        self.problems = problems

    def unknown(self) -> None:
        for name in self.entries(()):
            if name not in _TABLES:
                self.fault(Fault("", did_you_mean(name, _TABLES), kind="unknown"), (name,))

    def table(self, path: KeyPath, known: Mapping[str, Read]) -> dict[str, Any]:
        """The keys of one table that can be read."""
        found: dict[str, Any] = {}
        for name, value in self.entries(path).items():
            if name not in known:
                self.fault(Fault("", did_you_mean(name, known), kind="unknown"), (*path, name))
                continue
            try:
                found[name] = known[name](value)
            except Invalid as error:
                for fault in error.faults:
                    self.fault(fault, (*path, name))
        return found

    def environments(self) -> Iterator[Environment]:
        for name in self.entries(("environments",)):
            path = ("environments", name)
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
                self.fault(Fault("must be named with small letters, digits, '_' and '-'"), path)
            if name == DEV:
                self.fault(Fault("is always the laptop's and cannot be declared", "use another name"), path)
                continue
            yield Environment(name, **self.table(path, _ENVIRONMENT))

    def entries(self, path: KeyPath) -> Mapping[str, Any]:
        """The table at `path`, empty where there is none."""
        value = tomlkeys.inside(self.document.data, (*self.prefix, *path))
        if isinstance(value, dict):
            return value
        if value is not None:
            self.fault(Fault(f"must be a table, not {shown(value)}"), path)
        return {}

    def place(self, path: KeyPath) -> tuple[str, int]:
        return self.document.file, self.document.position((*self.prefix, *path)).line

    def fault(self, fault: Fault, path: KeyPath) -> None:
        where = (*self.prefix, *path, *fault.at)
        self.problems.append(self.document.problem(fault.text(path), where, hint=fault.hint))


def _load(root: Root, file: str, problems: list[Problem]) -> Document:
    """The file's document, an empty one where it is absent or cannot be read."""
    if not (root.path / file).exists():
        return Document(file, "", {})
    loaded = tomlkeys.load(root.path, file)
    if isinstance(loaded, Document):
        return loaded
    if loaded not in problems:
        problems.append(loaded)
    return Document(file, "", {})


def _dependencies(reader: _Reader) -> Iterator[Requirement]:
    """`[project] dependencies` of pyproject.toml; the rest of that table is not ours to judge."""
    path: KeyPath = ("project", "dependencies")
    value = tomlkeys.inside(reader.document.data, path)
    if value is None:
        return
    if not isinstance(value, list):
        reader.fault(Fault(f"must be a list, not {shown(value)}"), path)
        return
    for index, item in enumerate(value):
        try:
            yield Requirement(requirement(item), reader.document.position((*path, index)).line)
        except Invalid as error:
            reader.fault(error.faults[0], (*path, index))
