"""Adafactor over all tensors: five launches, with tables of the tensors and of what each program does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import copy_into, dense
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.optim import KINDS, kind_of, number, of_kind
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, float32, float64
from spiral.gpu.factored import Plan, filled
from spiral.gpu.spans import addresses_of, tables_of, types_of
from spiral.kernels.triton import adafactor as source

_SETTINGS = dict.fromkeys(("share", "eps1", "eps2", "rate", "d", "keep"), "fp64")


def _kernels(fn: Any, *scratch: str, settings: bool = True) -> dict[tuple[Any, bool], TritonKernel]:
    """By `KINDS`. Scratch is of what is computed in, but for that called squares, which is float64."""
    made = {}
    for kind in KINDS:
        params = {"tensors": "*i64", "jobs": "*i32"}
        params |= {n: "*fp64" if n == "squares" else f"*{number(kind[0])}" for n in scratch}
        made[kind] = TritonKernel(fn, params | (_SETTINGS if settings else {}), of_kind(*kind), aligned=False)
    return made


_ROW_MEANS = _kernels(source.row_means)
_COLUMN_SUMS = _kernels(source.column_sums, "sums", settings=False)
_COLUMN_MEANS = _kernels(source.column_means, "sums", "means")
_UPDATE_SQUARES = _kernels(source.update_squares, "means", "squares")
_APPLY = _kernels(source.apply, "means", "squares")


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

    kind = kind_of([x.dtype for row in lying for x in row])
    wide = (float64 if kind == KINDS[2] else float32).numpy
    sums, means = (DeviceArray.empty(gpu, (max(n, 1),), wide) for n in (plan.sums, plan.means))
    squares = DeviceArray.empty(gpu, (plan.pieces, 2), float64.numpy)
    settings = step**beta2_decay, eps1, eps2, min(lr, 1.0 / math.sqrt(step)), d, 1.0 - lr * weight_decay
    grids = [(count, 1, 1) for count in plan.counts]
    by_row, by_column, by_lead, by_piece = plan.addresses
    for part in (_ROW_MEANS, _COLUMN_SUMS, _COLUMN_MEANS, _UPDATE_SQUARES, _APPLY):
        part[kind].prepare(gpu)
    if plan.counts[0]:
        _ROW_MEANS[kind](gpu, grids[0], tensors, by_row, *settings)
        _COLUMN_SUMS[kind](gpu, grids[1], tensors, by_column, sums.address)
        _COLUMN_MEANS[kind](gpu, grids[2], tensors, by_lead, sums.address, means.address, *settings)
    _UPDATE_SQUARES[kind](gpu, grids[3], tensors, by_piece, means.address, squares.address, *settings)
    _APPLY[kind](gpu, grids[3], tensors, by_piece, means.address, squares.address, *settings)
    for old, new in zip(given, lying, strict=True):
        for k, (x, y) in enumerate(zip(old, new, strict=True)):
            if x is not y and k != 1:  # what has strides was changed as a dense copy
                copy_into(y, x)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("adafactor", _adafactor, Cap(FLOATS))
