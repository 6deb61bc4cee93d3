"""Arrays joined along an axis, and elements moved along axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import THREADS, blocks, cast, copy_into, dense
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.units import UNITS, product, widest
from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype

_SOURCE = Source("concat.cu")
_PARTS = 8
_CONCAT = {
    unit: _SOURCE.kernel(f"spiral::concat<{v}>", "P", "q", "q", "q", f"{_PARTS}P{_PARTS + 1}q")
    for unit, v in UNITS.items()
}
_ARRAYS = Cap(ANY.dtypes, ANY.integers)


def _concat(arrays: list[DeviceArray], axis: int, y: DeviceArray) -> None:
    if not y.size:
        return
    a = axis % y.ndim
    kind = as_dtype(y.dtype)
    parts = [dense(cast(x, kind)) for x in arrays if x.size]
    inner = product(y.shape[a + 1 :]) * y.itemsize
    widths = [x.shape[a] * inner for x in parts]
    unit = widest(y.itemsize, y.address, *(x.address for x in parts), *widths)
    rows, total, base = product(y.shape[:a]), y.shape[a] * inner // unit, 0
    for first in range(0, len(parts), _PARTS):  # one launch for eight
        some = parts[first : first + _PARTS]
        starts = [0, *itertools.accumulate(w // unit for w in widths[first : first + _PARTS])]
        empty = _PARTS - len(some)
        _CONCAT[unit](
            y.memory, blocks(rows * starts[-1]), (THREADS, 1, 1), y.address, rows, total, base,
            *(x.address for x in some), *(0,) * empty, *starts, *(starts[-1],) * empty,
        )  # fmt: skip
        base += starts[-1]


def _roll(x: DeviceArray, shift: Any, axis: Any, y: DeviceArray) -> None:
    if not y.size:
        return
    if axis is None:
        n = x.size
        flat, to = dense(x).reshape_view((n,)), y.reshape_view((n,))
        assert flat is not None and to is not None  # both are dense
        x, y, axis = flat, to, 0
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    shifts = (shift,) * len(axes) if isinstance(shift, int) else tuple(shift)
    total: dict[int, int] = {}
    for a, s in zip(axes, shifts, strict=True):  # an axis named twice is moved by the sum
        a %= x.ndim
        total[a] = (total.get(a, 0) + s) % x.shape[a]
    # along each axis two pieces change places
    pieces = [
        [(slice(0, n - s), slice(s, n)), *([(slice(n - s, n), slice(0, s))] if s else [])]
        for n, s in zip(x.shape, (total.get(a, 0) for a in range(x.ndim)), strict=True)
    ]
    for piece in itertools.product(*pieces):
        copy_into(x[tuple(p[0] for p in piece)], y[tuple(p[1] for p in piece)])


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("concat", _concat, _ARRAYS)
    yield Kernel("roll", _roll, _ARRAYS)
