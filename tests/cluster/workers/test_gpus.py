from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from flashfw.cluster.workers.gpus import NOT_INSTALLED, read_gpus


def test_tells_of_devices_or_why_there_are_none() -> None:
    gpus = read_gpus()

    assert bool(gpus.devices) != bool(gpus.why)
    assert bool(gpus.devices) <= bool(gpus.driver and gpus.cuda)


def test_says_that_its_package_is_missing() -> None:
    code = (
        "import sys; sys.modules['pynvml'] = None; "
        "from flashfw.cluster.workers.gpus import read_gpus; print(read_gpus().why)"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == NOT_INSTALLED


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no GPU")
def test_says_what_nvidia_smi_says() -> None:
    query = "--query-gpu=index,uuid,name,compute_cap,driver_version,memory.total"
    shown = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True
    )
    expected = [line.split(", ") for line in shown.stdout.splitlines()]

    gpus = read_gpus()

    found = [[str(gpu.index), gpu.uuid, gpu.name, gpu.capability, gpus.driver] for gpu in gpus.devices]
    assert found == [line[:5] for line in expected]
    for gpu, line in zip(gpus.devices, expected, strict=True):
        assert abs(gpu.memory_bytes - int(line[5]) * 2**20) < 2**30
        assert 0 < gpu.free_bytes <= gpu.memory_bytes
