"""Arrays joined along an axis, and elements moved along axes: by strided copies, one for each part."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import cast, copy_into, dense
from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype

_ARRAYS = Cap(ANY.dtypes, ANY.integers)


def _concat(arrays: list[DeviceArray], axis: int, y: DeviceArray) -> None:
    a, start = axis % y.ndim, 0
    for x in arrays:
        end = start + x.shape[a]
        copy_into(cast(x, as_dtype(y.dtype)), y[(slice(None),) * a + (slice(start, end),)])
        start = end


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
