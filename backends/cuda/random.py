"""Dropout from Philox streams: the bits of every other backend."""

from __future__ import annotations

from collections.abc import Iterator

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import THREADS, cast, dense
from spiral.backends.cuda.broadcast import BLOCK, FLOATING, LIMIT, ROUNDS
from spiral.backends.cuda.launching import Source
from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype

_SOURCE = Source("random.cu")
_DROPOUT = {d.numpy: _SOURCE.kernel(f"spiral::dropout<{t}>", *"PPIIdQQQ") for d, t in FLOATING.items()}


def _dropout(x: DeviceArray, p: float, seed: int, stream: int, y: DeviceArray) -> None:
    edge, scale = int(p * 2.0**32 + 0.5), 1.0 / (1.0 - p)
    if edge == 2**32:  # no word reaches it
        y.memory.fill(y.address, 0, y.nbytes)
        return
    x = dense(cast(x, as_dtype(y.dtype)))
    kernel, size = _DROPOUT[y.dtype], y.dtype.itemsize
    per_block = THREADS * ROUNDS * (8 if size < 4 else 4)
    for first in range(0, y.size, LIMIT // 2):
        n, offset = min(LIMIT // 2, y.size - first), first * size
        grid = (-(-n // per_block), 1, 1)
        kernel(y.memory, grid, BLOCK, x.address + offset, y.address + offset, n, edge, scale, seed, stream, first)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("dropout", _dropout, Cap(ANY.dtypes))
