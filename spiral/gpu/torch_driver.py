"""NVIDIA GPUs where CuPy is missing: PyTorch's allocator, and the CUDA driver itself for the rest.

It runs compiled kernels, Triton's, but has no compiler for CUDA C++.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spiral.backend import Unavailable
from spiral.errors import KernelBuildError, KernelError, OutOfMemoryError
from spiral.gpu.driver import CudaSource, Driver, Facts
from spiral.gpu.memory import out_of_memory
from spiral.gpu.usage import Usage

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_STATIC_SHARED = 48 * 1024  # what a block gets without asking
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


def find() -> list[Driver] | Unavailable:
    """A driver per device, or why PyTorch cannot use any."""
    if importlib.util.find_spec("torch") is None:
        return Unavailable("PyTorch is not installed", "pip install torch")
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return Unavailable(f"no NVIDIA driver: {error}", "install NVIDIA's driver, or work on the CPU")
    try:
        import torch
    except Exception as error:  # a broken installation is a reason, not a crash
        return Unavailable(f"PyTorch cannot be imported: {type(error).__name__}: {error}", "install it again")
    if not torch.cuda.is_available():
        why = "was built without CUDA" if torch.version.cuda is None else "finds no usable device"
        return Unavailable(f"PyTorch {torch.__version__} {why}", "install a PyTorch built for CUDA, or CuPy")
    found: list[Driver] = []
    for i in range(torch.cuda.device_count()):
        try:
            found.append(TorchDriver(i, library))
        except RuntimeError as error:  # numbers must stay CUDA's: none rather than the others under wrong numbers
            remedy = "hide it with CUDA_VISIBLE_DEVICES, or see what nvidia-smi says of it"
            return Unavailable(f"PyTorch {torch.__version__} cannot use cuda:{i}: {error}", remedy)
    return found


class TorchDriver:
    """One device; the parts are those of `spiral.gpu.Driver`."""

    def __init__(self, index: int, library: ctypes.CDLL) -> None:
        import torch

        self._torch, self._library, self.index = torch, library, index
        torch.cuda.init()
        with torch.cuda.device(index):
            self.stream = torch.cuda.Stream()
        self._stream = ctypes.c_void_p(self.stream.cuda_stream)
        self._many = torch.cuda.device_count() > 1
        self.functions: dict[Any, Any] = {}
        self.synchronizations = 0
        self.usage = Usage()
        self._captured: list[Any] | None = None  # while a graph is made, the blocks that its launches use
        self._side: Any = None  # the stream of copies that run ahead, made when there is one
        p = torch.cuda.get_device_properties(index)
        self.facts = Facts(
            name=p.name,
            cc=p.major * 10 + p.minor,
            multiprocessors=p.multi_processor_count,
            shared_memory=p.shared_memory_per_block_optin,
            memory=p.total_memory,
            driver=f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}",
            more={"l2": p.L2_cache_size},
        )
        library.cuLaunchKernel.argtypes = [ctypes.c_void_p, *(ctypes.c_uint,) * 7, *(ctypes.c_void_p,) * 3]

    def _check(self, code: int, what: str, kind: type[KernelError] = KernelError) -> None:
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise kind(f"cuda:{self.index}: {what}: {(text.value or b'unknown error').decode()} ({code})")

    def _use(self) -> None:
        if self._many:
            self._torch.cuda.set_device(self.index)

    def allocate(self, nbytes: int) -> Any:
        """See `spiral.gpu.Driver`."""
        try:
            address = self._torch.cuda.caching_allocator_alloc(max(1, nbytes), self.index, self.stream)
        except self._torch.cuda.OutOfMemoryError:
            free, total = self._torch.cuda.mem_get_info(self.index)
            raise OutOfMemoryError(f"cuda:{self.index}: {out_of_memory(nbytes, free, total)}") from None
        block = _Block(address, nbytes, self._torch.cuda.caching_allocator_delete, self.usage)
        if self._captured is not None:
            self._captured.append(block)
        return block

    def memory(self) -> dict[str, int]:
        """Bytes of PyTorch's allocator that are in use and kept, and what the device has free and in total."""
        free, total = self._torch.cuda.mem_get_info(self.index)
        used = self._torch.cuda.memory_allocated(self.index)
        return {
            "used": used, "cached": self._torch.cuda.memory_reserved(self.index) - used, "free": free, "total": total,
        }  # fmt: skip

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """See `spiral.gpu.Driver`."""
        if self._captured is not None:
            self._write_to_graph(address, array)
            return
        self._use()
        source = ctypes.c_void_p(array.ctypes.data)
        call = self._library.cuMemcpyHtoDAsync_v2
        self._check(call(ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes), self._stream), "copy to it")

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """See `spiral.gpu.Driver`."""
        self._refuse("read")
        self._use()
        to = ctypes.c_void_p(array.ctypes.data)
        call = self._library.cuMemcpyDtoHAsync_v2
        self._check(call(to, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes), self._stream), "copy from it")
        self.synchronize()

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """See `spiral.gpu.Driver`."""
        self._use()
        call = self._library.cuMemcpyDtoDAsync_v2
        addresses = ctypes.c_uint64(to), ctypes.c_uint64(source)
        self._check(call(*addresses, ctypes.c_size_t(nbytes), self._stream), "copy within it")

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """See `spiral.gpu.Driver`."""
        self._use()
        call = self._library.cuMemsetD8Async
        self._check(call(ctypes.c_uint64(address), ctypes.c_ubyte(byte), ctypes.c_size_t(nbytes), self._stream), "fill")

    def compile(self, source: CudaSource, name: str) -> int:
        """CUDA C++ needs NVRTC, which comes with CuPy."""
        raise KernelBuildError(f"{source.file}: {name}: CUDA C++ is compiled through CuPy, which is not installed.")

    def load(self, image: bytes, name: str, shared: int) -> int:
        """See `spiral.gpu.Driver`."""
        self._use()
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        code = self._library.cuModuleLoadData(ctypes.byref(module), image)
        # memory that is taken now may be free later: no reason to do without the kernel
        self._check(code, f"loading {name}", KernelError if code == _OUT_OF_MEMORY else KernelBuildError)
        found = self._library.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
        self._check(found, f"finding {name}", KernelBuildError)
        if shared > _STATIC_SHARED:
            allowed = self._library.cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED, shared)
            self._check(allowed, f"{shared} bytes of shared memory for {name}", KernelBuildError)
        assert function.value is not None
        return function.value

    def launch(self, function: int, grid: Sequence[int], block: Sequence[int], shared: int, params: int) -> None:
        """See `spiral.gpu.Driver`."""
        self._use()
        code = self._library.cuLaunchKernel(function, *grid, *block, shared, self._stream, params, None)
        if code:
            self._check(code, "launch")

    def synchronize(self) -> None:
        """See `spiral.gpu.Driver`."""
        self._refuse("synchronize")
        self.synchronizations += 1
        self.stream.synchronize()

    def event(self) -> Any:
        """See `spiral.gpu.Driver`."""
        event = self._torch.cuda.Event(enable_timing=True)
        event.record(self.stream)
        return _Event(event, self)

    @property
    def stream_address(self) -> int:
        """See `spiral.gpu.driver.SharesStream`."""
        return int(self.stream.cuda_stream)

    def let_wait(self, stream: int) -> None:
        """See `spiral.gpu.driver.SharesStream`."""
        self._use()
        event = self._torch.cuda.Event()
        event.record(self.stream)
        handles = ctypes.c_void_p(stream), ctypes.c_void_p(event.cuda_event)
        self._check(self._library.cuStreamWaitEvent(*handles, ctypes.c_uint(0)), "waiting for its stream")

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """See `spiral.gpu.Driver`."""
        memory: np.ndarray[Any, Any] = self._torch.empty(nbytes, dtype=self._torch.uint8, pin_memory=True).numpy()
        return memory

    def write_ahead(self, address: int, array: np.ndarray[Any, Any]) -> Any:
        """See `spiral.gpu.Driver`."""
        self._refuse("write_ahead")
        self._use()
        side_stream = self._side_stream()
        # the memory may have been somebody else's: what is enqueued so far comes first
        side_stream.wait_stream(self.stream)
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        side = ctypes.c_void_p(side_stream.cuda_stream)
        self._check(self._library.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(address), source, size, side), "copy to it")
        done = self._torch.cuda.Event(enable_timing=True)
        done.record(side_stream)
        self.stream.wait_event(done)
        return _Event(done, self)

    def _write_to_graph(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Has a graph copy values that the device already has, on a stream of its own, which is not recorded."""
        assert self._captured is not None
        held = self.allocate(array.nbytes)
        fresh = any(b.address <= address < b.address + b.nbytes for b in self._captured)
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        side = ctypes.c_void_p(self._side_stream().cuda_stream)
        for to in (held.address, address) if fresh else (held.address,):
            code = self._library.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(to), source, size, side)
            self._check(code, "copy to it")
        self._side_stream().synchronize()
        self.copy(address, held.address, array.nbytes)

    def _side_stream(self) -> Any:
        if self._side is None:
            self._side = self._torch.cuda.Stream(self.index)
        return self._side

    def _refuse(self, what: str) -> None:
        """While a graph is made: refused here, before the device's library spoils the graph for it."""
        if self._captured is not None:
            raise KernelError(f"capture: expected launches, copies, fills and writes only; received a call of {what}.")

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """See `spiral.gpu.Driver`."""
        self.stream.synchronize()  # `_write_to_graph` writes beside the stream, to memory that may have been used
        graph = self._torch.cuda.CUDAGraph()
        blocks = self._captured = []
        try:
            with self._torch.cuda.graph(graph, stream=self.stream, capture_error_mode="relaxed"):
                enqueue()
        finally:
            self._captured = None
        return _Graph(graph, self.stream, self._torch, blocks)


class _Event:
    """A moment on PyTorch's stream; see `spiral.gpu.driver.Event`."""

    def __init__(self, event: Any, driver: TorchDriver) -> None:
        self.event, self._driver = event, driver

    def done(self) -> bool:
        return bool(self.event.query())

    def wait(self) -> None:
        self._driver.synchronizations += 1
        self.event.synchronize()

    def milliseconds_since(self, earlier: _Event) -> float:
        return float(earlier.event.elapsed_time(self.event))


class _Graph:
    """A CUDA graph on the stream that it was captured from, with the memory that was made meanwhile."""

    def __init__(self, graph: Any, stream: Any, torch: Any, blocks: list[Any]) -> None:
        self._graph, self._stream, self._torch, self._blocks = graph, stream, torch, blocks

    def launch(self) -> None:
        with self._torch.cuda.stream(self._stream):
            self._graph.replay()


class _Block:
    """Memory of PyTorch's allocator, returned when this dies."""

    __slots__ = ("__weakref__", "_free", "_usage", "address", "nbytes")

    def __init__(self, address: int, nbytes: int, free: Any, usage: Usage) -> None:
        self.address, self.nbytes, self._free, self._usage = address, nbytes, free, usage
        usage.add(nbytes)

    def __del__(self) -> None:
        self._usage.remove(self.nbytes)
        self._free(self.address)
