"""Which GPUs there are, and what drives them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib import import_module

from spiral.backend import DeviceInfo, Unavailable
from spiral.errors import ArgumentError, RegistryError
from spiral.gpu.driver import Driver
from spiral.gpu.memory import GpuMemory

_given: list[Driver] = []
_asked = False


def use_driver(*drivers: Driver) -> None:
    """Has the GPU backends work on these drivers, a device each, instead of looking for any; for tests, before the
    first op.

    Raises:
        RegistryError: the backends have been probed already.
    """
    if _asked:
        raise RegistryError("use_driver: the GPU backends were probed already; call it before the first op.")
    _given[:] = drivers


@functools.cache
def drivers() -> list[Driver] | Unavailable:
    """A driver per device, the same objects at every call; or why there is none.

    ``SPIRAL_GPU`` chooses: ``cupy``, ``torch``, ``none``, and for tests ``processor``, which compiles CUDA C++ for the
    CPU, or ``interpreter``, where Triton interprets its kernels.
    """
    global _asked
    _asked = True
    if _given:
        return _given
    wanted = os.environ.get("SPIRAL_GPU", "")
    known: dict[str, Callable[[], list[Driver] | Unavailable]] = {
        "cupy": _cupy, "torch": _torch, "processor": _processor, "interpreter": _interpreter, "none": _none,
    }  # fmt: skip
    if wanted and wanted not in known:
        raise ArgumentError(f"SPIRAL_GPU: expected one of {', '.join(known)}; received {wanted!r}.")
    if wanted:
        return known[wanted]()
    found = _cupy()
    if not isinstance(found, Unavailable):
        return found
    other = _torch()
    if not isinstance(other, Unavailable):
        return other
    reasons = dict.fromkeys((found.reason, other.reason))  # mostly one: there is no NVIDIA driver
    return Unavailable("; ".join(reasons), found.remedy)


def drivers_in_use() -> list[Driver]:
    """The drivers, where somebody has asked for them before; looks for nothing."""
    found = drivers() if _asked else []
    return [] if isinstance(found, Unavailable) else found


def _none() -> Unavailable:
    return Unavailable("SPIRAL_GPU=none asks for no GPU", "unset it")


def _cupy() -> list[Driver] | Unavailable:
    from spiral.gpu.cupy_driver import find

    return find()


def _torch() -> list[Driver] | Unavailable:
    from spiral.gpu.torch_driver import find

    return find()


def _processor() -> list[Driver] | Unavailable:
    # what stands in for a GPU is part of the tests' tools, which nothing else imports
    runner = import_module("spiral.testing.cuda_on_cpu")
    reason = runner.unavailable()
    return [runner.CudaOnCpu()] if reason is None else Unavailable(reason, "install g++")


def _interpreter() -> list[Driver] | Unavailable:
    return [import_module("spiral.testing.triton_interpreter").host_driver()]


@functools.cache
def _infos() -> list[DeviceInfo] | Unavailable:
    found = drivers()
    if isinstance(found, Unavailable):
        return found
    return [
        DeviceInfo(
            "cuda", i, d.facts.name,
            {"cc": d.facts.cc, "shared_memory": d.facts.shared_memory, "multiprocessors": d.facts.multiprocessors,
             "memory": d.facts.memory, "driver": d.facts.driver,
             "compiler": d.facts.compiler, **d.facts.more},
            GpuMemory(d),
        )
        for i, d in enumerate(found)
    ]  # fmt: skip


def device_infos() -> list[DeviceInfo] | Unavailable:
    """The devices as a backend's `probe` gives them; both GPU backends give the same objects."""
    return _infos()
