from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.project import hardware
from flashfw.project.hardware import catalogue, find_gpus, gpus
from flashfw.project.values import Invalid

DEVICES = st.sampled_from(catalogue().devices)


def refusal(value: Any, read: Any = gpus) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        read(value)
    fault = caught.value.faults[0]
    return fault.what, fault.hint


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("L40S", "NVIDIA L40S"),
        ("l40s", "NVIDIA L40S"),
        ("L40", "NVIDIA L40"),
        ("L4", "NVIDIA L4"),
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("4080", "NVIDIA GeForce RTX 4080"),
        ("4080 Super", "NVIDIA GeForce RTX 4080 SUPER"),
        ("3090 Ti", "NVIDIA GeForce RTX 3090 Ti"),
        ("H200", "NVIDIA H200"),
        ("H200 NVL", "NVIDIA H200 NVL"),
        ("B200", "NVIDIA B200"),
        ("A100 PCIe", "NVIDIA A100 80GB PCIe"),
        ("A100-SXM4", "NVIDIA A100-SXM4-80GB"),
        ("RTX 4000 Ada", "NVIDIA RTX 4000 Ada Generation"),
        ("RTX PRO 6000 Server", "NVIDIA RTX PRO 6000 Blackwell Server Edition"),
        ("MIG 1g.24gb", "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb"),
        ("MI300X", "AMD Instinct MI300X OAM"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB"),
    ],
)
def test_a_name_of_one_device(name: str, device: str) -> None:
    assert (device,) == find_gpus(name)


@given(DEVICES)
def test_every_exact_name_is_its_device(device: hardware.Device) -> None:
    assert (device.name,) == find_gpus(device.name) == find_gpus(device.name.lower())


@pytest.mark.parametrize("name", ["A100", "H100", "V100", "6000"])
def test_an_ambiguous_name_lists_the_candidates(name: str) -> None:
    what, hint = refusal(name)

    assert f'must name one device, and "{name}" is ambiguous' in what
    fitting = [device for device in catalogue().devices if name in device.name.replace("-", " ").split()]
    assert len(fitting) > 1
    assert all(device.name in hint for device in fitting if not device.slice)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("B20", "did you mean 'B200'?"),
        ("L40SS", "did you mean 'L40S'?"),
        ("AMPER_48", "did you mean 'AMPERE_48'?"),
        ("zzzz", 'write a device ("L40S"), a pool ("AMPERE_48"), a memory (">=48GB") or "any"'),
    ],
)
def test_an_unknown_name(name: str, hint: str) -> None:
    assert (f'must name a device of the catalogue, not "{name}"', hint) == refusal(name)


def test_a_pool_is_its_whole_devices() -> None:
    assert find_gpus("ampere_48") == ("NVIDIA A40", "NVIDIA RTX A6000")
    assert not any("MIG" in name for name in find_gpus("BLACKWELL_96"))


@given(st.integers(0, 288))
def test_memory_means_every_whole_device_that_has_it_smallest_first(gb: int) -> None:
    memory = {device.name: device.memory_gb for device in catalogue().devices}

    found = find_gpus(f">={gb}GB")

    wanted = {d.name for d in catalogue().devices if d.memory_gb >= gb and d.vendor == "nvidia" and not d.slice}
    assert wanted == set(found)
    assert sorted(found, key=memory.__getitem__) == list(found)


def test_any_is_every_memory() -> None:
    assert find_gpus("any") == find_gpus(">= 0 gb")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (">=500GB", 'must be a memory that a device has, not ">=500GB"'),
        ("<48GB", 'must be a memory such as ">=48GB", not "<48GB"'),
        (48, 'must be a device, a pool, a memory such as ">=48GB", or "any", not 48'),
        ([], "must name at least one device"),
    ],
)
def test_no_gpu(value: Any, what: str) -> None:
    assert what == refusal(value)[0]


def test_the_order_of_a_list_is_kept_and_a_device_counts_once() -> None:
    assert gpus(["L40S", "AMPERE_48", "A40"]) == ("NVIDIA L40S", "NVIDIA A40", "NVIDIA RTX A6000")


def test_each_fault_of_a_list_is_told_at_its_place() -> None:
    with pytest.raises(Invalid) as caught:
        gpus(["A100", "L40S", "nope"])

    assert [fault.at for fault in caught.value.faults] == [(0,), (2,)]


def test_cpu_datacenter_cuda() -> None:
    assert hardware.cpu("cpu5c-2-4") == "cpu5c-2-4"
    assert hardware.datacenter("eu_ro_1") == "EU-RO-1"
    assert hardware.cuda("12.8") == "12.8"


@pytest.mark.parametrize(
    ("read", "value", "what", "hint"),
    [
        (
            hardware.cpu,
            "cpu3g-2-9",
            'must be a CPU type of the catalogue, not "cpu3g-2-9"',
            "did you mean 'cpu3g-2-8'?",
        ),
        (hardware.cpu, 2, 'must be a CPU type such as "cpu3g-2-8", not 2', ""),
        (hardware.datacenter, "EU-RO-2", 'must be a data center of the catalogue, not "EU-RO-2"', "EU-RO-1"),
        (hardware.cuda, "12.10", 'must be a CUDA version of the catalogue, not "12.10"', "12.1"),
        (hardware.cuda, 12.8, 'must be a string, "12.8", not 12.8', ""),
    ],
)
def test_not_in_the_catalogue(read: Any, value: Any, what: str, hint: str) -> None:
    found = refusal(value, read)

    assert what == found[0]
    assert hint in found[1]


def test_the_default_cpu_and_every_pool_are_in_the_catalogue() -> None:
    assert hardware.find_cpu(hardware.DEFAULT_CPU).memory_gb == 8
    assert {device.pool for device in catalogue().devices} - {""} == set(catalogue().pools)
    assert all(find_gpus(pool) for pool in catalogue().pools)
