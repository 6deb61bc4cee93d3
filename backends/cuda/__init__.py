"""The CUDA backend: CUDA C++ kernels of ``kernels/cuda``, compiled by NVRTC and launched through `spiral.gpu`.

A file here per file there: it adapts ops to kernels and declares what each can do.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from spiral.backend import DeviceInfo, Kernel, Unavailable
from spiral.gpu import device_infos, nvrtc


def families() -> list[ModuleType]:
    """The modules with launchers: every one here that has a function ``kernels``."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return [m for m in modules if hasattr(m, "kernels")]


class CudaBackend:
    """CUDA C++ kernels on NVIDIA GPUs."""

    name = "cuda"
    device_type = "cuda"
    priority = 10

    def probe(self) -> list[DeviceInfo] | Unavailable:
        found = device_infos()
        if not isinstance(found, Unavailable) and not all(d.facts["compiler"] for d in found):
            missing = nvrtc.binding()  # says what CuPy lacks; a driver without CuPy has none whatever NVRTC is there
            why = f": {missing.reason}" if isinstance(missing, Unavailable) else ""
            remedy = missing.remedy if isinstance(missing, Unavailable) else "pip install cupy-cuda12x, or cupy-cuda13x"
            return Unavailable(f"{found[0].facts['driver']} has no compiler for CUDA C++{why}", remedy)
        return found

    def kernels(self) -> Iterable[Kernel]:
        for family in families():
            yield from family.kernels()


backend = CudaBackend()
