"""Products of matrices with strides, on the tiles of ``kernels/cuda``."""

from __future__ import annotations

import itertools
import math
from typing import Any

from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, collapsed, dense
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.backends.cuda.products import PRODUCT_FORMAT, Products, Tile
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, bfloat16, float16, float32, float64, int32, int64

STRIDED_FORMAT = "P5i4i4x4q"
MATRIX_FORMAT = "PPqqi4x"
BATCH_AXES = 4
_LONGEST_STRIDE = 2**31 - 1
ACTIVATIONS = {"none": 0, "relu": 1}

LINEAR = Source("linear.cu")
SIMT_TILES: dict[DType, tuple[Tile, ...]] = {
    float32: (Tile("spiral::LargeFloat", 128, 128, 8), Tile("spiral::SmallFloat", 64, 64, 16)),
    float64: (Tile("spiral::Double", 64, 64, 8),),
    int32: (Tile("spiral::Int", 64, 64, 16),),
    int64: (Tile("spiral::Long", 64, 64, 8),),
}
"""Tiles of the ordinary arithmetic units, by what they compute in, largest first."""


_MMA_TILES = {
    d: (
        Tile(f"spiral::LargeMma<{NAMES[d]}>", 128, 128, 32, 256, 4 * 64 * 256),
        Tile(f"spiral::SmallMma<{NAMES[d]}>", 64, 64, 32, 128, 4 * 64 * 128),
    )
    for d in (float16, bfloat16)
}
"""Tiles of the tensor cores, largest first."""
_WAYS = tuple(itertools.product((True, False), repeat=2))


def _finish(d: DType, wide: DType) -> CudaKernel:
    name = f"spiral::finish<{NAMES[wide]}, spiral::Matrix<{NAMES[d]}>>"
    return LINEAR.kernel(name, PRODUCT_FORMAT, MATRIX_FORMAT, "i")


def _simt(d: DType) -> Products:
    t = NAMES[d]
    kernels = {
        tile: LINEAR.kernel(
            f"spiral::product<{tile.name}, spiral::Strided<{t}>, spiral::Strided<{t}>, spiral::Matrix<{t}>>",
            STRIDED_FORMAT, STRIDED_FORMAT, MATRIX_FORMAT, PRODUCT_FORMAT,
        )
        for tile in SIMT_TILES[d]
    }  # fmt: skip
    return Products(kernels, _finish(d, d), d.numpy)


def _mma(d: DType, finish: CudaKernel, a_along_k: bool, b_along_k: bool) -> Products:
    t = NAMES[d]
    ways = f"{a_along_k}, {b_along_k}".lower()
    kernels = {
        tile: LINEAR.kernel(
            f"spiral::mma_product<{tile.name}, spiral::Strided<{t}>, spiral::Strided<{t}>, spiral::Matrix<{t}>, {ways}>",
            STRIDED_FORMAT, STRIDED_FORMAT, MATRIX_FORMAT, PRODUCT_FORMAT,
        )
        for tile in _MMA_TILES[d]
    }  # fmt: skip
    return Products(kernels, finish, float32.numpy)


def transposed(x: DeviceArray) -> DeviceArray:
    """x with its last two axes exchanged."""
    return x.transpose((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


_PRODUCTS = {(d, *way): p for d in SIMT_TILES for p in (_simt(d),) for way in _WAYS}
_PRODUCTS |= {
    (d, *way): _mma(d, finish, *way) for d in _MMA_TILES for finish in (_finish(d, float32),) for way in _WAYS
}
_SUMS = {d: LINEAR.kernel(f"spiral::column_sums<{NAMES[d]}>", "P", MATRIX_FORMAT, PRODUCT_FORMAT) for d in FLOATS}


def _operand(x: DeviceArray, lengths: tuple[int, ...], steps: tuple[int, ...]) -> tuple[bool, Any]:
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
) -> None:
    """y = activation(x w^T + bias) for x (..., M, K), w (..., N, K) and dense y (..., M, N) of one dtype.

    Leading axes of x and w broadcast; any strides. Overwrites y.
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
    x_along_k, a = _operand(wide_x, lengths, x_steps)
    w_along_k, b = _operand(wide_w, lengths, w_steps)
    to = (y.address, 0 if bias is None else bias.address, m, n, ACTIVATIONS[activation])
    _PRODUCTS[as_dtype(y.dtype), x_along_k, w_along_k](y.memory, m, n, k, batch, a, b, to, splits)


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
    products = _PRODUCTS[d, True, True]
    part = DeviceArray.empty(gpu, (splits, n), products.wide) if splits > 1 else None
    shape = (0 if part is None else part.address, 1, n, rows, chunk, 1, across, 1)
    to = (y.address, 0, 1, n, 0)
    _SUMS[d](gpu, (across, splits, 1), (32, 8, 1), x.address, *to, *shape)
    if part is not None:
        products.finish(gpu, blocks(n), (THREADS, 1, 1), *shape, *to, splits)
