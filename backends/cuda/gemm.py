"""Products of matrices with strides, on the tiles of ``kernels/cuda``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, collapsed, copy_into, dense
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.products import MMA_TILES, PRODUCT_FORMAT, SIMT_TILES, Kind, products
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype, float32

STRIDED = Kind("Strided", "P5i4i4x4q")
MATRIX = Kind("Matrix", "PPqqi4x")
BATCH_AXES = 4
_LONGEST_STRIDE = 2**31 - 1
ACTIVATIONS = {"none": 0, "relu": 1}

LINEAR = Source("linear.cu")
_WAYS = tuple(itertools.product((True, False), repeat=2))


def transposed(x: DeviceArray) -> DeviceArray:
    """x with its last two axes exchanged."""
    return x.transpose((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


# the exact tiles have no ways of their own
_PRODUCTS = {
    (d, *way): p for d in SIMT_TILES for p in (products(LINEAR, d, STRIDED, STRIDED, MATRIX),) for way in _WAYS
}
_PRODUCTS |= {(d, a, b): products(LINEAR, d, STRIDED, STRIDED, MATRIX, a, b) for d in MMA_TILES for a, b in _WAYS}
_TF32 = {(a, b): products(LINEAR, float32, STRIDED, STRIDED, MATRIX, a, b, tf32=True) for a, b in _WAYS}
_SUMS = {d: LINEAR.kernel(f"spiral::column_sums<{NAMES[d]}>", "P", MATRIX.format, PRODUCT_FORMAT) for d in FLOATS}


def strided(x: DeviceArray, lengths: tuple[int, ...], steps: tuple[int, ...]) -> tuple[bool, Any]:
    """Whether x (..., rows, k) lies along k, and the values of its ``Strided``."""
    size, rest = x.dtype.itemsize, BATCH_AXES - len(lengths)
    row, k = (s // size for s in x.strides[-2:])
    along_k = k == 1 or row != 1
    other, near, length = (row, k, x.shape[-1]) if along_k else (k, row, x.shape[-2])
    per_piece = 16 // size
    steps = tuple(s // size for s in steps)
    pieces = near == 1 and not (x.address % 16 or any(v % per_piece for v in (other, length, *steps)))
    return along_k, (
        x.address, row, k, *x.shape[-2:], pieces, *(1,) * rest, *lengths, *(0,) * rest, *steps
    )  # fmt: skip


def multiply(
    x: DeviceArray,
    w: DeviceArray,
    y: DeviceArray,
    bias: DeviceArray | None = None,
    activation: str = "none",
    splits: int = 0,
    tf32: bool = False,
) -> None:
    """y = activation(x w^T + bias) for x (..., M, K), w (..., N, K) and dense y (..., M, N) of one dtype.

    With ``tf32`` float32 factors are rounded to it. Leading axes of x and w broadcast; any strides. Overwrites y.
    """  # fmt: skip
    size = x.dtype.itemsize
    if any(s % size or abs(s) // size > _LONGEST_STRIDE for a in (x, w) for s in a.strides[-2:]):
        x, w = dense(x), dense(w)
    m, n, k = x.shape[-2], w.shape[-2], x.shape[-1]
    lead = y.shape[:-2]
    shared_w = w.ndim == 2 or all(d == 1 for d in w.shape[:-2])
    if lead and shared_w:  # one w for all: more rows, where they are equally far apart
        rows = x.reshape_view((-1, k)) if x.size else None
        if rows is not None and rows.shape[0] == m * math.prod(lead):
            w = w if w.ndim == 2 else w.reshape_view(w.shape[-2:]) or dense(w)
            x, m, lead = rows, rows.shape[0], ()
    wide_x, wide_w = x.broadcast_to((*lead, m, k)), w.broadcast_to((*lead, n, k))
    lengths, (x_steps, w_steps) = collapsed(lead, wide_x.strides[:-2], wide_w.strides[:-2])
    if len(lengths) > BATCH_AXES:
        wide_x, wide_w = dense(wide_x), dense(wide_w)
        lengths, (x_steps, w_steps) = collapsed(lead, wide_x.strides[:-2], wide_w.strides[:-2])
    batch = math.prod(lead)
    x_along_k, a = strided(wide_x, lengths, x_steps)
    w_along_k, b = strided(wide_w, lengths, w_steps)
    to = (y.address, 0 if bias is None else bias.address, m, n, ACTIVATIONS[activation])
    found = _TF32[x_along_k, w_along_k] if tf32 else _PRODUCTS[as_dtype(y.dtype), x_along_k, w_along_k]
    found(y.memory, m, n, k, batch, a, b, to, splits)


def column_sums(x: DeviceArray, y: DeviceArray, splits: int = 0) -> None:
    """y = sum of x (rows, n) over its rows; y dense, of x's dtype. Overwrites y."""
    gpu, (rows, n), d = y.memory, x.shape, as_dtype(y.dtype)
    if not n:
        return
    x = dense(x)
    across = -(-n // 32)
    splits = splits or max(1, min(4 * gpu.facts.multiprocessors // across, rows // 64))
    chunk = max(1, -(-rows // splits))
    splits = max(1, -(-rows // chunk))
    of_dtype = _PRODUCTS[d, True, True]
    part = DeviceArray.empty(gpu, (splits, n), of_dtype.wide) if splits > 1 else None
    shape = (0 if part is None else part.address, 1, n, rows, chunk, 1, across, 1)
    to = (y.address, 0, 1, n, 0)
    _SUMS[d](gpu, (across, splits, 1), (32, 8, 1), x.address, *to, *shape)
    if part is not None:
        of_dtype.finish(gpu, blocks(n), (THREADS, 1, 1), *shape, *to, splits)


def in_tf32(fn: Callable[..., None]) -> Callable[..., None]:
    """A launcher with float32 factors rounded to tf32."""
    rounded = partial(fn, tf32=True)
    rounded.__name__ = f"{fn.__name__}, in tf32"  # type: ignore[attr-defined]
    return rounded


# ---------------------------------------------------------------- the device's library
LIBRARY_FROM = 1 << 22
"""Multiplications from which a library is asked. Below, a launch costs as much as the product; unverified on a GPU."""
LIBRARY_TEXT = "takes rows or columns in one stretch and 2**22 multiplications or more, on a device with a BLAS library"
_RELU = {d.numpy: LINEAR.kernel(f"spiral::relu_in_place<{NAMES[d]}>", "P", "q") for d in FLOATS}


def _by_columns(x: DeviceArray) -> tuple[bool, tuple[int, int, int]] | None:
    """x (rows, k) or (batch, rows, k) as BLAS sees it, by columns: whether as its transpose; address, elements from
    column to column and from matrix to matrix. None where it cannot.
    """
    size = x.dtype.itemsize
    row, k = (s // size for s in x.strides[-2:])
    rows, ks = x.shape[-2:]
    step = x.strides[0] // size if x.ndim == 3 else 0
    if k == 1 and ks <= row <= _LONGEST_STRIDE:
        return True, (x.address, row, step)
    if row == 1 and rows <= k <= _LONGEST_STRIDE:
        return False, (x.address, k, step)
    return None


def library_takes(x: DeviceArray, w: DeviceArray) -> bool:
    """Whether x (M, K) or (B, M, K) times w^T, for w (N, K) or (B, N, K), goes to the library of x's device."""
    if x.size * w.shape[-2] < LIBRARY_FROM or x.dtype != w.dtype or x.ndim > 3 or w.ndim > 3:
        return False
    if (x.ndim == 3) != (w.ndim == 3) or (x.ndim == 3 and x.shape[0] != w.shape[0]):
        return False
    if getattr(x.memory, "blas", None) is None:
        return False
    return _by_columns(x) is not None and _by_columns(w) is not None


def library_multiply(
    x: DeviceArray,
    w: DeviceArray,
    y: DeviceArray,
    bias: DeviceArray | None = None,
    activation: str = "none",
    add: bool = False,
    tf32: bool = False,
) -> None:
    """`multiply` by the library; `library_takes` must have said yes. The bias is where the sums begin: one rounding.

    With ``add`` to what y holds. y may be float32 where x and w have a 16-bit type.
    """
    gpu, size = y.memory, y.dtype.itemsize
    if bias is not None:
        copy_into(bias.broadcast_to(y.shape), y)
    m, n = y.shape[-2:]
    of_x, of_w = _by_columns(x), _by_columns(w)
    assert of_x is not None and of_w is not None
    # by columns y is its transpose (N, M): w times x^T
    batch, step = (y.shape[0], y.strides[0] // size) if y.ndim == 3 else (1, 0)
    ways = of_w[0], not of_x[0]
    add = add or bias is not None
    lengths, to = (n, m, x.shape[-1]), (y.address, n, step)
    gpu.blas.gemm(x.dtype, ways, lengths, of_w[1], of_x[1], to, batch, add, y.dtype, tf32)
    if activation == "relu":
        _RELU[y.dtype](gpu, blocks(y.size, 4 * THREADS), (THREADS, 1, 1), y.address, y.size)
