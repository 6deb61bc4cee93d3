"""The device that is none: CUDA C++ kernels run on the processor, launches are logged, mistakes are errors."""

from __future__ import annotations

import ctypes
import os
import platform
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spiral.errors import KernelError
from spiral.gpu.driver import CudaSource, Facts
from spiral.gpu.sources import CUDA_FOLDER
from spiral.testing.cuda_on_cpu import compiler
from spiral.testing.cuda_on_cpu.launching import (
    SHARED_MEMORY,
    Kernel,
    Launched,
    kernel_of,
    open_library,
    parse_order,
    require_limits,
    require_parameters,
    run,
)
from spiral.testing.cuda_on_cpu.memory import Arena, HostBlock
from spiral.testing.host_stream import HostStream

_LOGGED = 10_000


class CudaOnCpu(HostStream):
    """A `spiral.gpu.Driver` whose device is the processor, for tests.

    Args:
        folder: where `compile` looks for CUDA C++ files.
        memory: bytes that all blocks may have together.
        order: ``forward``, ``reverse`` or ``shuffle:<seed>``: in which order blocks, warps and threads run as far as
            barriers leave a choice; default: SPIRAL_CUDA_ORDER, else ``forward``. A right kernel gives the same bits.

    Attributes:
        facts: its compute capability is 90 so that kernels are chosen as on an sm_90 device; the name and
            ``more["on_processor"]`` say that it is none.
        launches: the last launches, oldest first; tests may clear it.

    Raises:
        KernelError: this machine has no g++.
    """

    def __init__(self, folder: Path = CUDA_FOLDER, memory: int = 8 << 30, order: str | None = None) -> None:
        reason = compiler.unavailable()
        if reason is not None:
            raise KernelError(reason)
        self.facts = Facts(
            name="CUDA on the processor", cc=90, multiprocessors=1, shared_memory=SHARED_MEMORY, memory=memory,
            driver=f"spiral.testing.cuda_on_cpu ({platform.machine()})", compiler="g++", more={"on_processor": True},
        )  # fmt: skip
        self.synchronizations = 0
        self.functions: dict[Any, Any] = {}
        self.launches: deque[Launched] = deque(maxlen=_LOGGED)
        self._folder = folder
        self._order = parse_order(os.environ.get("SPIRAL_CUDA_ORDER", "forward") if order is None else order)
        self._arena = Arena(memory)
        self.usage = self._arena.usage
        self._kernels: list[Kernel] = []
        self._libraries: dict[Path, ctypes.CDLL] = {}

    # ------------------------------------------------------------ memory
    def allocate(self, nbytes: int) -> HostBlock:
        """Memory whose bytes are all 0xff, NaN in every floating type, with fences around it."""
        block = self._arena.allocate(nbytes)
        self.keep_block(block)
        return block

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copies a C-contiguous host array to the device."""
        self._arena.require(address, _host_bytes("write", array), "write")
        if not self.keep_write(address, array):
            ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copies device memory into a C-contiguous host array; counts as waiting."""
        self.synchronize()
        self._arena.require(address, _host_bytes("read", array), "read")
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Copies within the device."""
        self._arena.require(to, nbytes, "copy")
        self._arena.require(source, nbytes, "copy")
        if not self.keep(self.copy, to, source, nbytes):
            ctypes.memmove(to, source, nbytes)

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Sets every byte."""
        self._arena.require(address, nbytes, "fill")
        if not self.keep(self.fill, address, byte, nbytes):
            ctypes.memset(address, byte, nbytes)

    def check_memory(self) -> None:
        """Looks at the fences around all blocks that live, and at what was found around those that were freed.

        Raises:
            KernelError: something was written outside of a block.
        """
        found = self._arena.check()
        if found:
            names = ", ".join(dict.fromkeys(launched.name for launched in list(self.launches)[-5:]))
            raise KernelError("; ".join(found) + f". Last launched: {names or 'nothing'}.")

    # ------------------------------------------------------------ kernels
    def compile(self, source: CudaSource, name: str) -> int:
        """The handle of one kernel; builds it together with its neighbours in ``source.names``."""
        if name not in source.names:
            raise KernelError(f"{source.file}: {name} is not among the kernels asked of the file.")
        first = source.names.index(name) // compiler.NAMES_AT_ONCE * compiler.NAMES_AT_ONCE
        names = source.names[first : first + compiler.NAMES_AT_ONCE]
        path = compiler.build(source.file, names, self._folder)
        library = self._libraries.get(path)
        if library is None:
            library = self._libraries[path] = open_library(path)
        self._kernels.append(kernel_of(library, names.index(name), name))
        return len(self._kernels) - 1

    def load(self, image: bytes, name: str, shared: int) -> int:
        """Refuses: there is no processor here that runs device code.

        Raises:
            KernelError: always.
        """
        raise KernelError(f"{name}: the runner takes CUDA C++ only; run Triton kernels with TRITON_INTERPRET=1.")

    def launch(self, function: int, grid: Sequence[int], block: Sequence[int], shared: int, params: int) -> None:
        """Runs a kernel to its end.

        Raises:
            KernelError: the launch is out of a device's limits, its parameters are not the kernel's, or the kernel
                deadlocks, traps, touches memory that is not there or overruns its dynamic shared memory; the message
                tells block and threads.
        """
        kernel = self._kernels[function]
        require_limits(kernel.name, grid, block, shared)
        require_parameters(kernel, params)
        if self.keep(self.launch, function, grid, block, shared, params=params):
            return
        launched = Launched(kernel.name, (grid[0], grid[1], grid[2]), (block[0], block[1], block[2]), shared)
        self.launches.append(launched)
        run(kernel, launched, self._order, params)

    def synchronize(self) -> None:
        """Counts; a launch has ended when it returns."""
        self.refuse("synchronize")
        self.synchronizations += 1


def _host_bytes(what: str, array: np.ndarray[Any, Any]) -> int:
    if not array.flags.c_contiguous:
        raise KernelError(f"{what}: expected a C-contiguous array; received strides {array.strides}.")
    return array.nbytes
