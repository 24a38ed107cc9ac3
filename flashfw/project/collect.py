"""From a tree of files to a `Project`: every endpoint that is there and every problem there is, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flashfw.errors import Problem
from flashfw.project import conflicts, endpoints, handlers, names, root, routes, source
from flashfw.project.handlers import Reading
from flashfw.project.model import EndpointTree, Project, Root
from flashfw.project.walk import Directory, walk


@dataclass(frozen=True, slots=True)
class _Tree:
    """The walk's answer: the directories, and what could not be walked."""

    directories: tuple[Directory, ...]
    problems: tuple[Problem, ...]

    def having(self, name: str) -> tuple[str, ...]:
        return tuple(directory.path for directory in self.directories if name in directory.files)


def collect(place: Root) -> Project:
    """Reads a project without importing or running any of its code.

    A broken file never hides the rest: its endpoint is kept with `broken` set, and the problem says
    where. The result is the same for the same files, in the order of their paths.

    >>> collect(root.find(Path("examples/shop"))).endpoints[0].id  # doctest: +SKIP
    'api'
    """
    tree = _walk(place.path)
    readings = [_read(place.path, path) for path in tree.having(names.HANDLER)]
    configured = tree.having(names.CONFIG)
    layout = endpoints.Layout.of(configured)
    trees, group_problems = endpoints.gather(readings, layout)
    found = [item for reading in readings for item in reading.problems]
    problems = [
        *([doubled] if (doubled := root.doubled(place)) else []),
        *tree.problems,
        *_names([*(reading.path for reading in readings), *configured], tree.directories),
        *found,
        *group_problems,
        *conflicts.find(trees, _upwards(reading.path for reading in readings)),
        *_modules(place.path, tree),
        *endpoints.unused(configured, (reading.path for reading in readings)),
        *_misspelt(tree.directories),
    ]
    unique = tuple(sorted(dict.fromkeys(problems), key=_order))
    return Project(place, root.name(place), tuple(_mark(item, unique) for item in trees), unique)


def _walk(folder: Path) -> _Tree:
    found = list(walk(folder))
    directories = [item for item in found if isinstance(item, Directory)]
    directories.sort(key=lambda directory: directory.path.split("/"))
    return _Tree(tuple(directories), tuple(item for item in found if isinstance(item, Problem)))


def _read(folder: Path, path: str) -> Reading:
    file = routes.file(path)
    module = source.load(folder, file)
    if isinstance(module, Problem):
        return Reading(path, None, (module,))
    try:
        return handlers.read(path, source.read(module, handlers.COUNTED))
    except RecursionError:
        return Reading(path, None, (Problem("is nested too deeply to be read", file, 1),))


def _modules(folder: Path, tree: _Tree) -> Iterator[Problem]:
    for name in (names.FIXTURES, names.MIDDLEWARE):
        for path in tree.having(name):
            file = routes.file(path, name)
            module = source.load(folder, file)
            if isinstance(module, Problem):
                yield module


def _names(paths: Iterable[str], directories: Sequence[Directory]) -> Iterator[Problem]:
    modules = {
        f"{item.path}/{file[:-3]}".lstrip("/") for item in directories for file in item.files if file[-3:] == ".py"
    }
    for path in _upwards(paths):
        name = path.rpartition("/")[2]
        place = routes.file(path, "")
        if flaw := names.flaw(name):
            yield Problem(flaw[0], place, hint=flaw[1])
        if path in names.RESERVED:
            what = f"'/{name}' belongs to flashfw, so no endpoint can have it"
            yield Problem(what, place, hint=f"rename it; reserved are {', '.join(names.RESERVED)}")
        if path in modules:
            what = f"{name!r} is a directory with handlers and a module, {place}.py: only one of them can be imported"
            yield Problem(what, place, hint="rename one of them", also=((f"{place}.py", None),))


def _upwards(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths and their parents, the top left out, each once."""
    found: dict[str, None] = {}
    for path in paths:
        parts = path.split("/") if path else []
        found.update(dict.fromkeys("/".join(parts[:end]) for end in range(1, len(parts) + 1)))
    return tuple(found)


def _misspelt(directories: Iterable[Directory]) -> Iterator[Problem]:
    for directory in directories:
        for file in directory.files:
            meant = names.misspelt(file)
            if meant and meant not in directory.files:
                what = f"{file!r} is no special name, so this is an ordinary file"
                yield Problem(what, routes.file(directory.path, file), hint=f"did you mean {meant!r}?", level="warning")


def _mark(tree: EndpointTree, problems: Iterable[Problem]) -> EndpointTree:
    places = {
        place for item in problems if item.level == "error" for place in (item.file, *(file for file, _ in item.also))
    }
    broken = tree.broken or any(_touches(place, handler.file) for handler in tree.handlers for place in places)
    return replace(tree, broken=broken)


def _touches(place: str, file: str) -> bool:
    special = place.rpartition("/")[2] in (names.FIXTURES, names.MIDDLEWARE)
    folder = place.rpartition("/")[0] if special else place
    return file == place or file.startswith(f"{folder}/")


def _order(problem: Problem) -> tuple[list[str], int, str]:
    return problem.file.split("/"), problem.line or 0, problem.what
