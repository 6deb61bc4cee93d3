"""The device layer: one allocator, one stream and one launch path under the CUDA and Triton backends."""

from spiral.gpu.devices import device_infos, drivers, use_driver
from spiral.gpu.driver import CudaSource, Driver, Facts
from spiral.gpu.memory import GpuMemory

__all__ = ["CudaSource", "Driver", "Facts", "GpuMemory", "device_infos", "drivers", "use_driver"]
