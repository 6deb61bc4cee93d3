"""One launch: a device's limits, the stacks that fibers run on, parameters, the call into a shared object."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spiral.errors import ArgumentError, KernelError
from spiral.gpu.params import sizes_at

MAX_THREADS = 1024
SHARED_MEMORY = 227 << 10  # what a block of an sm_90 device may ask for
_SHARED_FENCE = 1024
_STACK_BYTES = 256 << 10
_MESSAGE_BYTES = 8192
_ORDERS = ("forward", "reverse", "shuffle")
_GRID_LIMITS = ((1 << 31) - 1, 65535, 65535)
_BLOCK_LIMITS = (1024, 1024, 64)

# every shared object has one scheduler, and all use the same stacks: one launch at a time in the process
_launching = threading.Lock()


class Launched(NamedTuple):
    """A launch: the kernel's name, blocks, threads, bytes of dynamic shared memory."""

    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int


class Kernel(NamedTuple):
    """A kernel in a shared object."""

    name: str
    library: ctypes.CDLL
    number: int
    parameters: tuple[tuple[int, int], ...]  # bytes of each, and how many of them may be padding at its end


class _Parameter(ctypes.Structure):
    """``Parameter`` of entry.h."""

    _fields_ = [("bytes", ctypes.c_int), ("padding", ctypes.c_int)]


class _Launch(ctypes.Structure):
    """``Launch`` of scheduler.cpp."""

    _fields_ = [
        ("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3), ("shared", ctypes.c_uint64),
        ("shared_memory", ctypes.c_void_p), ("shared_fence", ctypes.c_uint64), ("stacks", ctypes.c_void_p),
        ("stack_bytes", ctypes.c_uint64), ("guard_bytes", ctypes.c_uint64), ("order", ctypes.c_uint32),
        ("seed", ctypes.c_uint32), ("message", ctypes.c_void_p), ("message_bytes", ctypes.c_uint64),
        ("fault", ctypes.c_void_p),
    ]  # fmt: skip


def run(kernel: Kernel, launched: Launched, order: tuple[int, int], params: int) -> None:
    """Runs a kernel to its end.

    Raises:
        KernelError: it gave up.
    """
    with _launching:
        what = _scratch()
        launch = _Launch(
            launched.grid, launched.block, launched.shared, what.shared, _SHARED_FENCE, what.stacks, _STACK_BYTES,
            mmap.PAGESIZE, *order, ctypes.addressof(what.message), _MESSAGE_BYTES, None,
        )  # fmt: skip
        failed = kernel.library.spiral_launch(kernel.number, launch, params)
        text = what.message.value.decode(errors="replace") if failed else ""
    if failed:
        raise KernelError(f"{kernel.name}: {text}{_line_of(kernel.library, launch.fault)}")


def open_library(path: os.PathLike[str]) -> ctypes.CDLL:
    """A shared object of kernels."""
    library = ctypes.CDLL(os.fspath(path))
    library.spiral_launch.argtypes = [ctypes.c_int, ctypes.POINTER(_Launch), ctypes.c_void_p]
    library.spiral_parameters.restype = ctypes.POINTER(_Parameter)
    return library


def kernel_of(library: ctypes.CDLL, number: int, name: str) -> Kernel:
    """One of a shared object's kernels, by its number there."""
    declared = itertools.takewhile(lambda p: p.bytes >= 0, library.spiral_parameters(number))
    return Kernel(name, library, number, tuple([(p.bytes, p.padding) for p in declared]))


def require_parameters(kernel: Kernel, params: int) -> None:
    """Refuses parameters that were packed with other sizes than the kernel's have: a device would read what is there.

    Raises:
        KernelError: their number or a size differs.
    """
    try:
        packed = sizes_at(params)
    except KeyError:  # not of `Params`
        return
    expected = [size for size, _ in kernel.parameters]
    alike = len(packed) == len(expected) and all(
        size - padding <= given <= size for given, (size, padding) in zip(packed, kernel.parameters, strict=True)
    )
    if not alike:
        raise KernelError(f"{kernel.name}: expected parameters of {expected} bytes; received {list(packed)}.")


def require_limits(name: str, grid: Sequence[int], block: Sequence[int], shared: int) -> None:
    """Refuses what a device refuses.

    Raises:
        KernelError: too many or too few blocks, threads or bytes.
    """
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


def parse_order(text: str) -> tuple[int, int]:
    """The scheduler's number of an order, and its seed.

    Raises:
        ArgumentError: there is no such order.
    """
    name, _, seed = text.partition(":")
    if name not in _ORDERS or (name == "shuffle") != seed.isdecimal():
        raise ArgumentError(
            f"order (SPIRAL_CUDA_ORDER): expected forward, reverse or shuffle:<seed>; received {text!r}."
        )
    return _ORDERS.index(name), int(seed or 0) & 0xFFFFFFFF


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
