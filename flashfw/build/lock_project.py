"""The project's configuration of uv, and the pyproject.toml that hands it and a set of requirements to uv.

uv reads sources and indexes of a pyproject only for what that file itself requires. So each environment gets a
pyproject of its own in a folder aside, with the project's `[tool.uv]` in it and every path made absolute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashfw.build.lock import toml_value
from flashfw.bundle.needs import canonical
from flashfw.bundle.uv import read_toml, without_credentials

NAME = "flashfw-environment"
"""What uv calls the project that asks; whoever shows a message puts the endpoint in its place."""

_INDEXES = frozenset(
    ("index", "index-url", "extra-index-url", "find-links", "no-index", "index-strategy", "keyring-provider")
    + ("allow-insecure-host", "no-binary", "no-binary-package", "no-build", "no-build-package", "no-build-isolation")
    + ("no-build-isolation-package", "extra-build-dependencies", "extra-build-variables", "config-settings")
    + ("config-settings-package", "build-constraint-dependencies", "required-version", "torch-backend")
)
"""What says where archives come from and how they are built; it counts when they are installed, too."""

_CHOICE = frozenset(
    ("constraint-dependencies", "override-dependencies", "exclude-dependencies", "dependency-metadata", "resolution")
    + ("prerelease", "exclude-newer", "exclude-newer-package", "no-sources")
)
"""What says which versions are chosen; void once they are."""


@dataclass(frozen=True, slots=True)
class UvProject:
    """What `[tool.uv]`, or a `uv.toml`, of a project says of packages.

    `table` is what counts, with absolute paths; `sources` are by canonical name. `config` is the `uv.toml` that goes
    before the table. `identity` tells two of them apart that may choose otherwise, wherever the project lies.
    """

    root: Path
    identity: str = ""
    table: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None

    def options(self) -> list[str]:
        """What every call of uv is given."""
        return [] if self.config is None else ["--config-file", str(self.config)]


def find(root: Path) -> UvProject:
    """What is configured for the project at `root`: there, or in the nearest folder above that says something."""
    for folder in (root, *root.parents):
        table = _table(folder)
        config = folder / "uv.toml"
        if config.is_file():
            return _read(root, folder, table, config)
        if table:
            return _read(root, folder, table, None)
    return UvProject(root)


def write(
    folder: Path, project: UvProject, requirements: Sequence[str], *, python: str, direct: Collection[str] | None = None
) -> None:
    """Write the pyproject.toml of an environment into `folder`.

    With `direct` it is for what was chosen before: versions are given, and of the sources only those that pin one
    of these names to an index count.
    """
    lines = ["[project]", f'name = "{NAME}"', 'version = "0"', f'requires-python = "=={python}.*"', "dependencies = ["]
    lines += (f"    {toml_value(line)}," for line in requirements)
    lines += ["]", "", "[tool.uv]"]
    sources = project.sources
    if direct is not None:
        sources = {name: source for name, source in sources.items() if name in direct and _is_of_index(source)}
    entries = {**project.table, "sources": sources}
    counted = entries.keys() - (_CHOICE if direct is not None else set())
    lines += (f"{name} = {toml_value(entries[name])}" for name in sorted(counted))
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read(root: Path, folder: Path, table: Mapping[str, Any], config: Path | None) -> UvProject:
    sources = table.get("sources")
    sources = sources if isinstance(sources, Mapping) else {}
    chosen = {} if config else {name: table[name] for name in sorted(table.keys() & (_INDEXES | _CHOICE))}
    said = [chosen, sources, read_toml(config) if config else {}]
    return UvProject(
        root,
        without_credentials(json.dumps(said, sort_keys=True, default=str)) if any(said) else "",
        _absolute(chosen, folder),
        {canonical(name): _placed(name, source, folder, table) for name, source in sources.items()},
        config,
    )


def _table(folder: Path) -> Mapping[str, Any]:
    tool = read_toml(folder / "pyproject.toml").get("tool")
    table = tool.get("uv") if isinstance(tool, Mapping) else None
    return table if isinstance(table, Mapping) else {}


def _absolute(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The table with the paths of local indexes made absolute."""
    made = dict(table)
    for name in ("index-url", "extra-index-url", "find-links"):
        value = made.get(name)
        if isinstance(value, str):
            made[name] = _address(value, folder)
        elif isinstance(value, list):
            made[name] = [_address(item, folder) for item in value]
    if isinstance(made.get("index"), list):
        made["index"] = [
            {**found, "url": _address(found.get("url"), folder)} if isinstance(found, Mapping) else found
            for found in made["index"]
        ]
    return made


def _address(value: Any, folder: Path) -> Any:
    return value if not isinstance(value, str) or "://" in value else os.path.normpath(folder / value)


def _placed(name: str, source: Any, folder: Path, table: Mapping[str, Any]) -> Any:
    """A source with its path made absolute; a member of the workspace is a path as well."""
    if isinstance(source, list):
        return [_placed(name, item, folder, table) for item in source]
    if not isinstance(source, Mapping):
        return source
    if source.get("workspace") is True and (member := _member(name, folder, table)) is not None:
        return {"path": str(member), **{key: source[key] for key in ("marker", "extra", "group") if key in source}}
    if isinstance(source.get("path"), str):
        kept = {key: value for key, value in source.items() if key != "editable"}  # nothing editable is shipped
        return {**kept, "path": os.path.normpath(folder / source["path"])}
    return source


def _member(name: str, folder: Path, table: Mapping[str, Any]) -> Path | None:
    """The folder of a member of the workspace."""
    return next((path for path, found in _members(folder, table) if canonical(found) == canonical(name)), None)


def _members(folder: Path, table: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    workspace = table.get("workspace")
    patterns: Iterable[Any] = workspace.get("members", ()) if isinstance(workspace, Mapping) else ()
    for pattern in patterns:
        for path in sorted(folder.glob(str(pattern))):
            found = read_toml(path / "pyproject.toml").get("project", {}).get("name")
            if isinstance(found, str):
                yield path, found


def _is_of_index(source: Any) -> bool:
    entries = source if isinstance(source, list) else [source]
    return any(isinstance(entry, Mapping) and "index" in entry for entry in entries)
