"""What the launches of Adafactor work on: a table of tensors, and of jobs for a kernel's blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spiral.device_array import DeviceArray
from spiral.gpu.spans import Row, kinds_of

_ROWS, _CHUNK, _TILE, _PIECE = 32, 256, 32, 16384  # as in the kernels' files

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


class Plan:
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
            t, size = self.tensors[i], math.prod(shape)
            t["size"], t["sums_at"], t["mean_at"], t["piece_at"] = size, sums, means, pieces
            t["pieces"], t["kinds"] = -(-size // _PIECE), kinds_of(given[i])
            if len(shape) > 1:
                lead, (rows, columns) = math.prod(shape[:-2]), shape[-2:]
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


def filled(gpu: Any, plan: Plan, rows: Sequence[Row]) -> DeviceArray:
    table = plan.tensors.copy()
    # those without rows and columns have three tensors; the fourth is not looked at
    table["at"] = [[x.address for x in (*row, row[-1])[:4]] for row in rows]
    return DeviceArray.from_host(gpu, table.view(np.uint8))
