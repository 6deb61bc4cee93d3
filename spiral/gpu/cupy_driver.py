"""NVIDIA GPUs through CuPy: its memory pool, its bindings of the CUDA driver, NVRTC as compiler."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spiral.backend import Unavailable
from spiral.errors import KernelBuildError, KernelError, OutOfMemoryError
from spiral.gpu import nvrtc
from spiral.gpu.driver import CudaSource, Driver, Facts
from spiral.gpu.memory import out_of_memory
from spiral.gpu.sources import CUDA_FOLDER
from spiral.gpu.usage import Usage

_TO_DEVICE, _TO_HOST, _ON_DEVICE = 1, 2, 3  # cudaMemcpyKind
_STATIC_SHARED = 48 * 1024  # what a block gets without asking
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


def find() -> list[Driver] | Unavailable:
    """A driver per device, or why CuPy cannot use any."""
    try:
        # asked before CuPy is imported, which takes half a second
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return Unavailable(f"no NVIDIA driver: {error}", "install NVIDIA's driver, or work on the CPU")
    try:
        import cupy
    except Exception as error:  # not installed, or a broken installation: a reason, not a crash
        return Unavailable(f"CuPy cannot be imported: {error}", "pip install cupy-cuda12x, or cupy-cuda13x for CUDA 13")
    remedy = "run nvidia-smi; install a newer driver or the CuPy of the driver's CUDA version"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:  # CUDARuntimeError is one: no device, or a driver older than CuPy's CUDA
        return Unavailable(f"CuPy {cupy.__version__} finds no usable device: {error}", remedy)
    if not count:
        return Unavailable(f"CuPy {cupy.__version__} finds no device", remedy)
    found: list[Driver] = []
    for i in range(count):
        try:
            found.append(CupyDriver(i, count > 1))
        except RuntimeError as error:  # numbers must stay CUDA's: none rather than the others under wrong numbers
            remedy = "hide it with CUDA_VISIBLE_DEVICES, or see what nvidia-smi says of it"
            return Unavailable(f"CuPy {cupy.__version__} cannot use cuda:{i}: {error}", remedy)
    return found


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return "GPU-" + "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:32]])


def _compiler() -> str:
    version = nvrtc.version()
    return "" if version is None else f"NVRTC {version[0]}.{version[1]}"


class CupyDriver:
    """One device; the parts are those of `spiral.gpu.Driver`.

    Everything runs on one stream of its own, which does not wait for the default stream, so that it can be captured.
    """

    def __init__(self, index: int, many: bool) -> None:
        import cupy
        from cupy_backends.cuda.api import driver, runtime

        self._cupy, self._runtime, self._driver = cupy, runtime, driver
        self._device = cupy.cuda.Device(index)
        self.index, self._many = index, many
        with self._device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self._pool = cupy.cuda.MemoryPool()
            properties = runtime.getDeviceProperties(index)
        self._stream: int = self.stream.ptr
        self._modules: list[Any] = []  # keep what handles point to
        self.functions: dict[Any, Any] = {}
        self.synchronizations = 0
        self.usage = Usage()
        self._captured: list[Any] | None = None  # while a graph is made, the blocks that its launches use
        self._side: Any = None  # the stream of copies that run ahead, made when there is one
        version = runtime.driverGetVersion()
        self.facts = Facts(
            name=properties["name"].decode(),
            cc=properties["major"] * 10 + properties["minor"],
            multiprocessors=properties["multiProcessorCount"],
            shared_memory=properties["sharedMemPerBlockOptin"],
            memory=properties["totalGlobalMem"],
            driver=f"CuPy {cupy.__version__}, driver for CUDA {version // 1000}.{version % 1000 // 10}",
            compiler=_compiler(),
            more={"l2": properties["l2CacheSize"], "uuid": _uuid(properties["uuid"])},
        )

    @functools.cached_property
    def blas(self) -> Any:
        """`spiral.gpu.cublas.Cublas`, made when a product first asks; None: CuPy loads none, our kernels do it all."""
        from spiral.gpu import cublas

        found = cublas.find(self._device, self.stream)
        self.facts.more["blas"] = found.reason if isinstance(found, Unavailable) else found.name
        return None if isinstance(found, Unavailable) else found

    def allocate(self, nbytes: int) -> Any:
        """See `spiral.gpu.Driver`; from a pool of our own, in stream order."""
        with self._device, self.stream:
            try:
                block = _Block(self._pool.malloc(nbytes), self.usage)
            except self._cupy.cuda.memory.OutOfMemoryError:
                free, total = self._runtime.memGetInfo()
                cached = self._pool.free_bytes()
                raise OutOfMemoryError(f"cuda:{self.index}: {out_of_memory(nbytes, free + cached, total)}") from None
        if self._captured is not None:
            self._captured.append(block)
        return block

    def memory(self) -> dict[str, int]:
        """Bytes of the pool that are in use and kept, and what the device has free and in total."""
        with self._device:
            free, total = self._runtime.memGetInfo()
        return {
            "used": self._pool.used_bytes(), "cached": self._pool.free_bytes(), "free": free, "total": total,
        }  # fmt: skip

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """See `spiral.gpu.Driver`; pageable memory is staged before the call returns."""
        if self._captured is not None:
            self._write_to_graph(address, array)
            return
        self._runtime.memcpyAsync(address, array.ctypes.data, array.nbytes, _TO_DEVICE, self._stream)

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """See `spiral.gpu.Driver`."""
        self._refuse("read")
        self._runtime.memcpyAsync(array.ctypes.data, address, array.nbytes, _TO_HOST, self._stream)
        self.synchronize()

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """See `spiral.gpu.Driver`."""
        self._runtime.memcpyAsync(to, source, nbytes, _ON_DEVICE, self._stream)

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """See `spiral.gpu.Driver`."""
        self._runtime.memsetAsync(address, byte, nbytes, self._stream)

    def compile(self, source: CudaSource, name: str) -> int:
        """See `spiral.gpu.Driver`; compiles the one kernel, from the cache where it was compiled before."""
        from spiral.gpu.kernel_cache import cubin

        lowered, image = cubin(CUDA_FOLDER / source.file, name, f"sm_{self.facts.cc}")
        return self.load(image, lowered, 0)

    def load(self, image: bytes, name: str, shared: int) -> int:
        """See `spiral.gpu.Driver`."""
        with self._device:
            try:
                module = self._driver.moduleLoadData(image)
                function: int = self._driver.moduleGetFunction(module, name)
                if shared > _STATIC_SHARED or shared == 0:
                    limit = shared or self.facts.shared_memory
                    static = self._driver.funcGetAttribute(1, function)  # CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES
                    self._driver.funcSetAttribute(function, _MAX_DYNAMIC_SHARED, limit - static)
            except self._driver.CUDADriverError as error:
                # memory that is taken now may be free later: no reason to do without the kernel
                kind = KernelError if "OUT_OF_MEMORY" in str(error) else KernelBuildError
                raise kind(f"{name}: the driver does not load it on {self.facts.name}: {error}") from None
        self._modules.append(module)
        return function

    def launch(self, function: int, grid: Sequence[int], block: Sequence[int], shared: int, params: int) -> None:
        """See `spiral.gpu.Driver`."""
        if self._many:
            self._runtime.setDevice(self.index)
        self._driver.launchKernel(function, *grid, *block, shared, self._stream, params, 0)

    def synchronize(self) -> None:
        """See `spiral.gpu.Driver`."""
        self._refuse("synchronize")
        self.synchronizations += 1
        self.stream.synchronize()

    def event(self) -> Any:
        """See `spiral.gpu.Driver`."""
        event = self._cupy.cuda.Event()
        event.record(self.stream)
        return _Event(event, self)

    @property
    def stream_address(self) -> int:
        """See `spiral.gpu.driver.SharesStream`."""
        return self._stream

    def let_wait(self, stream: int) -> None:
        """See `spiral.gpu.driver.SharesStream`."""
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(self.stream)
            self._runtime.streamWaitEvent(stream, event.ptr)

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """See `spiral.gpu.Driver`."""
        return np.frombuffer(self._cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)

    def write_ahead(self, address: int, array: np.ndarray[Any, Any]) -> Any:
        """See `spiral.gpu.Driver`."""
        self._refuse("write_ahead")
        with self._device:
            side = self._side_stream()
            # the memory may have been somebody else's: what is enqueued so far comes first
            side.wait_event(self.event().event)
            self._runtime.memcpyAsync(address, array.ctypes.data, array.nbytes, _TO_DEVICE, side.ptr)
            done = self._cupy.cuda.Event()
            done.record(side)
            self.stream.wait_event(done)
        return _Event(done, self)

    def _write_to_graph(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Has a graph copy values that the device already has, on a stream of its own, which is not recorded."""
        assert self._captured is not None
        held = self.allocate(array.nbytes)
        fresh = any(b.address <= address < b.address + b.nbytes for b in self._captured)
        for to in (held.address, address) if fresh else (held.address,):
            self._runtime.memcpyAsync(to, array.ctypes.data, array.nbytes, _TO_DEVICE, self._side_stream().ptr)
        self._side_stream().synchronize()
        self.copy(address, held.address, array.nbytes)

    def _side_stream(self) -> Any:
        if self._side is None:
            self._side = self._cupy.cuda.Stream(non_blocking=True)
        return self._side

    def _refuse(self, what: str) -> None:
        """While a graph is made: refused here, before the device's library spoils the graph for it."""
        if self._captured is not None:
            raise KernelError(f"capture: expected launches, copies, fills and writes only; received a call of {what}.")

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """See `spiral.gpu.Driver`."""
        with self._device, self.stream:
            self.stream.synchronize()  # `_write_to_graph` writes beside the stream, to memory that may have been used
            self.stream.begin_capture()
            blocks = self._captured = []
            try:
                enqueue()
            except BaseException:
                self.stream.end_capture()  # else the stream stays unusable
                raise
            finally:
                self._captured = None
            graph = self.stream.end_capture()
        return _Graph(graph, self.stream, blocks)


class _Event:
    """A moment on CuPy's stream; see `spiral.gpu.driver.Event`."""

    def __init__(self, event: Any, driver: CupyDriver) -> None:
        self.event, self._driver = event, driver

    def done(self) -> bool:
        return bool(self.event.done)

    def wait(self) -> None:
        self._driver.synchronizations += 1
        self.event.synchronize()

    def milliseconds_since(self, earlier: _Event) -> float:
        return float(self._driver._cupy.cuda.get_elapsed_time(earlier.event, self.event))


class _Graph:
    """A CUDA graph on the stream that it was captured from, with the memory that was made meanwhile."""

    def __init__(self, graph: Any, stream: Any, blocks: list[Any]) -> None:
        self._graph, self._stream, self._blocks = graph, stream, blocks

    def launch(self) -> None:
        self._graph.launch(self._stream)


class _Block:
    """CuPy's memory, returned to its pool when this dies."""

    __slots__ = ("__weakref__", "_pointer", "_usage", "address", "nbytes")

    def __init__(self, pointer: Any, usage: Usage) -> None:
        self._pointer, self._usage = pointer, usage
        self.address: int = pointer.ptr
        self.nbytes: int = pointer.mem.size
        usage.add(self.nbytes)

    def __del__(self) -> None:
        self._usage.remove(self.nbytes)
