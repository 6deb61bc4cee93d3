"""The Triton backend: Triton compiles, `spiral.gpu` loads and launches, on the device layer of the CUDA backend.

``kernels/triton/<family>.py`` holds the kernels of a family of ops, ``backends/triton/<family>.py`` their launchers
with a function ``kernels()``; other files in either folder are what families share. Nothing here imports Triton before
a probe has found a device for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterable
from types import ModuleType

from spiral.backend import DeviceInfo, Kernel, Unavailable
from spiral.gpu import device_infos

SUPPORTED = ((3, 6), (3, 9))
"""First and last version of Triton that `spiral.backends.triton.adapter` was tried with."""


def families() -> list[ModuleType]:
    """The modules with launchers: every one here that has a function ``kernels``; imports Triton."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return [m for m in modules if hasattr(m, "kernels")]


class TritonBackend:
    """Kernels written in Triton, on NVIDIA GPUs; in tests on host memory, by Triton's interpreter."""

    name = "triton"
    device_type = "cuda"
    priority = 5

    def probe(self) -> list[DeviceInfo] | Unavailable:
        """The GPUs, where Triton is installed in a version that was tried."""
        if importlib.util.find_spec("triton") is None:
            return Unavailable("triton is not installed", "pip install triton")
        devices = device_infos()
        if isinstance(devices, Unavailable):
            return devices
        try:
            import triton
        except Exception as error:  # a broken installation is a reason, not a crash
            return Unavailable(f"triton cannot be imported: {type(error).__name__}: {error}", "install it again")
        first, last = SUPPORTED
        version = re.match(r"(\d+)\.(\d+)", getattr(triton, "__version__", ""))
        if version is None or not first <= (int(version[1]), int(version[2])) <= last:
            low, high = [".".join(map(str, v)) for v in SUPPORTED]
            return Unavailable(
                f"triton {getattr(triton, '__version__', 'of no version')} is not one of {low} to {high}",
                f"pip install 'triton=={high}.*'",
            )
        interpreted = bool(triton.knobs.runtime.interpret)
        usable = [d for d in devices if d.facts.get("on_processor", False) == interpreted]
        if usable:
            return usable
        names = ", ".join(d.name for d in devices)
        if interpreted:
            return Unavailable(f"TRITON_INTERPRET is set, and {names} has no host memory", "unset TRITON_INTERPRET")
        return Unavailable(f"{names} runs no kernels that Triton has compiled", "set TRITON_INTERPRET=1")

    def kernels(self) -> Iterable[Kernel]:
        """The kernels of every family."""
        return [kernel for family in families() for kernel in family.kernels()]


backend = TritonBackend()
