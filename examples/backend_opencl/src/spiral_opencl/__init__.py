"""An OpenCL backend for spiral: elementwise ops, reductions, matrix products, norms, softmax and AdamW.

Its memory is shared with the host (fine-grained shared virtual memory), so buffers are NumPy arrays, and every op that
is not here runs on the host's kernels, in place.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyopencl as cl

from spiral.backend import DeviceInfo, Kernel, Unavailable, UnifiedMemory
from spiral_opencl import elementwise, fused
from spiral_opencl.device import Device


class OpenCLBackend:
    """What the entry point names."""

    name = "opencl"
    device_type = "opencl"
    priority = 10

    def probe(self) -> list[DeviceInfo] | Unavailable:
        """The first device with memory that the host shares."""
        try:
            found = [d for platform in cl.get_platforms() for d in platform.get_devices()]
        except cl.LogicError as error:
            return Unavailable(f"no OpenCL platform: {error}", "pip install pocl-binary-distribution")
        shared = [d for d in found if d.svm_capabilities & cl.device_svm_capabilities.FINE_GRAIN_BUFFER]
        if not shared:
            names = ", ".join(d.name for d in found) or "none"
            return Unavailable(f"no device with fine-grained shared memory among {names}", "use the CPU")
        self.device = Device(shared[0])
        self.memory = UnifiedMemory(self.device.allocate)
        return [DeviceInfo("opencl", 0, shared[0].name, {"version": shared[0].version}, self.memory)]

    def kernels(self) -> Iterator[Kernel]:
        """See the modules."""
        yield from fused.kernels(self.device, self.memory)
        yield from elementwise.kernels(self.device, self.memory)


backend = OpenCLBackend()
