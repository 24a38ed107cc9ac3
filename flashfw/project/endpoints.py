"""Which endpoint each handler belongs to: the nearest above it, by the rule of endpoints and groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flashfw.errors import Problem
from flashfw.project import names, routes
from flashfw.project.handlers import Reading, mixed
from flashfw.project.model import EndpointTree, Handler


@dataclass(frozen=True, slots=True)
class Layout:
    """The directories below `endpoints/` that have an `endpoint.toml`; the empty path stands for the top."""

    configured: frozenset[str]
    groups: frozenset[str]

    @classmethod
    def of(cls, configured: Iterable[str]) -> Layout:
        """The layout; a group is a top directory without `endpoint.toml` that has one somewhere below it."""
        paths = frozenset(configured)
        tops = {path.partition("/")[0] for path in paths if "/" in path}
        return cls(paths, frozenset(tops - paths))

    def owner(self, path: str) -> str | None:
        """The directory of the endpoint that a handler in `path` belongs to, None if a group leaves it out.

        >>> layout = Layout.of(["ml/vision"])
        >>> [layout.owner(path) for path in ("ml/vision/crop", "ml/text", "api/users/_id_", "")]
        ['ml/vision', None, 'api', '']
        """
        for above in names.upwards(path):
            if above in self.configured and "/" in above:
                return above
        top = path.partition("/")[0]
        return None if top in self.groups else top

    def configs(self, directory: str) -> tuple[str, ...]:
        """The endpoint.toml files that apply to an endpoint, root to leaf.

        >>> Layout.of(["", "ml", "ml/vision"]).configs("ml/vision")
        ('endpoints/endpoint.toml', 'endpoints/ml/endpoint.toml', 'endpoints/ml/vision/endpoint.toml')
        """
        paths = reversed(tuple(names.upwards(directory)))
        return tuple(routes.file(path, names.CONFIG) for path in paths if path in self.configured)


def gather(readings: Iterable[Reading], layout: Layout) -> tuple[list[EndpointTree], list[Problem]]:
    """The endpoints of a tree in its order, with the problems of groups and kinds.

    A handler that a group leaves out is kept under an endpoint by the group's name, so that nobody
    takes it for removed.
    """
    members: dict[str, list[Reading]] = {}
    problems: list[Problem] = []
    for reading in readings:
        directory = layout.owner(reading.path)
        if directory is None:
            directory = reading.path.partition("/")[0]
            if reading.handler is not None or reading.problems:  # else a directory that cannot be read
                problems.append(_stray(reading.path, directory, layout))
        members.setdefault(directory, []).append(reading)
    ordered = sorted(members.items(), key=lambda member: member[0].split("/"))
    trees = [_tree(directory, found, layout) for directory, found in ordered]
    problems.extend(problem for tree in trees for problem in _kinds(tree.handlers))
    if "" in members and names.INDEX in members:
        problems.append(_two_indexes())
    return trees, problems


def _tree(directory: str, readings: list[Reading], layout: Layout) -> EndpointTree:
    handlers = tuple(reading.handler for reading in readings if reading.handler is not None)
    return EndpointTree(
        id=routes.node_id(directory),
        directory=routes.directory(directory),
        kind=handlers[0].kind if handlers else "job",
        handlers=handlers,
        configs=layout.configs(directory),
        broken=len(handlers) < len(readings),
    )


def _kinds(handlers: tuple[Handler, ...]) -> Iterator[Problem]:
    for other in handlers[1:]:
        first = handlers[0]
        if other.kind != first.kind:
            yield mixed((first.definitions[0], first.kind, first.file), (other.definitions[0], other.kind, other.file))


def _stray(path: str, group: str, layout: Layout) -> Problem:
    children = sorted(child for child in layout.configured if child.startswith(f"{group}/"))
    whole = routes.file(group, names.CONFIG)
    if path == group:
        mend = f"move the handler into one of its endpoints ({', '.join(children)})"
    else:
        mend = f"add {routes.file(path, names.CONFIG)} to make it an endpoint of its own"
    return Problem(
        f"belongs to no endpoint: {group!r} is a group, since {routes.file(children[0], names.CONFIG)} "
        f"exists and {whole} does not",
        routes.file(path),
        hint=f"{mend}, or add {whole} to make {group!r} one endpoint",
    )


def _two_indexes() -> Problem:
    top, directory = routes.file(""), f"{names.ENDPOINTS}/{names.INDEX}"
    what = f"the endpoint of {top} is called {names.INDEX!r} too"
    return Problem(what, directory, hint="rename the directory", also=((top, None),))


def unused(configured: Iterable[str], owners: Iterable[str]) -> Iterator[Problem]:
    """A warning for each endpoint.toml that no handler is in or below of."""
    held = {path for owner in owners for path in names.upwards(owner)}
    for path in configured:
        if path not in held:
            what = f"configures nothing: there is no {names.HANDLER} in or below its directory"
            yield Problem(what, routes.file(path, names.CONFIG), level="warning")
