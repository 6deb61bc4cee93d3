"""Runs the CUDA C++ kernels on the processor: a `spiral.gpu.Driver` for machines without a GPU.

    from spiral.testing.cuda_on_cpu import CudaOnCpu

    gpu = CudaOnCpu()

g++ compiles the kernels and every CUDA thread is a fiber (see ``runtime.h`` and ``scheduler.cpp``), so barriers,
shuffles and shared memory are real, and mistakes that a GPU would forgive now and then are errors every time.
"""

from spiral.testing.cuda_on_cpu.compiler import sanitized_environment, unavailable
from spiral.testing.cuda_on_cpu.driver import CudaOnCpu

__all__ = ["CudaOnCpu", "sanitized_environment", "unavailable"]
