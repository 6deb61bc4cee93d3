"""Softmax, log-softmax and their gradients along any axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import NAMES, cast, dense
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.rows import WIDE, chosen_for_rows, measurable
from spiral.backends.triton.tuned import Tuned
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype
from spiral.kernels.triton import softmax as source

_R, _C = 16, 64


def _columns(fn: Any, *arrays: str) -> dict[Any, TritonKernel]:
    numbers = dict.fromkeys(("n", "columns", "tiles", "log"), "i32")
    return {
        d.numpy: TritonKernel(
            fn, dict.fromkeys(arrays, f"*{NAMES[d]}") | numbers, {"WIDE": WIDE[d], "R": _R, "C": _C},
            divisible=("columns",),
        )
        for d in FLOATS
    }  # fmt: skip


def _rows(fn: Any, op: str, *arrays: str) -> Tuned:
    params = dict.fromkeys(arrays, "*") | dict.fromkeys(("rows", "n", "log"), "i32")
    return measurable(fn, params, "softmax.py", op, len(arrays) - 1, (-1,))


_ROWS = _rows(source.softmax_rows, "softmax", "x", "y")
_COLUMNS = _columns(source.softmax_columns, "x", "y")
_GRAD_ROWS = _rows(source.softmax_grad_rows, "softmax_grad", "g", "y", "dx")
_GRAD_COLUMNS = _columns(source.softmax_grad_columns, "g", "y", "dx")


def _run(rows: Tuned, columns: dict[Any, TritonKernel], log: int, axis: int, *arrays: DeviceArray) -> None:
    """Launches for dense arrays of one shape and dtype, the last of which is written."""
    y = arrays[-1]
    if not y.size:
        return
    axis %= y.ndim
    n = y.shape[axis]
    outer, inner = math.prod(y.shape[:axis]), math.prod(y.shape[axis + 1 :])
    addresses = [a.address for a in arrays]
    if inner == 1:
        kernel, grid = chosen_for_rows(rows, y, outer, n)
        kernel(y.memory, grid, *addresses, outer, n, log)
        return
    tiles = -(-inner // _C)
    columns[y.dtype](y.memory, (outer * tiles, 1, 1), *addresses, n, inner, tiles, log)


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
