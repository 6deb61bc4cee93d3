"""Blocks of host memory that stand for a device's: poisoned, fenced, and counted.

What a kernel reads without having written it is NaN in every floating type, and what it writes outside of a block is
found when the fences around it are looked at.
"""

from __future__ import annotations

import bisect
import ctypes
import threading

from spiral.errors import KernelError, OutOfMemoryError
from spiral.gpu.memory import out_of_memory
from spiral.gpu.usage import Usage

ALIGNMENT = 256
POISON = 0xFF
_FENCE_BYTES = 1024  # on either side; a multiple of the alignment
_FENCE = 0xA5
_FENCE_PATTERN = bytes([_FENCE]) * (_FENCE_BYTES + ALIGNMENT)

_libc = ctypes.CDLL(None)
_libc.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_ADDRESS_SANITIZER = hasattr(_libc, "__asan_unpoison_memory_region")


class HostBlock:
    """Memory that goes back when the object dies."""

    __slots__ = ("__weakref__", "_arena", "address", "nbytes")

    def __init__(self, arena: Arena, address: int, nbytes: int) -> None:
        self._arena = arena
        self.address = address
        self.nbytes = nbytes

    def __del__(self) -> None:
        self._arena.release(self.address)


class Arena:
    """Gives out blocks and remembers them.

    Attributes:
        capacity: bytes that blocks may have together.
        usage: bytes that they have.
        overruns: what was found when a block was freed; `check` raises them.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.usage = Usage()
        self.overruns: list[str] = []
        self._lock = threading.RLock()  # a collection inside of a method may free blocks
        self._addresses: list[int] = []
        self._sizes: dict[int, int] = {}

    def allocate(self, nbytes: int) -> HostBlock:
        """A block whose bytes are all 0xff.

        Raises:
            OutOfMemoryError: the blocks would have more than `capacity` bytes.
        """
        with self._lock:
            free = self.capacity - self.usage.used
            if nbytes > free:
                raise OutOfMemoryError(f"CUDA on the processor: {out_of_memory(nbytes, free, self.capacity)}")
            # under AddressSanitizer its own fences, which trap at once, stand for ours
            fence = 0 if _ADDRESS_SANITIZER else _FENCE_BYTES
            tail = 0 if _ADDRESS_SANITIZER else -nbytes % ALIGNMENT
            pointer = ctypes.c_void_p()
            if _libc.posix_memalign(pointer, ALIGNMENT, max(1, fence + nbytes + tail + fence)) or not pointer.value:
                raise OutOfMemoryError(f"CUDA on the processor: the system has no {nbytes:,} bytes left.")
            start = pointer.value
            address = start + fence
            ctypes.memset(start, _FENCE, fence)
            ctypes.memset(address, POISON, nbytes)
            ctypes.memset(address + nbytes, _FENCE, tail + fence)
            self.usage.add(nbytes)
            bisect.insort(self._addresses, address)
            self._sizes[address] = nbytes
        return HostBlock(self, address, nbytes)

    def release(self, address: int) -> None:
        """Takes a block back."""
        with self._lock:
            nbytes = self._sizes[address]
            overrun = self._overrun(address)
            if overrun is not None:
                self.overruns.append(overrun + " (found when it was freed)")
            del self._sizes[address]
            del self._addresses[bisect.bisect_left(self._addresses, address)]
            self.usage.remove(nbytes)
            ctypes.memset(address, POISON, nbytes)  # for who still reads it
            _libc.free(address - (0 if _ADDRESS_SANITIZER else _FENCE_BYTES))

    def check(self) -> list[str]:
        """What was written outside of blocks, each told once."""
        with self._lock:
            for address in self._addresses:
                overrun = self._overrun(address)
                if overrun is not None:
                    self.overruns.append(overrun)
                    self._mend(address)
            found, self.overruns = self.overruns, []
        return found

    def require(self, address: int, nbytes: int, what: str) -> None:
        """Refuses a range that does not lie in one block.

        Raises:
            KernelError: it does not.
        """
        with self._lock:
            i = bisect.bisect_right(self._addresses, address) - 1
            start = self._addresses[i] if i >= 0 else 0
            size = self._sizes.get(start, 0)
        if i < 0 or address + nbytes > start + size:
            where = f"the block before it is {start:#x} with {size} bytes" if i >= 0 else "there is no block before it"
            raise KernelError(f"{what}: {nbytes} bytes at {address:#x} do not lie in a block; {where}.")

    def _overrun(self, address: int) -> str | None:
        if _ADDRESS_SANITIZER:
            return None
        nbytes = self._sizes[address]
        before = ctypes.string_at(address - _FENCE_BYTES, _FENCE_BYTES)
        end = address + nbytes
        size = -nbytes % ALIGNMENT + _FENCE_BYTES
        after = ctypes.string_at(end, size)
        if before == _FENCE_PATTERN[:_FENCE_BYTES] and after == _FENCE_PATTERN[:size]:
            return None
        told = []
        wrong = [i for i, byte in enumerate(after) if byte != _FENCE]
        if wrong:
            told.append(f"{len(wrong)} bytes after its end, the first {wrong[0]} bytes behind it")
        wrong = [i for i, byte in enumerate(before) if byte != _FENCE]
        if wrong:
            told.append(f"{len(wrong)} bytes before its start, the last {_FENCE_BYTES - wrong[-1]} bytes ahead of it")
        return f"block of {nbytes} bytes at {address:#x}: something wrote {' and '.join(told)}"

    def _mend(self, address: int) -> None:
        nbytes = self._sizes[address]
        ctypes.memset(address - _FENCE_BYTES, _FENCE, _FENCE_BYTES)
        ctypes.memset(address + nbytes, _FENCE, -nbytes % ALIGNMENT + _FENCE_BYTES)
