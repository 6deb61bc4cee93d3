"""The device layer: one allocator, one stream and one launch path under the CUDA and Triton backends."""

from spiral.gpu.driver import CudaSource, Driver, Facts

__all__ = ["CudaSource", "Driver", "Facts"]
