"""The table that tells a kernel's blocks which stretches of which tensors to work on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, float64

OPERANDS = 4
SMALLEST, LARGEST = 2048, 65536  # elements that a block works on
KEPT = 16  # tables per device and owner

KINDS = {d.numpy: k for k, d in enumerate(FLOATS)}  # float16, bfloat16, float32, float64
_SPAN = np.dtype([("at", np.uint64, OPERANDS), ("n", np.int32), ("kinds", np.int32)])
_ALIGNED = 1 << 16

Row = tuple[DeviceArray, ...]  # a parameter with its gradient and state


class Tables:
    """A device's tables by what they name, those that were used last."""

    def __init__(self) -> None:
        self.known: OrderedDict[Any, Any] = OrderedDict()

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made for a key before, or is made now."""
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = make()
            if len(self.known) > KEPT:
                self.known.popitem(last=False)
        else:
            self.known.move_to_end(key)
        return found


def tables_of(gpu: Any, owner: Any) -> Tables:
    """The tables that an owner keeps on a device, by whatever identifies it."""
    found = gpu.functions.get(owner)
    if found is None:
        found = gpu.functions[owner] = Tables()
    return found  # type: ignore[no-any-return]


def addresses_of(rows: Sequence[Row]) -> tuple[int, ...]:
    """Where the tensors lie, as a key."""
    return tuple([x.address for row in rows for x in row])


def types_of(rows: Sequence[Row]) -> tuple[int, ...]:
    """The tensors' dtypes as a key: NumPy's numbers for them, since hashing a dtype costs ten times as much."""
    return tuple([x.dtype.num for row in rows for x in row])


def kinds_of(row: Row) -> int:
    """Four bits for each tensor's Kind (kernels/cuda/kinds.cuh)."""
    return sum(KINDS[x.dtype] << 4 * k for k, x in enumerate(row))


class _Plan:
    """How tensors of certain sizes and dtypes are cut; it does not depend on where they lie."""

    def __init__(self, rows: Sequence[Row], multiprocessors: int) -> None:
        sizes = np.array([row[0].size for row in rows], np.int64)
        # about eight blocks for each multiprocessor: what is left over at the end is short
        length = SMALLEST
        while length < LARGEST and int(sizes.sum()) > length * 8 * multiprocessors:
            length *= 2
        counts = -(-sizes // length)
        self.row = np.repeat(np.arange(len(rows)), counts)
        start = (np.arange(len(self.row)) - np.repeat(np.cumsum(counts) - counts, counts)) * length
        itemsizes = np.array([[x.itemsize for x in row] for row in rows], np.int64)
        self.offsets = start[:, None] * itemsizes[self.row]
        self.table = np.zeros(len(self.row), _SPAN)
        self.table["n"] = np.minimum(sizes[self.row] - start, length)
        self.table["kinds"] = np.array([kinds_of(row) for row in rows], np.int32)[self.row]
        self.double = any(x.dtype == float64.numpy for row in rows for x in row)


class Spans:
    """A table on the device.

    Attributes:
        address: of the table.
        count: blocks to launch.
        double: whether a tensor is float64.
        types: of each tensor.
    """

    def __init__(self, gpu: Any, plan: _Plan, addresses: tuple[int, ...], types: list[Any]) -> None:
        at = np.array(addresses, np.int64).reshape(-1, plan.offsets.shape[1])
        table = plan.table.copy()
        table["at"][:, : at.shape[1]] = at[plan.row] + plan.offsets
        table["kinds"] |= np.where((at % 16 == 0).all(1), _ALIGNED, 0)[plan.row].astype(np.int32)
        self._table = DeviceArray.from_host(gpu, table.view(np.uint8))
        self.address = self._table.address
        self.count = len(table)
        self.double = plan.double
        self.types = types


def spans(gpu: Any, rows: Sequence[Row]) -> Spans:
    """The table for some tensors, uploaded where it is new: as long as the addresses stay, nothing is built or copied.

    Args:
        rows: tensors of one shape each, dense; no row is empty.
    """
    sizes, addresses = tuple([row[0].size for row in rows]), addresses_of(rows)
    # freed memory may come back as another tensor's; compared, since hashing a dtype takes ten times as long
    types = [x.dtype for row in rows for x in row]

    def make() -> Spans:
        plan = tables_of(gpu, _Plan).kept((sizes, types_of(rows)), lambda: _Plan(rows, gpu.facts.multiprocessors))
        return Spans(gpu, plan, addresses, types)

    tables = tables_of(gpu, Spans)
    found: Spans = tables.kept((sizes, addresses), make)
    if found.types != types:
        found = tables.known[sizes, addresses] = make()
    return found


def in_stretches(
    lists: Sequence[Any], written: int, dense: Callable[[DeviceArray], DeviceArray]
) -> tuple[list[Row], list[tuple[DeviceArray, DeviceArray]]]:
    """Rows for `spans`, and what has to be copied back to where after a launch.

    Args:
        lists: tensors of several lists in parallel; where one is None the row is left out, as are empty ones.
        written: a bit per list for those that the launch overwrites.
        dense: copies what has strides.
    """
    rows: list[Row] = []
    back: list[tuple[DeviceArray, DeviceArray]] = []
    for row in zip(*lists, strict=True):
        if any(x is None for x in row) or not row[0].size:
            continue
        lying = tuple([dense(x) for x in row])
        back += [
            (new, x) for k, (new, x) in enumerate(zip(lying, row, strict=True)) if written >> k & 1 and new is not x
        ]
        rows.append(lying)
    return rows, back
