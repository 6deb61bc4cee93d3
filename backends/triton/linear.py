"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import cast, cast_into, dense
from spiral.backends.triton.gemm import column_sums, multiply, transposed
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, int32, int64


def _compute_in(d: DType) -> DType:
    """Integers wrap, so that a wider type gives the same low bits."""
    if d.kind == "float" or d is int64:
        return d
    return int64 if d.itemsize == 8 else int32


def _matmul(x: DeviceArray, y: DeviceArray, z: DeviceArray) -> None:
    if not z.size:
        return
    d = _compute_in(as_dtype(z.dtype))
    x, y = cast(x, d), cast(y, d)
    x = x[None, :] if x.ndim == 1 else x
    w = y[None, :] if y.ndim == 1 else transposed(y)
    lead = z.shape[: max(x.ndim, w.ndim) - 2]
    to = z if z.dtype == d.numpy else DeviceArray.empty(z.memory, z.shape, d.numpy)
    full = to.reshape_view((*lead, x.shape[-2], w.shape[-2]))
    assert full is not None
    multiply(x, w, full)
    if to is not z:
        cast_into(to, z)


def _rows(x: DeviceArray, shape: tuple[int, int]) -> DeviceArray:
    """x (..., n) as (rows, n); a copy only where the leading axes do not lie in one stretch."""
    view = x.reshape_view(shape)
    view = dense(x).reshape_view(shape) if view is None else view
    assert view is not None
    return view


def _linear(x: DeviceArray, weight: DeviceArray, bias: Any, activation: str, y: DeviceArray) -> None:
    if not y.size:
        return
    d = as_dtype(y.dtype)
    count = math.prod(y.shape[:-1])
    bias = None if bias is None else dense(cast(bias, d))
    rows = _rows(cast(x, d), (count, x.shape[-1]))
    multiply(rows, cast(weight, d), _rows(y, (count, y.shape[-1])), bias, activation)


def _gradient(write: Callable[[DeviceArray], None], y: DeviceArray, d: DType) -> None:
    """Has a product in dtype d written to y, which may have another."""
    if not y.size:
        return
    to = y if y.dtype == d.numpy else DeviceArray.empty(y.memory, y.shape, d.numpy)
    write(to)
    if to is not y:
        cast_into(to, y)


def _linear_grad(
    g: DeviceArray, x: DeviceArray, weight: DeviceArray, need_x: bool, need_weight: bool, need_bias: bool,
    dx: DeviceArray, dw: DeviceArray, db: DeviceArray,
) -> None:  # fmt: skip
    d = as_dtype(g.dtype)
    out, width = weight.shape
    count = math.prod(g.shape[:-1])
    g = _rows(g, (count, out))
    if need_x:

        def to_x(y: DeviceArray) -> None:
            multiply(g, transposed(cast(weight, d)), _rows(y, (count, width)))

        _gradient(to_x, dx, d)
    if need_weight:

        def to_weight(y: DeviceArray) -> None:
            multiply(transposed(g), transposed(_rows(cast(x, d), (count, width))), y)

        _gradient(to_weight, dw, d)
    if need_bias:
        _gradient(lambda y: column_sums(g, y), db, d)


def _narrow(*operands: Any) -> bool:
    """Offsets within a tile, which may have 128 rows, are of 32 bits."""
    return all(x.size < 2**31 or max(x.shape[-2:]) < 2**24 for x in operands if isinstance(x, DeviceArray))


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS, where=_narrow, where_text="takes fewer than 2**31 elements, or axes of fewer than 2**24")
    yield Kernel("matmul", _matmul, replace(cap, integers=ANY.integers))
    yield Kernel("linear", _linear, cap)
    yield Kernel("linear_grad", _linear_grad, cap)
