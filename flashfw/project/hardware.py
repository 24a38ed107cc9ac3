"""What a person writes for hardware to what the catalogue calls it; the catalogue itself is `hardware.json`.

A GPU is named in one of five ways: the exact device, a short name that fits one device, a pool, a least
memory, or "any". The order in which they are written is the order of preference and is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flashfw.project.names import closest
from flashfw.project.values import Fault, Invalid, did_you_mean, fail, shown

DEFAULT_CPU = "cpu3g-2-8"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU; a slice is a part of one and is meant only where it is named."""

    name: str
    memory_gb: int
    pool: str = ""
    vendor: str = "nvidia"
    slice: bool = False


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU worker type."""

    id: str
    vcpus: int
    memory_gb: int
    disk_gb: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that can be asked for, in the order of the data file."""

    devices: tuple[Device, ...]
    pools: tuple[str, ...]
    cpus: tuple[Cpu, ...]
    datacenters: tuple[str, ...]
    cuda: tuple[str, ...]


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The catalogue that came with this version of flashfw."""
    data = json.loads(Path(__file__).with_name("hardware.json").read_text(encoding="utf-8"))
    return Catalogue(
        devices=tuple(Device(**device) for device in data["devices"]),
        pools=tuple(pool["id"] for pool in data["pools"]),
        cpus=tuple(Cpu(**cpu) for cpu in data["cpus"]),
        datacenters=tuple(data["datacenters"]),
        cuda=tuple(data["cuda"]),
    )


@lru_cache(maxsize=512)
def find_gpus(name: str) -> tuple[str, ...]:
    """The full names of the devices that `name` stands for.

    Memory and "any" mean whole NVIDIA devices, the smallest first.

    Raises:
        Invalid: no device is meant, or a short name fits several.

    >>> find_gpus("4090"), find_gpus("AMPERE_48")
    (('NVIDIA GeForce RTX 4090',), ('NVIDIA A40', 'NVIDIA RTX A6000'))
    """
    devices = catalogue().devices
    if exact := [device for device in devices if device.name.lower() == name.strip().lower()]:
        return _names(exact)
    if name.strip().upper() in catalogue().pools:
        return _names(device for device in devices if device.pool == name.strip().upper() and not device.slice)
    if name.strip().lower() == "any":
        return _by_memory(0)
    if name.lstrip().startswith((">", "=", "<")):
        return _at_least(name)
    return _by_short_name(name)


def gpus(value: Any) -> tuple[str, ...]:
    """A reader of the `gpu` key: one name or an ordered list to full device names, each once.

    Raises:
        Invalid: a name that `find_gpus` refuses, at its place in the list.
    """
    names = value if isinstance(value, list) else [value]
    found: dict[str, None] = {}
    faults: list[Fault] = []
    for index, name in enumerate(names):
        try:
            found.update(dict.fromkeys(_gpu(name)))
        except Invalid as error:
            at = (index,) if isinstance(value, list) else ()
            faults += (Fault(fault.what, fault.hint, at) for fault in error.faults)
    if faults:
        raise Invalid(*faults)
    if not found:
        raise Invalid(Fault("must name at least one device", "leave it out for a CPU endpoint"))
    return tuple(found)


def cpu(value: Any) -> str:
    """A reader of the `cpu` key: the id of a CPU type."""
    return _listed(value, tuple(known.id for known in catalogue().cpus), "a CPU type", example=DEFAULT_CPU)


def datacenter(value: Any) -> str:
    """A reader of a data center's id; case and underscores do not matter."""
    if isinstance(value, str):
        value = value.upper().replace("_", "-")
    return _listed(value, catalogue().datacenters, "a data center", example="EU-RO-1")


def cuda(value: Any) -> str:
    """A reader of the least CUDA version."""
    if isinstance(value, float):
        raise fail(f'a string, "{value}"', value)
    return _listed(value, catalogue().cuda, "a CUDA version", example="12.8")


def find_cpu(name: str) -> Cpu:
    """The CPU type of that id."""
    return next(known for known in catalogue().cpus if known.id == name)


def _gpu(name: Any) -> tuple[str, ...]:
    if not isinstance(name, str) or not name.strip():
        raise fail('a device, a pool, a memory such as ">=48GB", or "any"', name)
    return find_gpus(name)


def _names(devices: Iterable[Device]) -> tuple[str, ...]:
    return tuple(device.name for device in devices)


def _by_memory(least_gb: float) -> tuple[str, ...]:
    whole = (device for device in catalogue().devices if device.vendor == "nvidia" and not device.slice)
    fitting = [device for device in whole if device.memory_gb >= least_gb]
    return _names(sorted(fitting, key=lambda device: device.memory_gb))


def _at_least(name: str) -> tuple[str, ...]:
    found = re.fullmatch(r"\s*>=\s*([0-9]+(?:\.[0-9]+)?)\s*GB\s*", name, re.IGNORECASE)
    if found is None:
        raise fail('a memory such as ">=48GB"', name)
    if names := _by_memory(float(found[1])):
        return names
    most = max(device.memory_gb for device in catalogue().devices if device.vendor == "nvidia")
    raise Invalid(Fault(f"must be a memory that a device has, not {shown(name)}", f"the largest has {most} GB"))


_NOISE = {"nvidia", "geforce", "tesla", "amd", "instinct", "rtx", "generation", "edition"}


@lru_cache(maxsize=512)
def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9.]+", name.lower()))


def _by_short_name(name: str) -> tuple[str, ...]:
    """A short name is some words of a device's name. "4080" is the 4080 and not the 4080 SUPER,
    because nothing but words that all of its kind have is left out."""
    asked = _words(name)
    fitting = [device for device in catalogue().devices if asked and asked <= _words(device.name)]
    if "mig" not in asked:
        fitting = [device for device in fitting if not device.slice]
    whole = [device for device in fitting if _words(device.name) - _NOISE == asked - _NOISE]
    if len(whole or fitting) == 1:
        return _names(whole or fitting)
    if fitting:
        names = ", ".join(f'"{device.name}"' for device in fitting[:6]) + (", ..." if len(fitting) > 6 else "")
        what = f"must name one device, and {shown(name)} is ambiguous: it fits {len(fitting)}"
        raise Invalid(Fault(what, f"write one or more of {names}"))
    raise Invalid(Fault(f"must name a device of the catalogue, not {shown(name)}", _nearest_gpu(name)))


def _nearest_gpu(name: str) -> str:
    known: dict[str, str] = {pool.lower(): pool for pool in catalogue().pools} | {"any": "any"}
    for device in catalogue().devices:
        short = " ".join(word for word in re.findall(r"[A-Za-z0-9.]+", device.name) if word.lower() not in _NOISE)
        known[short.lower()] = short
        known[device.name.lower()] = device.name
    near = closest(name.lower(), known)
    if near is None:
        return 'write a device ("L40S"), a pool ("AMPERE_48"), a memory (">=48GB") or "any"'
    return f"did you mean '{known[near]}'?"


def _listed(value: Any, known: tuple[str, ...], what: str, *, example: str) -> str:
    if not isinstance(value, str):
        raise fail(f'{what} such as "{example}"', value)
    if value not in known:
        hint = did_you_mean(value, known) or f"one of {', '.join(known)}"
        raise Invalid(Fault(f"must be {what} of the catalogue, not {shown(value)}", hint))
    return value
