"""The GPUs of this machine as NVML tells of them, and why there are none where there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NOT_INSTALLED = "nvidia-ml-py is not installed (pip install 'flashfw[gpu]')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device. `uuid` is what `CUDA_VISIBLE_DEVICES` takes: unlike `index` it does not depend on the order.

    `free_bytes` is as of the reading: another process may have taken it since. `capability` is CUDA's
    compute capability, such as `9.0`.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int
    free_bytes: int
    capability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What this machine has; with no device, `why` says so in one sentence.

    `driver` is NVIDIA's version, `cuda` the newest CUDA that this driver runs, such as `12.8`.
    """

    devices: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: str = ""
    why: str = ""


def read_gpus() -> Gpus:
    """The GPUs of this machine now. Loads NVIDIA's library at the first call: call it in a thread."""
    try:
        import pynvml
    except ImportError:
        return Gpus(why=NOT_INSTALLED)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus(why=f"NVML does not start: {error}")
    try:
        return _read(pynvml)
    except pynvml.NVMLError as error:
        return Gpus(why=f"NVML does not tell of the GPUs: {error}")
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any) -> Gpus:
    count = nvml.nvmlDeviceGetCount()
    version = nvml.nvmlSystemGetCudaDriverVersion_v2()
    return Gpus(
        devices=tuple(_gpu(nvml, index) for index in range(count)),
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        cuda=f"{version // 1000}.{version % 1000 // 10}",
        why="" if count else "the NVIDIA driver sees no GPU",
    )


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(memory.total),
        free_bytes=int(memory.free),
        capability=f"{major}.{minor}",
    )


def _text(value: str | bytes) -> str:
    """Older releases of nvidia-ml-py give bytes."""
    return value.decode() if isinstance(value, bytes) else value
