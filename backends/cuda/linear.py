"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import cast, cast_into, dense
from spiral.backends.cuda.gemm import (
    LIBRARY_FROM,
    LIBRARY_TEXT,
    column_sums,
    in_tf32,
    library_multiply,
    library_takes,
    multiply,
    transposed,
)
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, float32, float64, int32, int64

_EXACT = (float32, float64)
_TENSOR_CORES = Cap(FLOATS, cc=(80, 999))
"""16-bit operands go to tensor cores, through instructions of sm_80 and later."""


def _compute_in(d: DType) -> DType:
    """Integers wrap, so that a wider type gives the same low bits."""
    if d.kind == "float" or d is int64:
        return d
    return int64 if d.itemsize == 8 else int32


def _matmul(x: DeviceArray, y: DeviceArray, z: DeviceArray, tf32: bool = False) -> None:
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
    multiply(x, w, full, tf32=tf32)
    if to is not z:
        cast_into(to, z)


def _rows(x: DeviceArray, shape: tuple[int, int]) -> DeviceArray:
    """x (..., n) as (rows, n); a copy only where the leading axes do not lie in one stretch."""
    view = x.reshape_view(shape)
    view = dense(x).reshape_view(shape) if view is None else view
    assert view is not None
    return view


def _linear(
    x: DeviceArray, weight: DeviceArray, bias: Any, activation: str, y: DeviceArray, tf32: bool = False
) -> None:
    if not y.size:
        return
    d = as_dtype(y.dtype)
    count = math.prod(y.shape[:-1])
    bias = None if bias is None else dense(cast(bias, d))
    rows = _rows(cast(x, d), (count, x.shape[-1]))
    multiply(rows, cast(weight, d), _rows(y, (count, y.shape[-1])), bias, activation, tf32=tf32)


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
    dx: DeviceArray, dw: DeviceArray, db: DeviceArray, tf32: bool = False,
) -> None:  # fmt: skip
    d = as_dtype(g.dtype)
    out, width = weight.shape
    count = math.prod(g.shape[:-1])
    g = _rows(g, (count, out))
    if need_x:

        def to_x(y: DeviceArray) -> None:
            multiply(g, transposed(cast(weight, d)), _rows(y, (count, width)), tf32=tf32)

        _gradient(to_x, dx, d)
    if need_weight:

        def to_weight(y: DeviceArray) -> None:
            multiply(transposed(g), transposed(_rows(cast(x, d), (count, width))), y, tf32=tf32)

        _gradient(to_weight, dw, d)
    if need_bias:
        _gradient(lambda y: column_sums(g, y), db, d)


# ---------------------------------------------------------------- the same through the device's library
def _matmul_operands(x: DeviceArray, y: DeviceArray) -> tuple[DeviceArray, DeviceArray] | None:
    """x and y^T with at most one leading axis, where they need no copy for it."""
    if x.ndim < 2 or y.ndim < 2:
        return None
    w = transposed(y)
    if x.ndim > 2 and y.ndim == 2:
        rows = x.reshape_view((-1, x.shape[-1])) if x.size else None
        return None if rows is None else (rows, w)
    if x.ndim > 3:
        if x.shape[:-2] != y.shape[:-2] or not (x.size and y.size):
            return None
        a, b = x.reshape_view((-1, *x.shape[-2:])), y.reshape_view((-1, *y.shape[-2:]))
        return None if a is None or b is None else (a, transposed(b))
    return x, w


def _library_matmul_takes(x: DeviceArray, y: DeviceArray) -> bool:
    found = _matmul_operands(x, y) if x.size * y.shape[-1] >= LIBRARY_FROM else None
    return found is not None and library_takes(*found)


def _library_matmul(x: DeviceArray, y: DeviceArray, z: DeviceArray, tf32: bool = False) -> None:
    found = _matmul_operands(x, y)
    assert found is not None
    a, w = found
    to = z.reshape_view((*a.shape[:-1], w.shape[-2]))
    assert to is not None
    library_multiply(a, w, to, tf32=tf32)


def _library_linear_takes(x: DeviceArray, weight: DeviceArray, bias: Any, activation: str) -> bool:
    if x.size * weight.shape[0] < LIBRARY_FROM or (bias is not None and bias.dtype != x.dtype):
        return False
    rows = x.reshape_view((-1, x.shape[-1]))
    return rows is not None and library_takes(rows, weight)


def _library_linear(
    x: DeviceArray, weight: DeviceArray, bias: Any, activation: str, y: DeviceArray, tf32: bool = False
) -> None:
    rows, to = x.reshape_view((-1, x.shape[-1])), y.reshape_view((-1, y.shape[-1]))
    assert rows is not None and to is not None
    library_multiply(rows, weight, to, bias, activation, tf32=tf32)


def _library_linear_grad_takes(
    g: DeviceArray, x: DeviceArray, weight: DeviceArray, need_x: bool, need_weight: bool, need_bias: bool
) -> bool:
    if g.size * weight.shape[1] < LIBRARY_FROM or not g.dtype == x.dtype == weight.dtype:
        return False
    g2, x2 = g.reshape_view((-1, weight.shape[0])), x.reshape_view((-1, weight.shape[1]))
    if g2 is None or x2 is None:
        return False
    return library_takes(g2, transposed(weight)) and library_takes(transposed(g2), transposed(x2))


def _library_linear_grad(
    g: DeviceArray, x: DeviceArray, weight: DeviceArray, need_x: bool, need_weight: bool, need_bias: bool,
    dx: DeviceArray, dw: DeviceArray, db: DeviceArray, tf32: bool = False,
) -> None:  # fmt: skip
    out, width = weight.shape
    count = math.prod(g.shape[:-1])
    g, x = _rows(g, (count, out)), _rows(x, (count, width))
    if need_x:
        library_multiply(g, transposed(weight), _rows(dx, (count, width)), tf32=tf32)
    if need_weight:
        library_multiply(transposed(g), transposed(x), dw, tf32=tf32)
    if need_bias:
        column_sums(g, db)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    for name, fn, takes in (
        ("matmul", _library_matmul, _library_matmul_takes),
        ("linear", _library_linear, _library_linear_takes),
        ("linear_grad", _library_linear_grad, _library_linear_grad_takes),
    ):
        yield Kernel(name, fn, Cap(FLOATS, where=takes, where_text=LIBRARY_TEXT, priority=1))
        cap = Cap((float32,), cc=(80, 999), where=takes, where_text=LIBRARY_TEXT, tf32=True, priority=3)
        yield Kernel(name, in_tf32(fn), cap)
    for name, fn in (("matmul", _matmul), ("linear", _linear), ("linear_grad", _linear_grad)):
        yield Kernel(name, in_tf32(fn), Cap((float32,), cc=(80, 999), tf32=True, priority=2))
    yield Kernel("matmul", _matmul, Cap(_EXACT, integers=ANY.integers))
    yield Kernel("matmul", _matmul, _TENSOR_CORES)
    for name, fn in (("linear", _linear), ("linear_grad", _linear_grad)):
        yield Kernel(name, fn, Cap(_EXACT))
        yield Kernel(name, fn, _TENSOR_CORES)
