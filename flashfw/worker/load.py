"""Imports a project's modules by dotted name, from source, and says which of its files are loaded.

`endpoints` belongs to the project: an installed package of that name cannot win. Files below the root
are compiled from source each time: a cached pyc is trusted by size and whole seconds, so that a quick
edit of the same size would run the old code.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from flashfw import manifest
from flashfw.errors import Exit, FlashfwError

_TOP = "endpoints"
_INSTALLED = ("site-packages", "dist-packages")


class LoadError(FlashfwError):
    """A module of the project does not define what the manifest names."""

    exit = Exit.PROBLEMS


class Kept(dict[str, bytes]):
    """Sources by the name of their module, as they were when it was imported.

    `on_read` hears the path of each before its code runs, so that nobody misses a save that follows.
    """

    def __init__(self, on_read: Callable[[str], None] = lambda path: None) -> None:
        super().__init__()
        self._on_read = on_read

    def keep(self, name: str, path: str, source: bytes) -> None:
        """The module of this name is about to run."""
        self[name] = source
        self._on_read(path)


class SourceLoader(SourceFileLoader):
    """Compiles from source, and neither reads nor writes a pyc. What it compiled is in `kept`, if there is one."""

    def __init__(self, fullname: str, path: str, kept: Kept | None = None) -> None:
        super().__init__(fullname, path)
        self._kept = kept

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        if self._kept is not None:
            self._kept.keep(fullname, path, source)
        return self.source_to_code(source, path)  # type: ignore[no-any-return, unused-ignore]


class EndpointsFinder:
    """Finds `endpoints` and everything in it below the project's root; a directory wins over a module."""

    def __init__(self, root: Path, kept: Kept | None = None) -> None:
        self._root = root
        self._kept = kept

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parts = fullname.split(".")
        if parts[0] != _TOP:
            return None
        place = self._root.joinpath(*parts)
        if place.is_dir():
            return _package(fullname, place, self._kept)
        file = place.with_name(f"{parts[-1]}.py")
        return _spec(fullname, file, self._kept) if file.is_file() else None

    def invalidate_caches(self) -> None:
        """Nothing is kept."""


def install(root: Path, kept: Kept | None = None) -> None:
    """Makes the project below `root` importable in this process, ahead of all that is installed.

    What is imported of it from now on is noted in `kept`.
    """
    root = root.resolve()
    sys.meta_path.insert(0, EndpointsFinder(root, kept))
    sys.path_hooks.insert(0, _hook(root, kept))
    if _TOP in sys.modules:
        for name in [name for name in sys.modules if name.split(".")[0] == _TOP]:
            del sys.modules[name]
    for entry in [entry for entry in sys.path_importer_cache if is_project_file(entry, root)]:
        del sys.path_importer_cache[entry]
    sys.path.insert(1, str(root))
    importlib.invalidate_caches()


def refresh(root: Path) -> None:
    """Have the project's folders looked at anew: files may have come within the time that tells their states apart."""
    for entry, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, FileFinder) and is_project_file(os.path.abspath(entry), root):
            finder.invalidate_caches()


def find(function: manifest.Function) -> tuple[Any, type | None]:
    """What `function.attribute` names in its module, and for a method the class that it is taken from.

    Raises:
        LoadError: the module defines no such name.
        Exception: whatever importing the module raises.
    """
    module = importlib.import_module(function.module)
    owner, _, method = function.attribute.partition(".")
    target = _attribute(module, owner, function)
    if not method:
        return target, None
    if not isinstance(target, type):
        raise LoadError(f"{function.file}: '{owner}' is {_kind(target)}, so there is no '{function.attribute}'")
    _attribute(target, method, function)
    return target, target


def mark() -> None:
    """What is imported now is none of the project's, in this process and in those that are forked off it."""
    sys.modules[__name__] = sys.modules.pop(__name__)


def loaded_files(root: Path) -> list[str]:
    """The project's files that are imported now, relative to the root, sorted."""
    base = root.resolve()
    files = {getattr(module, "__file__", None) for module in _imported()}
    return sorted(str(Path(file).relative_to(base)) for file in files if file and is_project_file(file, base))


def _imported() -> list[ModuleType]:
    """The modules that were imported after this one, or after `mark`.

    The others are not even looked at: that alone would have each of them copied for a forked worker.
    """
    while True:
        found: list[ModuleType] = []
        try:
            for name in reversed(sys.modules):
                if name == __name__:
                    break
                found.append(sys.modules[name])
        except (RuntimeError, KeyError):  # another thread imports something
            continue
        return found


def is_project_file(file: str, root: Path) -> bool:
    """Whether a path lies below the root and belongs to the project: not to an environment or a dot directory."""
    # By text: a worker asks this of each module that it has imported, before it is ready.
    base = str(root).rstrip(os.sep)
    if not f"{file}{os.sep}".startswith(f"{base}{os.sep}"):
        return False
    parts = file[len(base) :].split(os.sep)
    return not any(part in _INSTALLED or (part.startswith(".") and part != ".") for part in parts)


def _package(fullname: str, place: Path, kept: Kept | None) -> ModuleSpec:
    init = place / "__init__.py"
    if init.is_file():
        return _spec(fullname, init, kept, [str(place)])
    spec = ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = [str(place)]
    return spec


def _spec(fullname: str, file: Path, kept: Kept | None, locations: list[str] | None = None) -> ModuleSpec:
    loader = SourceLoader(fullname, str(file), kept)
    spec = spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=locations)
    assert spec is not None, f"no spec for {file}"
    return spec


def _hook(root: Path, kept: Kept | None) -> Any:
    loader: Any = partial(SourceLoader, kept=kept)
    finder = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (loader, [".py"]))

    def project_path_hook(entry: str) -> Any:
        if not is_project_file(os.path.abspath(entry), root):  # sys.path may be relative
            raise ImportError(f"{entry} does not belong to the project", path=entry)
        return finder(entry)

    return project_path_hook


def _attribute(holder: Any, name: str, function: manifest.Function) -> Any:
    try:
        return getattr(holder, name)
    except AttributeError:
        raise LoadError(
            f"{function.file} does not define '{function.attribute}', which {function.id} names",
            hint="was the file changed after this release was made?",
        ) from None


def _kind(value: Any) -> str:
    return "a function" if callable(value) else f"of type {type(value).__name__}"
