"""Every endpoint of a project to its effective values in one environment, each with where it is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from flashfw.errors import Problem, UsageError
from flashfw.project import agreement, calls, routes, servers, targets, tomlkeys, validate
from flashfw.project import cascade as cascades
from flashfw.project.cascade import Node, Nodes, Setting, Settings
from flashfw.project.fixtures import Fixtures
from flashfw.project.functions import FunctionTree, functions
from flashfw.project.keys import FUNCTION_KEYS, KEYS
from flashfw.project.model import EndpointTree, Project
from flashfw.project.names import CONFIG
from flashfw.project.settings import Environment, ProjectSettings, load_settings
from flashfw.project.tomlkeys import Document
from flashfw.project.values import Fault, Invalid, did_you_mean


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """What holds for one endpoint and, by function id, for each of its functions."""

    tree: EndpointTree
    settings: Settings
    functions: tuple[tuple[FunctionTree, Settings], ...]
    problems: tuple[Problem, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether everything of it could be read."""
        return not self.tree.broken and not any(problem.level == "error" for problem in self.problems)


@dataclass(frozen=True, slots=True)
class Configuration:
    """All endpoints of a project in one environment. `problems` are those of every file, each once."""

    settings: ProjectSettings
    environment: str
    endpoints: tuple[EndpointConfig, ...]
    problems: tuple[Problem, ...]


def configure(project: Project, *, environment: str = validate.DEV) -> Configuration:
    """The effective values of every endpoint, and all that is wrong in the files that they come from.

    Raises:
        UsageError: the project declares no such environment.
    """
    settings, problems = load_settings(project.root)
    declared = [found.name for found in settings.shippable]
    if environment not in (validate.DEV, *declared):
        hint = did_you_mean(environment, declared) or f"there is: {', '.join([validate.DEV, *declared])}"
        raise UsageError(f"the project declares no environment '{environment}'", hint=hint)
    files = _Files(project, declared)
    target = settings.environment(environment)
    endpoints = _agreed([_endpoint(tree, files, environment) for tree in project.endpoints], target)
    of_endpoints = (problem for endpoint in endpoints for problem in endpoint.problems)
    every = (*problems, *(problem for found in files.problems.values() for problem in found), *of_endpoints)
    return Configuration(settings, environment, endpoints, tuple(dict.fromkeys(every)))


def _agreed(endpoints: Sequence[EndpointConfig], target: Environment | None) -> tuple[EndpointConfig, ...]:
    """The endpoints with what they contradict one another in, and what the target makes of them."""
    clashes = agreement.of_volumes([(endpoint.tree, endpoint.settings) for endpoint in endpoints])
    agreed: list[EndpointConfig] = []
    for endpoint in endpoints:
        found = list(clashes.get(endpoint.tree.id, ()))
        if target is not None:
            for settings in (endpoint.settings, *(values for _, values in endpoint.functions)):
                found += targets.check(settings, target=target.target, environment=target.name)
        problems = tuple(dict.fromkeys([*endpoint.problems, *found]))
        agreed.append(replace(endpoint, problems=problems) if found else endpoint)
    return tuple(agreed)


class _Files:
    """The endpoint.toml files of a project, each read and checked once, whether or not an endpoint uses it."""

    def __init__(self, project: Project, environments: Collection[str]) -> None:
        self.documents: dict[str, Document] = {}
        self.problems: dict[str, tuple[Problem, ...]] = {}
        self.names = {tree.id: functions(tree) for tree in project.endpoints}
        self.fixtures = Fixtures(project.fixtures)
        every = (routes.file(item.path, CONFIG) for item in project.directories if CONFIG in item.files)
        users: dict[str, list[EndpointTree]] = {file: [] for file in every}
        for tree in project.endpoints:
            for file in tree.configs:
                users.setdefault(file, []).append(tree)
        for file, trees in users.items():
            loaded = tomlkeys.load(project.root.path, file)
            if isinstance(loaded, Problem):
                self.problems[file] = (loaded,)
                continue
            self.documents[file] = loaded
            known = None if not trees or any(tree.broken for tree in trees) else self._known(trees)
            self.problems[file] = validate.check(loaded, environments=environments, functions=known)

    def _known(self, trees: Iterable[EndpointTree]) -> set[str]:
        return {function.name for tree in trees for function in self.names[tree.id]}


def _endpoint(tree: EndpointTree, files: _Files, environment: str) -> EndpointConfig:
    found = files.names[tree.id]
    problems = [problem for file in tree.configs for problem in files.problems[file]]
    if any(problem.level == "error" for problem in problems):
        return EndpointConfig(tree, {}, tuple((function, {}) for function in found), tuple(problems))
    merged = cascades.cascade([files.documents[file] for file in tree.configs], environment)
    own = {name: node for name, node in merged.nodes.items() if name not in FUNCTION_KEYS}
    settings = _read(own, problems)
    per_function = tuple((function, _read(merged.function(function.name), problems)) for function in found)
    problems += agreement.of_layers(merged.layers)
    problems += agreement.of_endpoint(settings)
    problems += servers.problems(tree, settings)
    misplaced = list(agreement.of_functions(tree, merged.nodes, per_function))
    for function, values in per_function if not misplaced else ():
        misplaced += calls.of_function(function, values, files.fixtures)
    return EndpointConfig(tree, settings, per_function, tuple(dict.fromkeys([*problems, *misplaced])))


def _read(nodes: Nodes, problems: list[Problem]) -> Settings:
    """The nodes as values; each file by itself was fine, so a fault here comes of what they are together."""
    settings: dict[str, Setting] = {}
    for name, node in nodes.items():
        try:
            settings[name] = Setting(KEYS[name].read(cascades.raw(node)), node)
        except Invalid as error:
            problems += (_fault(name, node, fault) for fault in error.faults)
    return settings


def _fault(name: str, node: Node, fault: Fault) -> Problem:
    origin = cascades.find(node, fault.at)
    return origin.document.problem(fault.text((name,)), origin.path, hint=fault.hint)
