"""The device that is none: CUDA C++ kernels run on the processor, launches are logged, mistakes are errors."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import platform
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spiral.errors import ArgumentError, KernelError
from spiral.gpu.driver import CudaSource, Facts
from spiral.gpu.sources import CUDA_FOLDER
from spiral.testing.cuda_on_cpu import compiler
from spiral.testing.cuda_on_cpu.memory import POISON, Arena, HostBlock

MAX_THREADS = 1024
SHARED_MEMORY = 227 << 10  # what a block of an sm_90 device may ask for
_SHARED_FENCE = 1024
_STACK_BYTES = 256 << 10
_LOGGED = 10_000
_MESSAGE_BYTES = 8192
_ORDERS = ("forward", "reverse", "shuffle")
_GRID_LIMITS = ((1 << 31) - 1, 65535, 65535)
_BLOCK_LIMITS = (1024, 1024, 64)

# every shared object has one scheduler, and all use the same stacks: one launch at a time in the process
_launching = threading.Lock()


class Launched(NamedTuple):
    """A line of the log."""

    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int


class _Launch(ctypes.Structure):
    """``Launch`` of scheduler.cpp."""

    _fields_ = [
        ("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3), ("shared", ctypes.c_uint64),
        ("shared_memory", ctypes.c_void_p), ("shared_fence", ctypes.c_uint64), ("stacks", ctypes.c_void_p),
        ("stack_bytes", ctypes.c_uint64), ("guard_bytes", ctypes.c_uint64), ("order", ctypes.c_uint32),
        ("seed", ctypes.c_uint32), ("message", ctypes.c_void_p), ("message_bytes", ctypes.c_uint64),
        ("fault", ctypes.c_void_p),
    ]  # fmt: skip


class _Kernel(NamedTuple):
    name: str
    library: ctypes.CDLL
    number: int


class CudaOnCpu:
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
        self._order, self._seed = _order(os.environ.get("SPIRAL_CUDA_ORDER", "forward") if order is None else order)
        self._arena = Arena(memory)
        self.usage = self._arena.usage
        self._capturing: _Graph | None = None
        self._kernels: list[_Kernel] = []
        self._libraries: dict[Path, ctypes.CDLL] = {}

    # ------------------------------------------------------------ memory
    def allocate(self, nbytes: int) -> HostBlock:
        """Memory whose bytes are all 0xff, NaN in every floating type, with fences around it."""
        block = self._arena.allocate(nbytes)
        if self._capturing is not None:
            self._capturing.blocks.append(block)
        return block

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copies a C-contiguous host array to the device."""
        self._refuse_in_capture("writes memory of the host")
        self._arena.require(address, _host_bytes("write", array), "write")
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
        self._enqueue(lambda: ctypes.memmove(to, source, nbytes))

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Sets every byte."""
        self._arena.require(address, nbytes, "fill")
        self._enqueue(lambda: ctypes.memset(address, byte, nbytes))

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
            library = self._libraries[path] = ctypes.CDLL(str(path))
            library.spiral_launch.argtypes = [ctypes.c_int, ctypes.POINTER(_Launch), ctypes.c_void_p]
            library.spiral_parameters.restype = ctypes.POINTER(ctypes.c_int)
        self._kernels.append(_Kernel(name, library, names.index(name)))
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
            KernelError: the launch is out of a device's limits, or the kernel deadlocks, traps, touches memory that is
                not there or overruns its dynamic shared memory; the message tells block and threads.
        """
        kernel = self._kernels[function]
        _require_limits(kernel.name, grid, block, shared)
        launched = Launched(kernel.name, (grid[0], grid[1], grid[2]), (block[0], block[1], block[2]), shared)
        if self._capturing is None:
            self._run(kernel, launched, params)
        else:
            kept = _Parameters(kernel, params)
            self._enqueue(lambda: self._run(kernel, launched, kept.address))

    def _run(self, kernel: _Kernel, launched: Launched, params: int) -> None:
        self.launches.append(launched)
        with _launching:
            what = _scratch()
            launch = _Launch(
                launched.grid, launched.block, launched.shared, what.shared, _SHARED_FENCE, what.stacks, _STACK_BYTES,
                mmap.PAGESIZE, self._order, self._seed, ctypes.addressof(what.message), _MESSAGE_BYTES, None,
            )  # fmt: skip
            failed = kernel.library.spiral_launch(kernel.number, launch, params)
            text = what.message.value.decode(errors="replace") if failed else ""
        if failed:
            raise KernelError(f"{kernel.name}: {text}{_line_of(kernel.library, launch.fault)}")

    def synchronize(self) -> None:
        """Counts; a launch has ended when it returns."""
        self._refuse_in_capture("waits")
        self.synchronizations += 1

    # ------------------------------------------------------------ events and graphs
    def event(self) -> _Event:
        """A moment, which has come when this returns."""
        return _Event(self)

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """Memory like any other."""
        return np.full(nbytes, POISON, np.uint8)

    def write_ahead(self, address: int, array: np.ndarray[Any, Any]) -> _Event:
        """Writes at once."""
        self.write(address, array)
        return self.event()

    def capture(self, enqueue: Callable[[], None]) -> _Graph:
        """Notes what is launched, copied and filled, with the values of the parameters as they are now.

        Raises:
            KernelError: it reads, writes from the host, waits or captures.
        """
        self._refuse_in_capture("captures")
        self._capturing = graph = _Graph()
        try:
            enqueue()
        finally:
            self._capturing = None
        return graph

    def _enqueue(self, work: Callable[[], Any]) -> None:
        if self._capturing is None:
            work()
        else:
            self._capturing.work.append(work)

    def _refuse_in_capture(self, what: str) -> None:
        if self._capturing is not None:
            raise KernelError(f"capture: expected launches, copies and fills only; it {what}.")


class _Event:
    """A moment on the clock; see `spiral.gpu.driver.Event`."""

    def __init__(self, driver: CudaOnCpu) -> None:
        self._driver = driver
        self._time = time.perf_counter()

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        self._driver.synchronize()

    def milliseconds_since(self, earlier: _Event) -> float:
        return (self._time - earlier._time) * 1e3


class _Graph:
    """Work to be done again; keeps the blocks that were made meanwhile."""

    def __init__(self) -> None:
        self.work: list[Callable[[], Any]] = []
        self.blocks: list[HostBlock] = []

    def launch(self) -> None:
        for work in self.work:
            work()


class _Parameters:
    """A copy of a launch's parameters."""

    def __init__(self, kernel: _Kernel, params: int) -> None:
        sizes = list(itertools.takewhile(lambda n: n >= 0, kernel.library.spiral_parameters(kernel.number)))
        given = (ctypes.c_void_p * len(sizes)).from_address(params)
        self._values = [_aligned_copy(p or 0, n) for p, n in zip(given, sizes, strict=True)]
        self._pointers = (ctypes.c_void_p * max(1, len(sizes)))(*[v.ctypes.data for v in self._values])
        self.address = ctypes.addressof(self._pointers)


def _aligned_copy(address: int, nbytes: int) -> np.ndarray[Any, Any]:
    room = np.empty(nbytes + 15, np.uint8)
    copy = room[-room.ctypes.data % 16 :][:nbytes]
    ctypes.memmove(copy.ctypes.data, address, nbytes)
    return copy


class _Scratch:
    """Stacks for a block's threads and its dynamic shared memory; pages come into being when they are touched."""

    def __init__(self) -> None:
        self._maps = [
            mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for nbytes in (MAX_THREADS * _STACK_BYTES, SHARED_MEMORY + _SHARED_FENCE)
        ]
        self.message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self.stacks, self.shared = (ctypes.addressof(ctypes.c_char.from_buffer(m)) for m in self._maps)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for i in range(MAX_THREADS):
            if protect(self.stacks + i * _STACK_BYTES, mmap.PAGESIZE, 0):
                raise KernelError(f"the stacks' guards cannot be set: {os.strerror(ctypes.get_errno())}")


_the_scratch: _Scratch | None = None


def _scratch() -> _Scratch:
    global _the_scratch
    if _the_scratch is None:
        _the_scratch = _Scratch()
    return _the_scratch


def _order(text: str) -> tuple[int, int]:
    name, _, seed = text.partition(":")
    if name not in _ORDERS or (name == "shuffle") != seed.isdecimal():
        raise ArgumentError(
            f"order (SPIRAL_CUDA_ORDER): expected forward, reverse or shuffle:<seed>; received {text!r}."
        )
    return _ORDERS.index(name), int(seed or 0) & 0xFFFFFFFF


def _host_bytes(what: str, array: np.ndarray[Any, Any]) -> int:
    if not array.flags.c_contiguous:
        raise KernelError(f"{what}: expected a C-contiguous array; received strides {array.strides}.")
    return array.nbytes


def _require_limits(name: str, grid: Sequence[int], block: Sequence[int], shared: int) -> None:
    if len(grid) != 3 or any(not 1 <= n <= most for n, most in zip(grid, _GRID_LIMITS, strict=True)):
        raise KernelError(f"{name}: expected a grid of 1 to {_GRID_LIMITS} blocks; received {tuple(grid)}.")
    threads = int(np.prod(block))
    if len(block) != 3 or threads > MAX_THREADS or any(
        not 1 <= n <= most for n, most in zip(block, _BLOCK_LIMITS, strict=True)
    ):  # fmt: skip
        raise KernelError(
            f"{name}: expected a block of 1 to {_BLOCK_LIMITS} threads, at most {MAX_THREADS} in all; "
            f"received {tuple(block)}."
        )
    if not 0 <= shared <= SHARED_MEMORY:
        raise KernelError(f"{name}: expected at most {SHARED_MEMORY} bytes of shared memory; received {shared}.")


def _line_of(library: ctypes.CDLL, fault: int | None) -> str:
    """Source line of an instruction, as binutils tells it; empty where they are not installed."""
    if not fault or not shutil.which("addr2line") or not shutil.which("nm"):
        return ""
    here = ctypes.cast(library.spiral_launch, ctypes.c_void_p).value or 0
    symbols = subprocess.run(["nm", "-D", library._name], capture_output=True, text=True).stdout
    for line in symbols.splitlines():
        if line.endswith(" spiral_launch"):
            offset = fault - here + int(line.split()[0], 16)
            command = ["addr2line", "-s", "-e", library._name, hex(offset)]
            place = subprocess.run(command, capture_output=True, text=True).stdout.split(" (")[0].strip()
            return "" if place.startswith("?") else f" ({place})"
    return ""
