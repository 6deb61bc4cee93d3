"""Cross-entropy of a linear layer, tile after tile of its logits, which are never all stored.

Gradients take all rows for some classes at a time: the weight's gradient is then complete after one product, and only
that of x, which is smaller, is added up, in the wide type.
"""

from __future__ import annotations

from collections.abc import Iterator

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import NAMES, address, cast, cast_into, dense, wide_of
from spiral.backends.triton.elementwise import BINARY
from spiral.backends.triton.gemm import multiply, multiply_wide, transposed
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.loss import count_targets, integer_targets, reduce_losses
from spiral.backends.triton.pointwise import binary, number_of
from spiral.backends.triton.rows import LOOPING, WIDE, WIDE_NAME
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, FLOATS, DType, as_dtype, float32, float64, promote
from spiral.kernels.triton import linear_loss as source

TILE = 1 << 23
"""Logits of a tile: 32 MiB of float32. Unverified on a GPU, as the next two."""
TILE_CLASSES = 4096
GRADIENTS = 1 << 27
"""Bytes of the logits' gradient that are held at once."""
_LEAST_CLASSES = 128  # a tile of the products
_SIDES = ((8, 128), (1, 2048))
_WIDE = (float32, float64)


def _numbers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


_TAKE = {
    d.numpy: [
        (
            k,
            TritonKernel(
                source.linear_loss_tile,
                {"logits": f"*{NAMES[d]}", "targets": "*i64", "states": f"*{NAMES[d]}"}
                | _numbers("rows", "n", "first", "start_row", "small", "total_rows"),
                {"WIDE": WIDE[d], "K": k, "BLOCK": block},
                divisible=("n",),
                num_warps=warps,
            ),
        )
        for k, block, warps, _ in LOOPING
    ]
    for d in _WIDE
}
_FINISH = {
    d.numpy: TritonKernel(
        source.linear_loss_rows,
        {"states": f"*{NAMES[d]}", "targets": "*i64", "losses": f"*{NAMES[d]}", "lse": f"*{NAMES[d]}"}
        | _numbers("rows", "classes", "small")
        | {"ignore": "i64", "smoothing": NAMES[d], "z": NAMES[d]},
        {"WIDE": WIDE[d], "BLOCK": 256},
    )
    for d in _WIDE
}
_GRAD = {
    d.numpy: {
        side: TritonKernel(
            source.linear_loss_grad,
            {"g": f"*{WIDE_NAME[d]}", "logits": f"*{WIDE_NAME[d]}", "targets": "*i64", "lse": f"*{WIDE_NAME[d]}"}
            | {"d": f"*{NAMES[d]}", "counted": "*i64"}
            | _numbers("rows", "n", "first", "start_row", "classes", "small", "per_row", "mean")
            | {"ignore": "i64", "smoothing": WIDE_NAME[d], "z": WIDE_NAME[d]},
            {"WIDE": WIDE[d], "K": side[0], "BLOCK": side[1]},
            divisible=("n",),
            num_warps=8 if d is float64 else 4,  # else registers spill
        )
        for side in _SIDES
    }
    for d in FLOATS
}


def _starts(length: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, step):
        yield start, min(step, length - start)


def _block(block: DeviceArray, shape: tuple[int, int]) -> DeviceArray:
    """The first elements of a scratch array as a matrix."""
    return DeviceArray(block.memory, block.block, block.address, shape, block.dtype)


def _operands(x: DeviceArray, weight: DeviceArray) -> tuple[DType, DeviceArray, DeviceArray]:
    d = promote(as_dtype(x.dtype), as_dtype(weight.dtype))
    return d, dense(cast(x, d)), dense(cast(weight, d))


def _linear_cross_entropy(
    x: DeviceArray, weight: DeviceArray, targets: DeviceArray, ignore_index: int, label_smoothing: float,
    z_loss: float, reduction: str, loss: DeviceArray, lse: DeviceArray,
) -> None:  # fmt: skip
    gpu, d = lse.memory, lse.dtype
    _, x, weight = _operands(x, weight)
    t, small = integer_targets(targets)
    rows, classes = x.shape[0], weight.shape[0]
    columns = max(1, min(classes, TILE_CLASSES))
    at_once = max(1, min(rows, TILE // columns))
    tile = DeviceArray.empty(gpu, (at_once, columns), d)
    states = DeviceArray.empty(gpu, (4, rows), d)
    losses = loss if reduction == "none" else DeviceArray.empty(gpu, (rows,), d)
    for row, count in _starts(rows, at_once):
        for first, n in _starts(classes, columns):
            logits = _block(tile, (count, n))
            multiply_wide(x[row : row + count], weight[first : first + n], logits)
            k, kernel = _TAKE[d][n > 512]
            grid = (-(-count // k), 1, 1)
            kernel(gpu, grid, logits.address, t.address, states.address, count, n, first, row, small, rows)
    if rows:
        kind = NAMES[as_dtype(d)]
        _FINISH[d](
            gpu, (-(-rows // 256), 1, 1), states.address, t.address, losses.address, lse.address, rows, classes,
            small, ignore_index, number_of(label_smoothing, kind), number_of(z_loss, kind),
        )  # fmt: skip
    if losses is not loss:
        reduce_losses(losses, t, small, ignore_index, reduction, loss)


def _linear_cross_entropy_grad(
    g: DeviceArray, x: DeviceArray, weight: DeviceArray, targets: DeviceArray, lse: DeviceArray, need_x: bool,
    need_weight: bool, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str,
    dx: DeviceArray, dw: DeviceArray,
) -> None:  # fmt: skip
    gpu = lse.memory
    of_weight = as_dtype(weight.dtype)
    d, x, weight = _operands(x, weight)
    w = wide_of(x)
    t, small = integer_targets(targets)
    g, lse = dense(cast(g, w)), dense(cast(lse, w))
    rows, classes = x.shape[0], weight.shape[0]
    columns = max(1, min(classes, max(_LEAST_CLASSES, GRADIENTS // max(1, rows * d.itemsize))))
    columns = columns if columns == classes else columns // _LEAST_CLASSES * _LEAST_CLASSES
    at_once = max(1, min(rows, TILE // columns))
    held = DeviceArray.empty(gpu, (rows, columns), d.numpy)
    tile = None if w is d else DeviceArray.empty(gpu, (at_once, columns), w.numpy)
    counted = count_targets(t, small, ignore_index) if reduction == "mean" else None
    kind, sum_x = NAMES[w], None
    for first, n in _starts(classes, columns):
        part = weight[first : first + n]
        gradient = _block(held, (rows, n))
        for row, count in _starts(rows, at_once):
            into = gradient[row : row + count]
            logits = into if tile is None else _block(tile, (count, n))
            multiply_wide(x[row : row + count], part, logits)
            side = _SIDES[n > 256]
            _GRAD[d.numpy][side](
                gpu, (-(-count // side[0]), -(-n // side[1]), 1), g.address, logits.address, t.address, lse.address,
                into.address, address(counted), count, n, first, row, classes, small, int(reduction == "none"),
                int(reduction == "mean"), ignore_index, number_of(label_smoothing, kind), number_of(z_loss, kind),
            )  # fmt: skip
        if need_x:
            more = DeviceArray.empty(gpu, x.shape, w.numpy)
            multiply_wide(gradient, transposed(part), more)
            if sum_x is None:
                sum_x = more
            else:
                binary(BINARY["add"][w.numpy], sum_x, more, sum_x)
        if need_weight:
            to = dw[first : first + n]
            product = to if of_weight is d else DeviceArray.empty(gpu, to.shape, d.numpy)
            multiply(transposed(gradient), transposed(x), product)
            if product is not to:
                cast_into(product, to)
    if sum_x is not None:
        cast_into(sum_x, dx)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS, tuple(d for d in ALL if d.kind in ("int", "uint")))
    yield Kernel("linear_cross_entropy", _linear_cross_entropy, cap)
    yield Kernel("linear_cross_entropy_grad", _linear_cross_entropy_grad, cap)
