"""Adafactor over all tensors: five launches, with tables of the tensors and of what each block does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import THREADS, copy_into, dense
from spiral.backends.cuda.launching import Source
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, float32, float64
from spiral.gpu.factored import Plan, filled
from spiral.gpu.spans import addresses_of, tables_of, types_of

_SOURCE = Source("adafactor.cu")
_SETTINGS = "6d"


def _kernels(name: str, *formats: str) -> dict[bool, Any]:
    return {
        double: _SOURCE.kernel(f"spiral::{name}<{a}>", *formats) for double, a in ((False, "float"), (True, "double"))
    }


_ROW_MEANS = _kernels("row_means", "P", "P", _SETTINGS)
_COLUMN_SUMS = _kernels("column_sums", "P", "P", "P")
_COLUMN_MEANS = _kernels("column_means", "P", "P", "P", "P", _SETTINGS)
_UPDATE_SQUARES = _kernels("update_squares", "P", "P", "P", "P", _SETTINGS)
_APPLY = _kernels("apply", "P", "P", "P", "P", _SETTINGS)


def _adafactor(
    params: Any, grads: Any, rows: Any, columns: Any, variances: Any, lr: float, beta2_decay: float, eps1: float,
    eps2: float, d: float, weight_decay: float, step: int,
) -> None:  # fmt: skip
    given = [
        (p, g, *([v] if v is not None else [r, c]))
        for p, g, r, c, v in zip(params, grads, rows, columns, variances, strict=True)
        if g is not None and p.size
    ]
    if not given:
        return
    lying = [tuple([dense(x) for x in row]) for row in given]
    gpu = lying[0][0].memory
    shapes = tuple([row[0].shape for row in lying]), types_of(lying)
    plan: Plan = tables_of(gpu, Plan).kept(shapes, lambda: Plan(gpu, lying))
    key = shapes, addresses_of(lying)
    tensors: int = tables_of(gpu, filled).kept(key, lambda: filled(gpu, plan, lying)).address

    double = any(x.dtype == float64.numpy for row in lying for x in row)
    wide = (float64 if double else float32).numpy
    sums, means = (DeviceArray.empty(gpu, (max(n, 1),), wide) for n in (plan.sums, plan.means))
    squares = DeviceArray.empty(gpu, (plan.pieces, 2), float64.numpy)
    settings = step**beta2_decay, eps1, eps2, min(lr, 1.0 / math.sqrt(step)), d, 1.0 - lr * weight_decay
    grids = [(count, 1, 1) for count in plan.counts]
    by_row, by_column, by_lead, by_piece = plan.addresses
    block = (THREADS, 1, 1)
    for part in (_ROW_MEANS, _COLUMN_SUMS, _COLUMN_MEANS, _UPDATE_SQUARES, _APPLY):
        part[double].prepare(gpu)
    if plan.counts[0]:
        _ROW_MEANS[double](gpu, grids[0], block, tensors, by_row, *settings)
        _COLUMN_SUMS[double](gpu, grids[1], block, tensors, by_column, sums.address)
        _COLUMN_MEANS[double](gpu, grids[2], block, tensors, by_lead, sums.address, means.address, *settings)
    _UPDATE_SQUARES[double](gpu, grids[3], block, tensors, by_piece, means.address, squares.address, *settings)
    _APPLY[double](gpu, grids[3], block, tensors, by_piece, means.address, squares.address, *settings)
    for old, new in zip(given, lying, strict=True):
        for k, (x, y) in enumerate(zip(old, new, strict=True)):
            if x is not y and k != 1:  # what has strides was changed as a dense copy
                copy_into(y, x)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("adafactor", _adafactor, Cap(FLOATS))
