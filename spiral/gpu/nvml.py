"""Memory and load of NVIDIA GPUs as their driver's management library (NVML) tells them."""

from __future__ import annotations

from typing import Any

from spiral.backend import Unavailable


def readings(uuid_or_index: str | int) -> dict[str, Any] | Unavailable:
    """What NVML says of a device now: bytes of memory used and in all, load in percent, driver version.

    Args:
        uuid_or_index: the device's UUID, or its number. NVML counts all devices, CUDA those of CUDA_VISIBLE_DEVICES.

    Returns:
        The readings, or why there are none.
    """
    try:
        import pynvml
    except ImportError:
        return Unavailable("nvidia-ml-py is not installed", "pip install nvidia-ml-py")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Unavailable(f"NVML: {error}", "install NVIDIA's driver")
    try:
        find = pynvml.nvmlDeviceGetHandleByUUID if isinstance(uuid_or_index, str) else pynvml.nvmlDeviceGetHandleByIndex
        handle = find(uuid_or_index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        found: dict[str, Any] = {"memory used": int(memory.used), "memory": int(memory.total)}
        try:
            found["load %"] = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except pynvml.NVMLError as error:  # virtual devices have none
            found["load %"] = f"unknown: {error}"
        version = pynvml.nvmlSystemGetDriverVersion()
        found["NVIDIA driver"] = version.decode() if isinstance(version, bytes) else version
        return found
    except pynvml.NVMLError as error:
        return Unavailable(f"NVML: {error}", "run nvidia-smi")
    finally:
        pynvml.nvmlShutdown()
