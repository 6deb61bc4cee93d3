"""The seam under the CUDA and Triton backends: what they need of a device, and nothing else.

CuPy implements it (`spiral.gpu.cupy_driver`), PyTorch's allocator where CuPy is missing
(`spiral.gpu.torch_driver`), and for tests a runner that compiles CUDA C for the processor
(`spiral.testing.cuda_on_cpu`) or records launches. Both backends launch through one driver: one allocator,
one stream, one graph.

There is one driver object per device. It is also the `spiral.backend.Memory` of the tensors that live there,
so a kernel finds it as ``array.memory``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from spiral.device_array import Block
from spiral.gpu.usage import Usage


@dataclass(frozen=True)
class Facts:
    """What a device says of itself.

    Attributes:
        name: as its maker calls it.
        cc: compute capability times ten: 90 for sm_90; 0 for the processor that stands in for a device.
        multiprocessors: how many blocks run at a time, at least.
        shared_memory: bytes of shared memory that a block may ask for.
        memory: bytes of device memory.
        driver: what runs it, with versions.
        compiler: what compiles CUDA C++ for it; empty: nothing does.
    """

    name: str
    cc: int
    multiprocessors: int
    shared_memory: int
    memory: int
    driver: str
    compiler: str = ""
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CudaSource:
    """A CUDA C++ file of ``kernels/cuda`` with the kernels that are wanted of it.

    Attributes:
        file: its name, such as ``norm.cu``.
        names: name expressions of its templates, such as ``spiral::norm_grad_rows<float>``; all that the backend ever
            asks of the file, so that a driver may compile them at once or one by one.
    """

    file: str
    names: tuple[str, ...]


class Event(Protocol):
    """A moment on a device's stream."""

    def done(self) -> bool:
        """Whether the device has got there; does not wait."""

    def wait(self) -> None:
        """Waits until the device has got there."""

    def milliseconds_since(self, earlier: Any) -> float:
        """Device time between two events, both of which must be done."""


class Graph(Protocol):
    """Work that was captured, to be enqueued again as a whole."""

    def launch(self) -> None:
        """Enqueues it."""


class Blas(Protocol):
    """A library of matrix products, which a driver may have as its attribute ``blas``."""

    name: str
    """What it is, with its version."""

    def gemm(
        self, dtype: np.dtype[Any], transposed: tuple[bool, bool], lengths: tuple[int, int, int],
        a: tuple[int, int, int], b: tuple[int, int, int], c: tuple[int, int, int], batch: int, add: bool,
        to: np.dtype[Any], tf32: bool,
    ) -> None:  # fmt: skip
        """Enqueues c = op(a) op(b), or that added to c, rounded once; all lie by columns, as BLAS has it.

        Args:
            dtype: of a and b; 16-bit products are summed in float.
            transposed: whether op transposes a, and b.
            lengths: rows of c, columns of c, and what is summed over.
            a, b, c: address, elements from column to column, elements from matrix to matrix.
            batch: how many matrices.
            add: to c, instead of overwriting it.
            to: dtype of c: that of a and b, or float32 where theirs is a 16-bit type.
            tf32: float32 factors may be rounded to tf32.
        """


@runtime_checkable
class SharesStream(Protocol):
    """What a driver of a real device has besides, so that other libraries can work on its memory."""

    index: int
    """CUDA's number of the device."""

    @property
    def stream_address(self) -> int:
        """The CUDA stream."""

    def let_wait(self, stream: int) -> None:
        """What is enqueued on another stream from now on waits for what is enqueued on this one so far.

        Args:
            stream: its address; 1 and 2 are CUDA's legacy default stream and the thread's default stream.
        """


@runtime_checkable
class Driver(Protocol):
    """A device. Everything is ordered on its one stream; nothing waits but `read` and `synchronize`."""

    facts: Facts
    usage: Usage
    """Bytes of the blocks alive, and their peak."""
    synchronizations: int
    """How often the host has waited for the device."""
    functions: dict[Any, Any]
    """Handles that launchers keep here, by whatever identifies their kernel."""

    def allocate(self, nbytes: int) -> Block:
        """Memory of at least ``nbytes`` bytes, aligned to 256, returned when the block dies; contents undefined.

        Raises:
            spiral.errors.OutOfMemoryError: there is no more.
        """

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copies a C-contiguous host array to the device; the array may be reused at once."""

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copies device memory into a C-contiguous host array, and waits for it."""

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Copies within the device."""

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Sets every byte."""

    def compile(self, source: CudaSource, name: str) -> int:
        """The handle of one kernel of a CUDA C++ file; may compile all of ``source.names``.

        Raises:
            spiral.errors.KernelBuildError: the compiler refuses it; the message holds the log.
        """

    def load(self, image: bytes, name: str, shared: int) -> int:
        """The handle of a kernel of a compiled image (cubin); ``shared``: bytes of shared memory a block asks for.

        Raises:
            spiral.errors.KernelBuildError: the device does not take it.
        """

    def launch(self, function: int, grid: Sequence[int], block: Sequence[int], shared: int, params: int) -> None:
        """Enqueues a kernel.

        Args:
            function: handle from `compile` or `load`.
            grid: three numbers of blocks.
            block: three numbers of threads.
            shared: bytes of dynamic shared memory.
            params: address of an array of pointers, one to each parameter's value (as for ``cuLaunchKernel``).
        """

    def synchronize(self) -> None:
        """Waits until everything enqueued is done."""

    def event(self) -> Event:
        """Marks this moment on the stream."""

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """Host memory that the device reads at full speed while the host goes on; bytes, contents undefined."""

    def write_ahead(self, address: int, array: np.ndarray[Any, Any]) -> Event:
        """Copies `pinned` memory to the device beside the stream's work, which waits for it where it stands now.

        Returns:
            When it is done, the host memory may be reused.
        """

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """What ``enqueue`` launches, copies, fills and writes, as a graph; nothing of it runs now.

        A write has the values of now at every launch; memory that was made meanwhile has them at once, so that a table
        which is kept beyond the graph is never without its contents.

        Raises:
            spiral.errors.KernelError: it reads, waits, writes ahead or allocates memory that the pool does not have.
        """
