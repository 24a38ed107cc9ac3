"""The values of one endpoint that must fit together, each of them fine by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flashfw.errors import Level, Problem
from flashfw.project import hardware
from flashfw.project.cascade import Nodes, Setting, Settings, find
from flashfw.project.keys import JOB_KEYS
from flashfw.project.model import EndpointTree
from flashfw.project.tomlkeys import KeyPath
from flashfw.project.values import show_size

SINGLE = ("batch", "schedule")
"""Function keys that make sense for one function and so stand at the top only where there is one."""


def of_endpoint(settings: Settings) -> Iterator[Problem]:
    """What does not fit together among the keys of an endpoint."""
    yield from _variables(settings)
    yield from _volumes(settings)
    yield from _disk(settings)
    if "gpu" in settings or "cpu" in settings:
        return
    for name in ("gpu_count", "cuda"):
        if name in settings:
            what = f"'{name}' has no effect: the endpoint has no 'gpu'"
            yield _problem(settings[name], (), what, level="warning")


def of_functions(tree: EndpointTree, nodes: Nodes, functions: Sequence[Settings]) -> Iterator[Problem]:
    """What does not fit the functions of an endpoint; `nodes` are the values at its top level."""
    for name in SINGLE:
        if name in nodes and len(functions) > 1 and tree.kind == "job":
            origin = nodes[name].origin
            what = f"'{name}' is for one function, and '{tree.id}' has {len(functions)}"
            yield origin.document.problem(what, origin.path, hint="put it under [function.NAME]")
    if tree.kind != "job":
        for settings in functions:
            yield from _job_only(tree, settings)


def _job_only(tree: EndpointTree, settings: Settings) -> Iterator[Problem]:
    for name in sorted(JOB_KEYS & settings.keys()):
        setting = settings[name]
        if name in SINGLE:
            yield _problem(setting, (), f"'{name}' is for jobs, and '{tree.id}' answers HTTP")
        elif setting.origin.file == f"{tree.directory}/endpoint.toml":
            # From a file above it is a default for jobs that only passes by here.
            what = f"'{name}' has no effect: it is for jobs, and '{tree.id}' answers HTTP"
            yield _problem(setting, (), what, level="warning")


def _variables(settings: Settings) -> Iterator[Problem]:
    if "env" not in settings or "secrets" not in settings:
        return
    for name in sorted(settings["env"].value.keys() & settings["secrets"].value.keys()):
        plain = find(settings["env"].node, (name,))
        what = f"'{name}' is a secret and a plain variable too ({plain.file}:{plain.line})"
        yield _problem(settings["secrets"], (name,), what)


def _volumes(settings: Settings) -> Iterator[Problem]:
    if "volume" not in settings:
        return
    seen: set[str] = set()
    centers = settings["datacenters"].value if "datacenters" in settings else ()
    for index, volume in enumerate(settings["volume"].value):
        if volume.name in seen:
            yield _problem(settings["volume"], (index, "name"), f"there are two volumes '{volume.name}'")
        seen.add(volume.name)
        if volume.datacenter and centers and volume.datacenter not in centers:
            what = f"volume '{volume.name}' is in {volume.datacenter}, which 'datacenters' leaves out"
            yield _problem(settings["volume"], (index, "datacenter"), what)


def _disk(settings: Settings) -> Iterator[Problem]:
    if "disk" not in settings or "gpu" in settings:
        return
    cpu = hardware.find_cpu(settings["cpu"].value if "cpu" in settings else hardware.DEFAULT_CPU)
    if settings["disk"].value > cpu.disk_gb * 10**9:
        size = show_size(settings["disk"].value)
        yield _problem(settings["disk"], (), f"'disk' is {size}, and a {cpu.id} has at most {cpu.disk_gb}GB")


def _problem(setting: Setting, path: KeyPath, what: str, *, level: Level = "error") -> Problem:
    origin = find(setting.node, path)
    return origin.document.problem(what, origin.path, level=level)
