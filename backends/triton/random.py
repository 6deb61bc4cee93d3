"""Dropout from Philox streams: the bits of every other backend."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import LIMIT, NAMES, cast, dense, grid
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype, float64
from spiral.kernels.triton import random as source

_BLOCK = 2048  # 4 blocks of a stream for each thread
_WORDS = dict.fromkeys(("key0", "key1", "stream0", "stream1"), "u32")
_DROPOUT = {
    d.numpy: TritonKernel(
        source.dropout,
        {"x": f"*{NAMES[d]}", "y": f"*{NAMES[d]}", "n": "i32", "first": "i64", "edge": "u32"}
        | {"scale": "fp64" if d is float64 else "fp32"}
        | _WORDS,
        {"BLOCK": _BLOCK},
    )
    for d in FLOATS
}
_LOW = 2**32 - 1


def _dropout(x: DeviceArray, p: float, seed: int, stream: int, y: DeviceArray) -> None:
    edge, scale = int(p * 2.0**32 + 0.5), 1.0 / (1.0 - p)
    if edge > _LOW:  # no word reaches it
        y.memory.fill(y.address, 0, y.nbytes)
        return
    x = dense(cast(x, as_dtype(y.dtype)))
    if y.dtype != float64.numpy:
        scale = ctypes.c_float(scale).value
    words = (seed & _LOW, seed >> 32 & _LOW, stream & _LOW, stream >> 32 & _LOW)
    for first in range(0, y.size, LIMIT):
        n, offset = min(LIMIT, y.size - first), first * y.itemsize
        _DROPOUT[y.dtype](
            y.memory, grid(n, _BLOCK), x.address + offset, y.address + offset, n, first, edge, scale, *words
        )


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("dropout", _dropout, Cap(ANY.dtypes))
