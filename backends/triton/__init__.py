"""The Triton backend: Triton compiles, `spiral.gpu` loads and launches, on the device layer of the CUDA backend.

``kernels/triton/<family>.py`` holds the kernels of a family of ops, ``backends/triton/<family>.py`` their launchers with
a function ``kernels()``. Nothing here imports Triton before a probe has found a device for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import spiral.gpu
from spiral.backend import DeviceInfo, Kernel, Spec, Unavailable
from spiral.device_array import DeviceArray


def families() -> Iterator[ModuleType]:
    """The modules with launchers, one for each file of kernels; imports Triton."""
    sources = importlib.import_module("spiral.kernels.triton")
    names = sorted(info.name for info in pkgutil.iter_modules(sources.__path__))
    return iter([importlib.import_module(f"{__name__}.{name}") for name in names])


class TritonBackend:
    """Kernels written in Triton, on NVIDIA GPUs; in tests on host memory, by Triton's interpreter."""

    name = "triton"
    device_type = "cuda"
    priority = 5

    def __init__(self) -> None:
        self._drivers: list[spiral.gpu.Driver] = []

    def probe(self) -> list[DeviceInfo] | Unavailable:
        """The GPUs, where Triton is installed in a version that was tried."""
        if importlib.util.find_spec("triton") is None:
            return Unavailable("triton is not installed", "pip install triton")
        drivers = spiral.gpu.drivers()
        if isinstance(drivers, Unavailable):
            return drivers
        try:
            import triton
        except Exception as error:
            return Unavailable(f"triton cannot be imported: {type(error).__name__}: {error}", "reinstall triton")
        from spiral.backends.triton import adapter

        if not adapter.is_supported():
            first, last = [".".join(map(str, v)) for v in adapter.SUPPORTED]
            return Unavailable(
                f"triton {triton.__version__} is not one of {first} to {last}", f"pip install 'triton=={last}.*'"
            )
        interpreted = bool(triton.knobs.runtime.interpret)
        usable = [d for d in drivers if (d.facts.cc == 0) == interpreted]
        if not usable:
            there = ", ".join(d.facts.name for d in drivers)
            if interpreted:
                return Unavailable(f"TRITON_INTERPRET is set, and {there} is no host memory", "unset TRITON_INTERPRET")
            return Unavailable(f"{there} runs compiled kernels of CUDA C++ only", "set TRITON_INTERPRET=1")
        self._drivers = usable
        return [
            DeviceInfo("cuda", i, d.facts.name, {"cc": d.facts.cc, "driver": d.facts.driver})
            for i, d in enumerate(drivers)
            if d in usable
        ]

    def kernels(self) -> Iterable[Kernel]:
        """The kernels of every family."""
        return [kernel for family in families() for kernel in family.kernels()]

    def allocate(self, spec: Spec) -> Any:
        """A buffer on the first device."""
        return DeviceArray.of_spec(self._drivers[0], spec)


backend = TritonBackend()
