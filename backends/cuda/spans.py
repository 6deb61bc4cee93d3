"""The table that tells a kernel's blocks which stretches of which tensors to work on; see kernels/cuda/optim.cu."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, float64

OPERANDS = 4
SMALLEST, LARGEST = 2048, 65536  # elements that a block works on
KEPT = 16  # tables per device

KINDS = {d.numpy: k for k, d in enumerate(FLOATS)}  # float16, bfloat16, float32, float64
_FLOAT64 = KINDS[float64.numpy]
_SPAN = np.dtype([("at", np.uint64, OPERANDS), ("n", np.int32), ("kinds", np.int32)])
_ALIGNED = 1 << 16

Row = tuple[DeviceArray, ...]  # a parameter with its gradient and state


class Spans:
    """A table on the device.

    Attributes:
        address: of the table.
        count: blocks to launch.
        double: whether a tensor is float64.
    """

    def __init__(self, gpu: Any, rows: Sequence[Row], multiprocessors: int) -> None:
        table = _table(rows, multiprocessors)
        self._table = DeviceArray.from_host(gpu, table.view(np.uint8))
        self.address = self._table.address
        self.count = len(table)
        self.double = any(KINDS[x.dtype] == _FLOAT64 for row in rows for x in row)


def _table(rows: Sequence[Row], multiprocessors: int) -> np.ndarray[Any, Any]:
    total = sum(row[0].size for row in rows)
    # about eight blocks for each multiprocessor: what is left over at the end is short
    length = SMALLEST
    while length < LARGEST and total > length * 8 * multiprocessors:
        length *= 2
    parts = []
    for row in rows:
        n = row[0].size
        starts = np.arange(0, n, length, dtype=np.int64)
        part = np.zeros(len(starts), _SPAN)
        part["n"] = np.minimum(n - starts, length)
        kinds = 0
        for k, x in enumerate(row):
            part["at"][:, k] = x.address + starts * x.itemsize
            kinds |= KINDS[x.dtype] << 4 * k
        part["kinds"] = kinds | (0 if any(x.address % 16 for x in row) else _ALIGNED)
        parts.append(part)
    return np.concatenate(parts)


class _Tables:
    """The tables of a device that were used last, by what they name."""

    def __init__(self) -> None:
        self.known: OrderedDict[tuple[Any, ...], Spans] = OrderedDict()


def spans(gpu: Any, rows: Sequence[Row]) -> Spans:
    """The table for some tensors, uploaded where it is new: as long as the addresses stay, nothing is built or copied.

    Args:
        rows: tensors of one shape each, dense; no row is empty.
    """
    tables = gpu.functions.get(_Tables)
    if tables is None:
        tables = gpu.functions[_Tables] = _Tables()
    # the dtypes too: freed memory may come back as another tensor's
    key = tuple([(x.address, x.size, x.dtype) for row in rows for x in row]), len(rows[0])
    found = tables.known.get(key)
    if found is None:
        found = tables.known[key] = Spans(gpu, rows, gpu.facts.multiprocessors)
        if len(tables.known) > KEPT:
            tables.known.popitem(last=False)
    else:
        tables.known.move_to_end(key)
    return found  # type: ignore[no-any-return]
