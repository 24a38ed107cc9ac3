"""What each target makes of each key of `endpoint.toml`: one table, from which check, the documentation and tests go.

`honoured` keys work as documented; `noted` ones have no or another effect, which is said; `refused` ones would
change what a handler means, so that the target does not take the endpoint. Keys without a row are honoured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from flashfw.errors import Problem
from flashfw.manifest import Endpoint, Function, Volume
from flashfw.project.cascade import Setting, Settings

Verdict = Literal["honoured", "noted", "refused"]


class Row(NamedTuple):
    """What a target makes of one key, and why."""

    verdict: Verdict
    why: str


HONOURED = Row("honoured", "")
_CONTAINERS = Row("noted", "it is for targets that place containers, and the cluster starts processes")

TABLE: Mapping[str, Mapping[str, Row]] = {
    "cluster": {
        "gpu": Row(
            "noted", "of these types where the server has any, else any GPU; where it has none, workers run on the CPU"
        ),
        "cpu": Row("noted", "workers share the CPUs of the server"),
        "system_dependencies": Row("noted", "they are looked for on the server, not installed"),
        "image": _CONTAINERS,
        "disk": _CONTAINERS,
        "registry": _CONTAINERS,
        "datacenters": _CONTAINERS,
        "flashboot": _CONTAINERS,
        "volume": Row("noted", "a volume is a folder of the server: size, mount and datacenter have no effect"),
    }
}
"""By target, then by key."""

_DEFAULTS = {field.name: field.default for record in (Endpoint, Function) for field in dataclasses.fields(record)}


def row(target: str, key: str) -> Row:
    """What a target makes of a key.

    >>> row("cluster", "workers").verdict, row("cluster", "image").verdict
    ('honoured', 'noted')
    """
    return TABLE[target].get(key, HONOURED)


def check(settings: Settings, *, target: str, environment: str) -> Iterator[Problem]:
    """A warning for each key that is set and only noted, an error for each that is refused."""
    for name, setting in settings.items():
        found = row(target, name)
        if found.verdict != "honoured" and _matters(name, setting):
            effect = "is refused by" if found.verdict == "refused" else "at"
            what = f"'{name}' {effect} '{environment}' (target {target}): {found.why}"
            hint = f"set it for another environment, or unset it: [on.{environment}] {name} = false"
            level: Any = "error" if found.verdict == "refused" else "warning"
            yield setting.problem((), what, hint=hint if found.verdict == "refused" else "", level=level)


def _matters(name: str, setting: Setting) -> bool:
    """Whether the value is another than what the target does anyway."""
    if name == "volume":
        return any(volume != Volume(name=volume.name) for volume in setting.value)
    return bool(setting.value != _DEFAULTS.get(name))
