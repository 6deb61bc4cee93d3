"""Cross-entropy of a linear layer, tile after tile of its logits.

The products are chunks of what a library does fastest, not one kernel that keeps tiles in registers: on tensor cores of
Hopper a library's reach twice what our `mma` tiles do, and a tile of float32 logits that fits into the second-level
cache costs little beside them. Gradients take all rows for some classes at a time: the weight's gradient is then
complete after one product, and only that of x, which is smaller, is added up, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, cast, cast_into, dense, wide
from spiral.backends.cuda.gemm import (
    MATRIX,
    STRIDED,
    in_tf32,
    library_multiply,
    library_takes,
    multiply,
    strided,
    transposed,
)
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.loss import count_targets, integer_targets, reduce_losses
from spiral.backends.cuda.products import MMA_TILES, SIMT_TILES, Kind, products
from spiral.backends.cuda.rows import row_grid, shared_row_grid
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, FLOATS, DType, as_dtype, float32, float64, promote

TILE = 1 << 23
"""Logits of a tile: 32 MiB of float32. Unverified on a GPU; to be tuned with the next two."""
TILE_CLASSES = 4096
GRADIENTS = 1 << 27
"""Bytes of the logits' gradient that are held at once."""
_LEAST_CLASSES = 128  # a tile of the products

_SOURCE = Source("linear_loss.cu")
_ADDED = Kind("Added", "Pqi4x")
_WIDE = (float32, float64)
_LOGITS = {d: products(_SOURCE, d, STRIDED, STRIDED, MATRIX, to=float32) for d in MMA_TILES}
_TO_X = {d: products(_SOURCE, d, STRIDED, STRIDED, _ADDED, True, False, to=float32) for d in MMA_TILES}
_TO_X |= {d: products(_SOURCE, d, STRIDED, STRIDED, _ADDED) for d in _WIDE if d in SIMT_TILES}
_TO_X_TF32 = products(_SOURCE, float32, STRIDED, STRIDED, _ADDED, True, False, tf32=True)
_TAKE = {d.numpy: _SOURCE.kernel(f"spiral::linear_loss_tile<{NAMES[d]}>", *"PPPqqqiii") for d in _WIDE}
_FINISH = {d.numpy: _SOURCE.kernel(f"spiral::linear_loss_rows<{NAMES[d]}>", *"PPPPqqiqdd") for d in _WIDE}
_GRAD = {d: _SOURCE.kernel(f"spiral::linear_loss_grad<{NAMES[d]}>", *"PPPPPPqqqqiiiqdd") for d in FLOATS}


def _logits(x: DeviceArray, weight: DeviceArray, y: DeviceArray, tf32: bool) -> None:
    """y = x weight^T for dense operands, y in the wide type."""
    (m, k), n, d = x.shape, weight.shape[0], as_dtype(x.dtype)
    if library_takes(x, weight):
        library_multiply(x, weight, y, tf32=tf32)
    elif d in _LOGITS:
        of_x, of_w = strided(x, (), ())[1], strided(weight, (), ())[1]
        _LOGITS[d](y.memory, m, n, k, 1, of_x, of_w, (y.address, 0, m, n, 0))
    else:
        multiply(x, weight, y, tf32=tf32)


def _add_to_x(d: DeviceArray, weight: DeviceArray, dx: DeviceArray, add: bool, tf32: bool) -> None:
    """dx (+)= d weight for dense operands, dx in the wide type."""
    (m, k), n, w = d.shape, weight.shape[1], transposed(weight)
    if library_takes(d, w):
        library_multiply(d, w, dx, add=add, tf32=tf32)
        return
    of_d, of_w = strided(d, (), ())[1], strided(w, (), ())[1]
    found = _TO_X_TF32 if tf32 else _TO_X[as_dtype(d.dtype)]
    found(dx.memory, m, n, k, 1, of_d, of_w, (dx.address, n, int(add)))


def _to_weight(d: DeviceArray, x: DeviceArray, dw: DeviceArray, tf32: bool) -> None:
    """dw = d^T x for dense operands of one dtype."""
    a, b = transposed(d), transposed(x)
    if library_takes(a, b):
        library_multiply(a, b, dw, tf32=tf32)
    else:
        multiply(a, b, dw, tf32=tf32)


def _starts(length: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, step):
        yield start, min(step, length - start)


def _block(memory: Any, block: DeviceArray, shape: tuple[int, int]) -> DeviceArray:
    """The first elements of a scratch array as a matrix."""
    return DeviceArray(memory, block.block, block.address, shape, block.dtype)


def _operands(x: DeviceArray, weight: DeviceArray) -> tuple[DType, DeviceArray, DeviceArray]:
    d = promote(as_dtype(x.dtype), as_dtype(weight.dtype))
    return d, dense(cast(x, d)), dense(cast(weight, d))


def _linear_cross_entropy(
    x: DeviceArray, weight: DeviceArray, targets: DeviceArray, ignore_index: int, label_smoothing: float,
    z_loss: float, reduction: str, loss: DeviceArray, lse: DeviceArray, tf32: bool = False,
) -> None:  # fmt: skip
    gpu, d = lse.memory, lse.dtype
    _, x, weight = _operands(x, weight)
    t, small = integer_targets(targets)
    rows, classes = x.shape[0], weight.shape[0]
    columns = max(1, min(classes, TILE_CLASSES))
    at_once = max(1, min(rows, TILE // columns))
    tile = DeviceArray.empty(gpu, (at_once, columns), d)
    states = DeviceArray.empty(gpu, (rows, 4), d)
    losses = loss if reduction == "none" else DeviceArray.empty(gpu, (rows,), d)
    for row, count in _starts(rows, at_once):
        for first, n in _starts(classes, columns):
            logits = _block(gpu, tile, (count, n))
            _logits(x[row : row + count], weight[first : first + n], logits, tf32)
            group, grid, block = row_grid(count, n, d.itemsize, 8)
            _TAKE[d](
                gpu, grid, block, logits.address, t[row:].address, states[row:].address, count, n, first, group, small,
                int(label_smoothing != 0),
            )  # fmt: skip
    if rows:
        _FINISH[d](
            gpu, blocks(rows), (THREADS, 1, 1), states.address, t.address, losses.address, lse.address, rows, classes,
            small, ignore_index, label_smoothing, z_loss,
        )  # fmt: skip
    if losses is not loss:
        reduce_losses(losses, t, small, ignore_index, reduction, loss)


def _linear_cross_entropy_grad(
    g: DeviceArray, x: DeviceArray, weight: DeviceArray, targets: DeviceArray, lse: DeviceArray, need_x: bool,
    need_weight: bool, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str,
    dx: DeviceArray, dw: DeviceArray, tf32: bool = False,
) -> None:  # fmt: skip
    gpu, w = lse.memory, wide(x, weight)
    of_x, of_weight = as_dtype(x.dtype), as_dtype(weight.dtype)
    d, x, weight = _operands(x, weight)
    t, small = integer_targets(targets)
    g, lse = dense(cast(g, w)), dense(cast(lse, w))
    rows, classes = x.shape[0], weight.shape[0]
    columns = max(1, min(classes, max(_LEAST_CLASSES, GRADIENTS // max(1, rows * d.itemsize))))
    columns = columns if columns == classes else columns // _LEAST_CLASSES * _LEAST_CLASSES
    at_once = max(1, min(rows, TILE // columns))
    held = DeviceArray.empty(gpu, (rows, columns), d.numpy)
    tile = None if w is d else DeviceArray.empty(gpu, (at_once, columns), w.numpy)
    counted = count_targets(t, small, ignore_index) if reduction == "mean" else None
    sum_x = dx if of_x is w or not need_x else DeviceArray.empty(gpu, x.shape, w.numpy)
    for first, n in _starts(classes, columns):
        part = weight[first : first + n]
        gradient = _block(gpu, held, (rows, n))
        for row, count in _starts(rows, at_once):
            into = gradient[row : row + count]
            logits = into if tile is None else _block(gpu, tile, (count, n))
            _logits(x[row : row + count], part, logits, tf32)
            group, grid = shared_row_grid(count, n, w.itemsize)
            _GRAD[d](
                gpu, grid, (THREADS, 1, 1), (g[row:] if g.ndim else g).address, logits.address,
                t[row:].address, lse[row:].address, into.address, 0 if counted is None else counted.address, count, n,
                first, classes, group, small, int(reduction == "none"), ignore_index, label_smoothing, z_loss,
            )  # fmt: skip
        if need_x:
            _add_to_x(gradient, part, sum_x, first > 0, tf32)
        if need_weight:
            to = dw[first : first + n]
            product = to if of_weight is d else DeviceArray.empty(gpu, to.shape, d.numpy)
            _to_weight(gradient, x, product, tf32)
            if product is not to:
                cast_into(product, to)
    if sum_x is not dx:
        cast_into(sum_x, dx)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    integers = tuple(d for d in ALL if d.kind in ("int", "uint"))
    for name, fn in (("linear_cross_entropy", _linear_cross_entropy),
                     ("linear_cross_entropy_grad", _linear_cross_entropy_grad)):  # fmt: skip
        yield Kernel(name, fn, Cap(_WIDE, integers))
        yield Kernel(name, fn, Cap(FLOATS, integers, cc=(80, 999)))
        yield Kernel(name, in_tf32(fn), Cap((float32,), integers, cc=(80, 999), tf32=True, priority=2))
