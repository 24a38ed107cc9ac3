"""From a tree of files to a `Project`: every endpoint that is there and every problem there is, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flashfw.errors import Problem
from flashfw.project import conflicts, endpoints, files, handlers, injection, middleware, names, root, routes, servers
from flashfw.project.fixtures import Fixtures
from flashfw.project.functions import functions as of_endpoint
from flashfw.project.handlers import Reading
from flashfw.project.injection import Flaw
from flashfw.project.model import Directory, EndpointTree, FixtureFile, Handler, Project, Root
from flashfw.project.walk import walk


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
    readings = [found for item in tree.directories for found in _read(place.path, item)]
    configured = tree.having(names.CONFIG)
    layout = endpoints.Layout.of(configured)
    trees, group_problems = endpoints.gather(readings, layout)
    every = [handler for item in trees for handler in item.handlers]
    functions = [function for item in trees for function in of_endpoint(item)]
    fixtures, module_problems = _modules(place.path, tree, every)
    found = [item for reading in readings for item in reading.problems]
    problems = [
        *([doubled] if (doubled := root.doubled(place)) else []),
        *tree.problems,
        *_names([*(reading.path for reading in readings), *configured], tree.directories),
        *found,
        *group_problems,
        *conflicts.find(every, functions, _upwards(reading.path for reading in readings)),
        *module_problems,
        *endpoints.unused(configured, (reading.path for reading in readings)),
        *_misspelt(tree.directories),
    ]
    flaws = injection.find(every, functions, Fixtures(fixtures))
    faults = _faults(problems, flaws, tree, layout)
    return Project(
        root=place,
        name=root.name(place),
        endpoints=tuple(replace(item, broken=item.broken or faults.touch(item)) for item in trees),
        problems=tuple(sorted(dict.fromkeys([*problems, *(flaw.problem for flaw in flaws)]), key=_order)),
        directories=tree.directories,
        fixtures=fixtures,
    )


def _walk(folder: Path) -> _Tree:
    found = list(walk(folder))
    directories = [item for item in found if isinstance(item, Directory)]
    directories.sort(key=lambda directory: directory.path.split("/"))
    return _Tree(tuple(directories), tuple(item for item in found if isinstance(item, Problem)))


def _read(folder: Path, directory: Directory) -> Iterator[Reading]:
    if directory.unread:
        yield Reading(directory.path, None)
        return
    if server := servers.read(folder, directory):
        yield server
    if names.HANDLER in directory.files:
        module = files.load(folder, routes.file(directory.path))
        if isinstance(module, Problem):
            yield Reading(directory.path, None, (module,))
        else:
            yield handlers.read(directory.path, module.source)


def _modules(folder: Path, tree: _Tree, every: Iterable[Handler]) -> tuple[tuple[FixtureFile, ...], list[Problem]]:
    """The fixtures, and what is wrong with their files and with those of middleware."""
    http = frozenset(above for item in every if item.kind != "job" for above in names.upwards(item.path))
    fixtures: list[FixtureFile] = []
    problems: list[Problem] = []
    for name in (names.FIXTURES, names.MIDDLEWARE):
        for path in tree.having(name):
            file = routes.file(path, name)
            module = files.load(folder, file)
            if isinstance(module, Problem):
                problems.append(module)
            elif name == names.MIDDLEWARE:
                problems += middleware.flaws(file, module.source, is_used=path in http)
            if name == names.FIXTURES:
                fixtures.append(FixtureFile(path, file, None if isinstance(module, Problem) else module.fixtures))
    return tuple(fixtures), problems


def _names(paths: Iterable[str], directories: Sequence[Directory]) -> Iterator[Problem]:
    modules = {
        f"{item.path}/{file[:-3]}".lstrip("/") for item in directories for file in item.files if file[-3:] == ".py"
    }
    for path in _upwards(paths):
        name = path.rpartition("/")[2]
        place = routes.directory(path)
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


@dataclass(frozen=True, slots=True)
class _Faults:
    """Where errors are, to tell which endpoints cannot work.

    `files` are handlers, `owners` directories of endpoints. `above` are directories where something is wrong for
    all handlers below, `above_http` those where it is for HTTP alone.
    """

    files: frozenset[str]
    owners: frozenset[str]
    above: tuple[str, ...]
    above_http: tuple[str, ...]

    def touch(self, tree: EndpointTree) -> bool:
        if tree.directory in self.owners:
            return True
        above = self.above if tree.kind == "job" else (*self.above, *self.above_http)
        return any(handler.file in self.files or handler.file.startswith(above) for handler in tree.handlers)


def _faults(problems: Iterable[Problem], flaws: Iterable[Flaw], tree: _Tree, layout: endpoints.Layout) -> _Faults:
    errors = [item for item in problems if item.level == "error"]
    places = dict.fromkeys(place for item in errors for place in (item.file, *(file for file, _ in item.also)))
    directories = {routes.directory(item.path) for item in tree.directories}
    above: dict[str, list[str]] = {names.FIXTURES: [], names.MIDDLEWARE: [], "": []}
    owners: set[str] = set()
    for place in places:
        folder, _, name = place.rpartition("/")
        if place in directories:
            above[""].append(f"{place}/")
        if name in above and name:
            above[name].append(f"{folder}/")
        elif place.split("/")[0] == names.ENDPOINTS:
            owners.add(_owner(place if place in directories else folder, layout))
    return _Faults(
        files=frozenset(file for flaw in flaws for file in flaw.files),
        owners=frozenset(owners),
        above=(*above[""], *above[names.FIXTURES]),
        above_http=tuple(above[names.MIDDLEWARE]),
    )


def _owner(directory: str, layout: endpoints.Layout) -> str:
    path = directory.partition("/")[2]
    owner = layout.owner(path)
    return routes.directory(path.partition("/")[0] if owner is None else owner)


def _order(problem: Problem) -> tuple[list[str], int, str]:
    return problem.file.split("/"), problem.line or 0, problem.what
