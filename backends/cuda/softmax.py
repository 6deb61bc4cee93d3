"""Softmax, log-softmax and their gradients along any axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, cast, dense
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.backends.cuda.rows import column_threads, row_choice, row_class, row_grid
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype
from spiral.gpu.tuning import Choice, Trial

_SOURCE = Source("softmax.cu")


def _kernels(name: str, *formats: str) -> dict[Any, CudaKernel]:
    return {d.numpy: _SOURCE.kernel(f"spiral::{name}<{NAMES[d]}>", *formats) for d in FLOATS}


_ROWS = _kernels("softmax_rows", *"PPqqii")
_COLUMNS = _kernels("softmax_columns", *"PPqqqii")
_GRAD_ROWS = _kernels("softmax_grad_rows", *"PPPqqii")
_GRAD_COLUMNS = _kernels("softmax_grad_columns", *"PPPqqqii")

ROWS: Choice = row_choice(
    "softmax_rows", "softmax.cu", lambda rows, n, dtype: Trial("softmax", (((rows, n), dtype),), (-1,))
)
GRAD_ROWS: Choice = row_choice(
    "softmax_grad_rows", "softmax.cu",
    lambda rows, n, dtype: Trial("softmax_grad", (((rows, n), dtype), ((rows, n), dtype)), (-1,)),
)  # fmt: skip


def _run(
    rows: dict[Any, CudaKernel], columns: dict[Any, CudaKernel], log: int, axis: int, *arrays: DeviceArray
) -> None:
    """Launches for dense arrays of one shape and dtype, the last of which is written."""
    y = arrays[-1]
    if not y.size:
        return
    axis %= y.ndim
    n = y.shape[axis]
    outer, inner = math.prod(y.shape[:axis]), math.prod(y.shape[axis + 1 :])
    addresses = [a.address for a in arrays]
    if inner == 1:
        held = 8 if len(arrays) == 2 and y.itemsize == 4 else 4  # as in softmax.cu
        choice = ROWS if len(arrays) == 2 else GRAD_ROWS
        config = choice.at(y.memory, row_class(n, y.itemsize))
        group, grid, block = row_grid(outer, n, y.itemsize, held, config)
        rows[y.dtype](y.memory, grid, block, *addresses, outer, n, group, log)
        return
    across = column_threads(outer * inner, n)
    most = max(1, (1 << 31) // inner)  # kernels count columns in 32 bits
    for k in range(0, outer, most):
        part = min(most, outer - k)
        grid = (-(-part * inner // across), 1, 1)
        starts = [a + k * n * inner * y.itemsize for a in addresses]
        columns[y.dtype](y.memory, grid, (THREADS, 1, 1), *starts, part, n, inner, across, log)


def _forward(log: int) -> Callable[[DeviceArray, int, DeviceArray], None]:
    def run(x: DeviceArray, axis: int, y: DeviceArray) -> None:
        _run(_ROWS, _COLUMNS, log, axis, dense(x), y)

    run.__name__ = "log_softmax" if log else "softmax"
    return run


def _gradient(log: int) -> Callable[[DeviceArray, DeviceArray, int, DeviceArray], None]:
    def run(g: DeviceArray, y: DeviceArray, axis: int, dx: DeviceArray) -> None:
        d = as_dtype(dx.dtype)
        _run(_GRAD_ROWS, _GRAD_COLUMNS, log, axis, dense(cast(g, d)), dense(cast(y, d)), dx)

    run.__name__ = "log_softmax_grad" if log else "softmax_grad"
    return run


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    floats = Cap(FLOATS)
    yield Kernel("softmax", _forward(0), floats)
    yield Kernel("log_softmax", _forward(1), floats)
    yield Kernel("softmax_grad", _gradient(0), floats)
    yield Kernel("log_softmax_grad", _gradient(1), floats)
