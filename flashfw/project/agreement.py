"""The values of one endpoint that must fit together, each of them fine by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flashfw.errors import Problem
from flashfw.manifest import Volume
from flashfw.project import hardware
from flashfw.project.cascade import Items, Layer, Nodes, Setting, Settings, find
from flashfw.project.functions import FunctionTree
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
            yield settings[name].problem((), what, level="warning")


def of_layers(layers: Iterable[Layer]) -> Iterator[Problem]:
    """Variables that are unset where nothing is inherited: `DEBUG = false` was most likely meant as a value."""
    known: set[str] = set()
    for layer in layers:
        table = layer.values.get("env")
        if table is False:
            known.clear()
        for name, value in table.items() if isinstance(table, dict) else ():
            if value is False and name not in known:
                what = f"'env.{name} = false' takes an inherited value away, and there is none"
                hint = 'a variable is text: write "false" in quotes, or remove the line'
                yield layer.document.problem(what, (*layer.path, "env", name), hint=hint, level="warning")
            (known.discard if value is False else known.add)(name)


def of_volumes(endpoints: Iterable[tuple[EndpointTree, Settings]]) -> dict[str, list[Problem]]:
    """By endpoint id: one volume that two endpoints describe in different ways. Both sides are told."""
    first: dict[str, _Place] = {}
    found: dict[str, list[Problem]] = {}
    for tree, settings in endpoints:
        for index, volume in enumerate(settings["volume"].value if "volume" in settings else ()):
            place = _Place(tree.id, settings["volume"], index)
            rival = first.setdefault(volume.name, place)
            for problem in _differences(rival, place):
                for side in (rival.endpoint, place.endpoint):
                    found.setdefault(side, []).append(problem)
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """One volume of one endpoint."""

    endpoint: str
    setting: Setting
    index: int

    @property
    def volume(self) -> Volume:
        volume: Volume = self.setting.value[self.index]
        return volume

    def path(self, key: str) -> KeyPath:
        """Where a part of it is: a volume may be written as a table or as a list of them."""
        return (self.index, key) if isinstance(self.setting.node, Items) else (key,)


def _differences(one: _Place, other: _Place) -> Iterator[Problem]:
    sizes = [show_size(size) for place in (one, other) if (size := place.volume.size_bytes) is not None]
    centers = [center for place in (one, other) if (center := place.volume.datacenter) is not None]
    for key, values in (("size", sizes), ("datacenter", centers)):
        if len(set(values)) == 2:
            there = find(one.setting.node, one.path(key))
            what = (
                f"volume '{other.volume.name}' has {key} {values[1]} here and {values[0]} at {there.file}:{there.line}"
            )
            hint = "a name is one volume in the whole project: say the same in both, or rename one"
            yield other.setting.problem(other.path(key), what, hint=hint)


def of_functions(
    tree: EndpointTree, nodes: Nodes, functions: Sequence[tuple[FunctionTree, Settings]]
) -> Iterator[Problem]:
    """What does not fit the functions of an endpoint; `nodes` are the values at its top level."""
    for name in SINGLE:
        if name in nodes and len(functions) > 1 and tree.kind == "job":
            origin = nodes[name].origin
            what = f"'{name}' is for one function, and '{tree.id}' has {len(functions)}"
            yield origin.document.problem(what, origin.path, hint="put it under [function.NAME]")
    if tree.kind != "job":
        for _, settings in functions:
            yield from _job_only(tree, settings)


def _job_only(tree: EndpointTree, settings: Settings) -> Iterator[Problem]:
    for name in sorted(JOB_KEYS & settings.keys()):
        setting = settings[name]
        if name in SINGLE:
            yield setting.problem((), f"'{name}' is for jobs, and '{tree.id}' answers HTTP")
        elif setting.origin.file == f"{tree.directory}/endpoint.toml":
            # From a file above it is a default for jobs that only passes by here.
            what = f"'{name}' has no effect: it is for jobs, and '{tree.id}' answers HTTP"
            yield setting.problem((), what, level="warning")


def _variables(settings: Settings) -> Iterator[Problem]:
    if "env" not in settings or "secrets" not in settings:
        return
    for name in sorted(settings["env"].value.keys() & settings["secrets"].value.keys()):
        plain = find(settings["env"].node, (name,))
        what = f"'{name}' is a secret and a plain variable too ({plain.file}:{plain.line})"
        yield settings["secrets"].problem((name,), what)


def _volumes(settings: Settings) -> Iterator[Problem]:
    if "volume" not in settings:
        return
    seen: set[str] = set()
    centers = settings["datacenters"].value if "datacenters" in settings else ()
    for index, volume in enumerate(settings["volume"].value):
        if volume.name in seen:
            yield settings["volume"].problem((index, "name"), f"there are two volumes '{volume.name}'")
        seen.add(volume.name)
        if volume.datacenter and centers and volume.datacenter not in centers:
            what = f"volume '{volume.name}' is in {volume.datacenter}, which 'datacenters' leaves out"
            yield settings["volume"].problem((index, "datacenter"), what)


def _disk(settings: Settings) -> Iterator[Problem]:
    if "disk" not in settings or "gpu" in settings:
        return
    cpu = hardware.find_cpu(settings["cpu"].value if "cpu" in settings else hardware.DEFAULT_CPU)
    if settings["disk"].value > cpu.disk_gb * 10**9:
        size = show_size(settings["disk"].value)
        yield settings["disk"].problem((), f"'disk' is {size}, and a {cpu.id} has at most {cpu.disk_gb}GB")
