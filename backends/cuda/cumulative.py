"""Running sums and products along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, cast, dense
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.backends.cuda.rows import BLOCKS
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype, float32, float64, uint64

_SOURCE = Source("cumulative.cu")
_OPS = ("Add", "Times")
_DTYPES = (*FLOATS, uint64)


def _kernels(name: str, formats: str, dtypes: Any = _DTYPES) -> dict[Any, CudaKernel]:
    return {
        (op, d): _SOURCE.kernel(f"spiral::{name}<{NAMES[d]}, spiral::{op}>", *formats) for op in _OPS for d in dtypes
    }


_ROWS = _kernels("cumulative_rows", "PPPPqqq")
_COLUMNS = _kernels("cumulative_columns", "PPPPqqqq")
_STARTS = _kernels("cumulative_starts", "Pqq", (float32, float64, uint64))


def _segment(n: int, blocks: int, least: int) -> int:
    """Elements of a segment, where ``blocks`` are enough for all columns; ``least`` are worth one."""
    segments = max(1, min(n // least, BLOCKS // (2 * blocks)))
    return -(-n // segments)


def _running(op: str) -> Callable[[DeviceArray, int, DeviceArray], None]:
    def run(x: DeviceArray, axis: int, y: DeviceArray) -> None:
        if not y.size:
            return
        gpu, d = y.memory, as_dtype(y.dtype)
        x = dense(cast(x, d))
        if d.kind != "float":
            d = uint64
        wide = d if d in (float64, uint64) else float32
        axis %= y.ndim
        n = y.shape[axis]
        outer, inner = math.prod(y.shape[:axis]), math.prod(y.shape[axis + 1 :])
        columns = outer * inner
        blocks = columns if inner == 1 else -(-columns // THREADS)
        segment = _segment(n, blocks, 8192 if inner == 1 else 64)
        kernel = (_ROWS if inner == 1 else _COLUMNS)[op, d]
        numbers = (columns, n, segment) if inner == 1 else (outer, n, inner, segment)
        segments = -(-n // segment)
        grid, block = (blocks, segments, 1), (THREADS, 1, 1)
        starts = 0
        if segments > 1:
            totals = DeviceArray.empty(gpu, (segments, columns), wide.numpy)
            starts = totals.address
            kernel(gpu, grid, block, x.address, y.address, starts, 0, *numbers)
            _STARTS[op, wide](gpu, (-(-columns // THREADS), 1, 1), block, starts, segments, columns)
        kernel(gpu, grid, block, x.address, y.address, 0, starts, *numbers)

    run.__name__ = "cumulative_sum" if op == "Add" else "cumulative_prod"
    return run


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    arrays = Cap(ANY.dtypes, ANY.integers)
    yield Kernel("cumulative_sum", _running("Add"), arrays)
    yield Kernel("cumulative_prod", _running("Times"), arrays)
