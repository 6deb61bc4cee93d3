"""Adafactor over all tensors: five launches, with tables of the tensors and of what each block does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import THREADS, copy_into, dense
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.units import product
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, float32, float64
from spiral.gpu.spans import Row, addresses_of, kinds_of, tables_of, types_of

_SOURCE = Source("adafactor.cu")
_ROWS, _CHUNK, _TILE, _PIECE = 32, 256, 32, 16384  # as in the kernels' file
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

_TENSOR = np.dtype(
    [("at", np.uint64, 4), ("rows", np.int64), ("columns", np.int64), ("size", np.int64), ("sums_at", np.int64),
     ("mean_at", np.int64), ("piece_at", np.int64), ("chunks", np.int32), ("pieces", np.int32), ("kinds", np.int32),
     ("unused", np.int32)]
)  # fmt: skip


def _jobs(tensor: int, *counts: int) -> np.ndarray[Any, Any]:
    """A job for every combination of up to three numbers below the counts."""
    numbers = np.indices(counts, np.int32).reshape(len(counts), -1)
    table = np.zeros((numbers.shape[1], 4), np.int32)
    table[:, 0] = tensor
    table[:, 1 : 1 + len(counts)] = numbers.T
    return table


class _Plan:
    """What blocks do for tensors of certain shapes and dtypes, on the device: it does not depend on where they lie.

    Args:
        given: parameter, gradient, and row and column averages or those of all elements, for each parameter.
    """

    def __init__(self, gpu: Any, given: Sequence[Row]) -> None:
        shapes = [row[0].shape for row in given]
        tables: list[list[np.ndarray[Any, Any]]] = [[], [], [], []]
        self.tensors = np.zeros(len(shapes), _TENSOR)
        sums = means = pieces = 0
        for i, shape in enumerate(shapes):
            t, size = self.tensors[i], product(shape)
            t["size"], t["sums_at"], t["mean_at"], t["piece_at"] = size, sums, means, pieces
            t["pieces"], t["kinds"] = -(-size // _PIECE), kinds_of(given[i])
            if len(shape) > 1:
                lead, (rows, columns) = product(shape[:-2]), shape[-2:]
                chunks = -(-rows // _CHUNK)
                t["rows"], t["columns"], t["chunks"] = rows, columns, chunks
                tables[0].append(_jobs(i, -(-lead * rows // _ROWS)))
                tables[1].append(_jobs(i, lead, chunks, -(-columns // _TILE)))
                tables[2].append(_jobs(i, lead))
                sums += lead * chunks * columns
                means += lead
            tables[3].append(_jobs(i, int(t["pieces"])))
            pieces += int(t["pieces"])
        joined = [np.concatenate(t) if t else np.zeros((0, 4), np.int32) for t in tables]
        self.counts = [len(t) for t in joined]
        self._jobs = DeviceArray.from_host(gpu, np.concatenate(joined))
        starts = itertools.accumulate([0, *self.counts[:-1]])
        self.addresses = [self._jobs.address + 16 * start for start in starts]
        self.sums, self.means, self.pieces = sums, means, pieces


def _filled(gpu: Any, plan: _Plan, rows: Sequence[Row]) -> DeviceArray:
    table = plan.tensors.copy()
    # those without rows and columns have three tensors; the fourth is not looked at
    table["at"] = [[x.address for x in (*row, row[-1])[:4]] for row in rows]
    return DeviceArray.from_host(gpu, table.view(np.uint8))


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
    plan: _Plan = tables_of(gpu, _Plan).kept(shapes, lambda: _Plan(gpu, lying))
    key = shapes, addresses_of(lying)
    tensors: int = tables_of(gpu, _filled).kept(key, lambda: _filled(gpu, plan, lying)).address

    double = any(x.dtype == float64.numpy for row in lying for x in row)
    wide = (float64 if double else float32).numpy
    sums, means = (DeviceArray.empty(gpu, (max(n, 1),), wide) for n in (plan.sums, plan.means))
    squares = DeviceArray.empty(gpu, (plan.pieces, 2), float64.numpy)
    settings = step**beta2_decay, eps1, eps2, min(lr, 1.0 / math.sqrt(step)), d, 1.0 - lr * weight_decay
    grids = [(count, 1, 1) for count in plan.counts]
    by_row, by_column, by_lead, by_piece = plan.addresses
    block = (THREADS, 1, 1)
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
