"""The OpenCL device: its shared memory as NumPy arrays, its compiler, and the launching of kernels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyopencl as cl

GROUP = 64  # work items of a group


class Device:
    """One OpenCL device whose memory the host reads and writes while no kernel runs."""

    def __init__(self, device: cl.Device) -> None:
        self.device = device
        self.context = cl.Context([device])
        self.queue = cl.CommandQueue(self.context)
        self.lock = threading.Lock()  # a kernel object holds its arguments until it is enqueued

    def allocate(self, nbytes: int) -> np.ndarray[Any, Any]:
        """Shared virtual memory, as bytes."""
        flags: Any = cl.svm_mem_flags.READ_WRITE | cl.svm_mem_flags.SVM_FINE_GRAIN_BUFFER
        memory: np.ndarray[Any, Any] = cl.svm_empty(self.context, flags, nbytes, np.uint8)
        return memory


class Program:
    """OpenCL C, compiled when its first kernel is launched."""

    def __init__(self, device: Device, source: str) -> None:
        self.device = device
        self.source = source
        self._kernels: dict[str, cl.Kernel] = {}

    def launch(self, name: str, items: int, *args: Any) -> None:
        """Runs a kernel and waits: the host may read what it wrote when this returns.

        Args:
            name: of the kernel.
            items: how many work items are wanted; there may be a few more, which have nothing to do.
            *args: arrays give an address and the offset of their first element, integers a long, numbers a float,
                tuples of integers a structure of longs.
        """
        if not items:
            return
        device = self.device
        with device.lock:
            if not self._kernels:
                built = cl.Program(device.context, self.source).build()
                self._kernels = {kernel.function_name: kernel for kernel in built.all_kernels()}
            kernel = self._kernels[name]
            kernel.set_args(*[part for a in args for part in _parts(a)])
            cl.enqueue_nd_range_kernel(device.queue, kernel, (-(-items // GROUP) * GROUP,), (GROUP,))
            device.queue.finish()


def _parts(a: Any) -> Sequence[Any]:
    if isinstance(a, np.ndarray):
        block = a
        while isinstance(block.base, np.ndarray):
            block = block.base
        return cl.SVM(block), np.int64((_address(a) - _address(block)) // a.itemsize)
    if isinstance(a, tuple):
        return (np.array(a, np.int64).tobytes(),)
    return (np.int64(a),) if isinstance(a, (int, np.integer)) else (np.float32(a),)


def _address(a: np.ndarray[Any, Any]) -> int:
    address: int = a.__array_interface__["data"][0]
    return address
