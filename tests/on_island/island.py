"""A device that shares no memory with the host: a heap of bytes behind made-up addresses, and kernels that are oracles.

What reads a tensor's values without asking the device finds nothing: buffers are `DeviceArray`, not NumPy arrays.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from spiral.backend import Cap, DeviceInfo, Kernel, declared_ops, oracle_of
from spiral.device_array import DeviceArray, SeparateMemory
from spiral.dtype import FLOATS, DType, bool_, int32, int64


class Heap:
    """Blocks of bytes by address; an access outside of one is an error."""

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray] = {}
        self.next = 1 << 20
        self.starts: list[int] = []
        self.reads = 0
        self.lock = threading.Lock()

    def allocate(self, nbytes: int) -> Block:
        with self.lock:
            address = self.next
            self.next += (nbytes + 511) // 256 * 256
            self.starts.append(address)  # in order: they only grow
            self.blocks[address] = np.full(max(1, nbytes), 0xA5, np.uint8)
        return Block(self, address, nbytes)

    def at(self, address: int, nbytes: int) -> np.ndarray:
        start = self.starts[bisect.bisect(self.starts, address) - 1]
        assert start <= address and address - start + nbytes <= self.blocks[start].nbytes, "outside of every block"
        return self.blocks[start][address - start :][:nbytes]

    def write(self, address: int, array: np.ndarray) -> None:
        self.at(address, array.nbytes)[...] = np.frombuffer(array.tobytes(), np.uint8)

    def read(self, address: int, array: np.ndarray) -> None:
        self.reads += 1
        array[...] = self.at(address, array.nbytes).view(array.dtype).reshape(array.shape)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        self.at(to, nbytes)[...] = self.at(source, nbytes)


class Block:
    """Gives its bytes back when it dies."""

    def __init__(self, heap: Heap, address: int, nbytes: int) -> None:
        self.heap, self.address, self.nbytes = heap, address, nbytes

    def __del__(self) -> None:
        del self.heap.blocks[self.address]


def seen(x: Any) -> Any:
    """What the device's processor sees of a buffer: the memory itself, with its strides."""
    if isinstance(x, list):
        return [seen(a) for a in x]
    if not isinstance(x, DeviceArray):
        return x
    if not x.size:
        return np.empty(x.shape, x.dtype)
    return np.ndarray(x.shape, x.dtype, x.memory.blocks[x.block.address], x.address - x.block.address, x.strides)


def widened(x: Any) -> Any:
    """16-bit floats as float32."""
    if isinstance(x, list):
        return [widened(a) for a in x]
    return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.name in ("float16", "bfloat16") else x


def rounded(x: Any, dtype: DType) -> np.ndarray:
    """A result in the dtype that it shall have."""
    x = np.asarray(x)
    return x.astype(np.float32).astype(dtype.numpy) if dtype.storage_only else x.astype(dtype.numpy)


def kernel_of(op: str, heap: Heap) -> Kernel:
    """A kernel that runs an op's oracle on the device's memory."""
    oracle, mutates = oracle_of(op)[:2]

    def bind(_: Callable[..., Any], dtypes: tuple[DType, ...]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            raw = [seen(a) for a in args]
            wide = [widened(a) for a in raw]
            with np.errstate(all="ignore"):
                outs = oracle(*wide)
                if mutates:
                    for before, after in zip(raw, wide, strict=True):
                        for b, a in zip(before, after, strict=True) if isinstance(before, list) else [(before, after)]:
                            if b is not a:
                                b[...] = a.astype(b.dtype)
                outs = outs if isinstance(outs, tuple) else (outs,)
                last = len(dtypes) - 1
                return tuple(
                    [DeviceArray.from_host(heap, rounded(o, dtypes[min(k, last)])) for k, o in enumerate(outs)]
                )

        return run

    return Kernel(op, oracle, Cap(FLOATS, (bool_, int32, int64), scalars=True), allocates=True, bind=bind)


class Island:
    """Its backend.

    Args:
        without: ops that it has no kernel for.
        replaced: kernels to use instead of an op's oracle.
    """

    priority = 10

    def __init__(self, name: str, without: Iterable[str] = (), replaced: Iterable[Kernel] = ()) -> None:
        self.name = self.device_type = name
        self.heap = Heap()
        self.left_out = set(without)
        self.replaced = {kernel.op: kernel for kernel in replaced}

    def probe(self) -> list[DeviceInfo]:
        return [DeviceInfo(self.device_type, 0, "an island", {}, SeparateMemory(self.heap))]

    def kernels(self) -> Iterable[Kernel]:
        for op in declared_ops():
            if op not in self.left_out and oracle_of(op) is not None:
                yield self.replaced.get(op) or kernel_of(op, self.heap)
