"""Reductions over axes.

An array is brought into groups of axes that lie in one stretch, in the order of memory: transposed arrays are reduced
as they lie. The innermost reduced group is the first step; few long rows are cut into segments, whose states, as those
of further reduced groups, are joined in further steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, cast, cast_into, copy_into, dense
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.backends.cuda.rows import BLOCKS, column_threads, power
from spiral.device_array import DeviceArray
from spiral.dtype import (
    FLOATS,
    DType,
    as_dtype,
    bool_,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)

_SOURCE = Source("reduce.cu")
_OPTIONS = "dQ"


@dataclass(frozen=True)
class Reducer:
    """A reducer of ``reducers.cuh`` for one element type.

    Attributes:
        rows, columns, states: its kernels.
        state: bytes of a state.
    """

    rows: CudaKernel
    columns: CudaKernel
    states: CudaKernel
    state: int


def _reducer(name: str, state: int) -> Reducer:
    def kernel(what: str, numbers: str) -> CudaKernel:
        return _SOURCE.kernel(f"spiral::reduce_{what}<spiral::{name}>", "P", "P", "P", *numbers, _OPTIONS)

    return Reducer(kernel("rows", "qqqqi"), kernel("columns", "qqqqqqii"), kernel("states", "qqqqi"), state)


def _wide(d: DType) -> int:
    return 8 if d is float64 else 4


_SUM = {d: _reducer(f"Sum<{NAMES[d]}>", _wide(d)) for d in FLOATS}
_SUM |= {d: _reducer(f"SumInteger<{NAMES[d]}>", 8) for d in (uint8, int32, int64)}
_PRODUCT = {d: _reducer(f"Product<{NAMES[d]}, {'double' if d is float64 else 'float'}>", _wide(d)) for d in FLOATS}
_PRODUCT[uint64] = _reducer("Product<spiral::u64, spiral::u64>", 8)
_EXTREME = {d: _reducer(f"Extreme<{NAMES[d]}>", _wide(d)) for d in FLOATS}
_EXTREME |= {d: _reducer(f"Extreme<{NAMES[d]}>", max(4, d.itemsize)) for d in (int8, int16, int32, int64)}
_WHERE = {d: _reducer(f"WhereExtreme<{NAMES[d]}>", 16) for d in (*FLOATS, int32, int64)}
_VARIANCE = {d: _reducer(f"Variance<{NAMES[d]}>", 3 * _wide(d)) for d in FLOATS}
_TRUTH = {d.itemsize: _reducer(f"Truth<{NAMES[d]}>", 4) for d in (uint8, uint16, uint32, uint64)}

_SUMMED_AS = {bool_: uint8, int8: int64, int16: int64, uint16: int64, uint32: int64, uint64: int64}
_SIGNED = {bool_: int8, uint8: int8, uint16: int16, uint32: int32, uint64: int64}


# ---------------------------------------------------------------- the steps
@dataclass
class _Axis:
    reduced: bool
    length: int
    stride: int  # bytes


def _order(x: DeviceArray, axes: tuple[int, ...]) -> tuple[DeviceArray, list[int]]:
    """The array with reduced axes running forwards, dense where its order has gaps, and its axes in memory's order."""
    address, strides = x.address, list(x.strides)
    for a in axes:
        if strides[a] < 0:
            address += (x.shape[a] - 1) * strides[a]
            strides[a] = -strides[a]
    x = DeviceArray(x.memory, x.block, address, x.shape, x.dtype, tuple(strides))
    order = sorted(range(x.ndim), key=lambda a: (x.shape[a] > 1, -x.strides[a]))  # a stable sort
    return x, order


def _groups(x: DeviceArray, order: list[int], axes: tuple[int, ...]) -> list[_Axis]:
    """Axes in an order, neighbours of a kind merged where they lie in one stretch."""
    groups: list[_Axis] = []
    for a in order:
        n, stride = x.shape[a], x.strides[a]
        if n == 1:
            continue
        last = groups[-1] if groups else None
        if last is not None and last.reduced == (a in axes) and last.stride == n * stride:
            last.length, last.stride = last.length * n, stride
        else:
            groups.append(_Axis(a in axes, n, stride))
    return groups


def _direct(groups: list[_Axis], itemsize: int) -> bool:
    """Whether the first step can read the array as it lies."""
    if not groups or groups[-1].stride != itemsize:
        return False
    at = _innermost(groups)
    if at is None or at < len(groups) - 2:
        return False
    before = groups[:at]
    return all(o.stride == i.length * i.stride for o, i in zip(before, before[1:], strict=False))


def _innermost(groups: list[_Axis]) -> int | None:
    return next((i for i in reversed(range(len(groups))) if groups[i].reduced), None)


def reduce(
    reducer: Reducer, x: DeviceArray, axes: tuple[int, ...], y: DeviceArray, divisor: float = 1.0, mask: int = 0
) -> None:
    """Reduces x over axes into y.

    Args:
        reducer: for the element type of x.
        x: any strides.
        axes: which to reduce, none negative.
        y: dense, with the elements of the axes that remain in their order; the axes of length 1 that keepdims
            leaves make no difference.
        divisor: see ``Options``.
        mask: see ``Options``.
    """
    gpu = y.memory
    options = (float(divisor), mask)
    if not y.size:
        return
    if not x.size:
        reducer.states(
            gpu, (-(-y.size // THREADS), 1, 1), (THREADS, 1, 1), 0, y.address, 0, 1, 0, y.size, 1, THREADS, *options
        )
        return
    x, order = _order(x, axes)
    groups = _groups(x, order, axes)
    if not _direct(groups, x.itemsize):
        if any(g.reduced for g in groups) or not x.contiguous:
            x = dense(x)
            order = list(range(x.ndim))
            groups = _groups(x, order, axes)
        if not any(g.reduced for g in groups):
            groups = [_Axis(False, x.size, x.itemsize), _Axis(True, 1, x.itemsize)]
    kept = [a for a in order if a not in axes and x.shape[a] > 1]
    if kept == sorted(kept):
        _steps(reducer, x, groups, y, options)
        return
    shape = tuple(x.shape[a] for a in kept)
    found = DeviceArray.empty(gpu, shape, y.dtype)
    _steps(reducer, x, groups, found, options)
    ranks = tuple(sorted(range(len(kept)), key=lambda k: kept[k]))
    turned = found.transpose(ranks)
    copy_into(turned, DeviceArray(gpu, y.block, y.address, turned.shape, y.dtype))


def _steps(reducer: Reducer, x: DeviceArray, groups: list[_Axis], y: DeviceArray, options: tuple[float, int]) -> None:
    gpu = y.memory
    at = _innermost(groups)
    assert at is not None
    before, here, after = groups[:at], groups[at], groups[at + 1 :]
    outer, inner = math.prod(g.length for g in before), math.prod(g.length for g in after)
    pitch = (before[-1].stride if before else x.nbytes) // x.itemsize
    more = any(g.reduced for g in before)
    n = here.length
    per_pack = 16 // x.itemsize
    if inner == 1:
        group, segment = _row_shape(outer, n, per_pack)
        columns = outer
    else:
        across, segment = _column_shape(outer * -(-inner // per_pack), n)
        columns = outer * inner
    segments = -(-n // segment)
    final = segments == 1 and not more
    states = None if final else DeviceArray.empty(gpu, (segments * columns * reducer.state,), np.dtype(np.uint8))
    to = (y.address, 0) if states is None else (0, states.address)
    block = (max(group, THREADS) if inner == 1 else THREADS, 1, 1)
    if inner == 1:
        grid = (-(-outer * group // block[0]), segments, 1)
        reducer.rows(gpu, grid, block, x.address, *to, outer, n, pitch, segment, group, *options)
    else:
        row = here.stride // x.itemsize
        aligned = not (
            x.address % 16 or here.stride % 16 or (outer > 1 and pitch * x.itemsize % 16) or inner % per_pack
        )
        grid = (-(-outer * -(-inner // per_pack) // across), segments, 1)
        reducer.columns(
            gpu, grid, block, x.address, *to, outer, n, inner, pitch, row, segment, across, int(aligned), *options
        )
    if states is None:
        return
    # what is left: the segments, then the reduced groups further out, from the inside
    if segments > 1:
        states = _join(reducer, states, 1, segments, columns, None if more else y, options)
    while states is not None:
        at = _innermost(before)
        assert at is not None
        inner = math.prod(g.length for g in before[at + 1 :]) * inner
        outer, n = math.prod(g.length for g in before[:at]), before[at].length
        before = before[:at]
        last = not any(g.reduced for g in before)
        states = _join(reducer, states, outer, n, inner, y if last else None, options)


def _join(
    reducer: Reducer,
    states: DeviceArray,
    outer: int,
    n: int,
    inner: int,
    y: DeviceArray | None,
    options: tuple[float, int],
) -> DeviceArray | None:
    """Joins states (outer, n, inner) along n into y, or into states (outer, inner) where y is None."""
    gpu = states.memory
    while True:
        across, segment = _column_shape(outer * inner, n)
        segments = -(-n // segment)
        to = y if segments == 1 else None
        made = None
        if to is None:
            made = DeviceArray.empty(gpu, (segments * outer * inner * reducer.state,), np.dtype(np.uint8))
        addresses = (0, made.address) if made is not None else (y.address if y is not None else 0, 0)
        grid = (-(-outer * inner // across), segments, 1)
        reducer.states(
            gpu, grid, (THREADS, 1, 1), states.address, *addresses, outer, n, inner, segment, across, *options
        )
        if segments == 1:
            return made
        assert made is not None
        states, outer, n, inner = made, 1, segments, outer * inner


def _row_shape(rows: int, n: int, per_pack: int) -> tuple[int, int]:
    """Threads that share a row, and elements of a segment."""
    packs = -(-n // per_pack)
    if packs <= 32 or (packs <= 128 and rows >= BLOCKS):
        return min(32, power(-(-packs // 4))), n
    least = THREADS * 4 * per_pack  # elements that give each thread four loads
    segments = min(-(-n // least), max(1, BLOCKS // rows))
    return THREADS, -(-n // (segments * THREADS * per_pack)) * THREADS * per_pack


def _column_shape(columns: int, n: int) -> tuple[int, int]:
    """Threads of a block side by side, and elements of a segment; ``columns`` are what one thread takes."""
    across = column_threads(columns, n)
    segments = max(1, min(n * across // (16 * THREADS), BLOCKS // -(-columns // across)))
    return across, max(1, -(-n // segments))


# ---------------------------------------------------------------- the ops
def _axes(x: DeviceArray, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def _count(x: DeviceArray, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


def _as(x: DeviceArray, dtype: DType) -> DeviceArray:
    """The same bits as elements of another type of the same size."""
    return DeviceArray(x.memory, x.block, x.address, x.shape, dtype.numpy, x.strides)


def _sum(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
    d = as_dtype(x.dtype)
    to = _SUMMED_AS.get(d, d)
    x = _as(x, to) if to.itemsize == d.itemsize else cast(x, to)
    reduce(_SUM[to], x, _axes(x, axis), y)


def _mean(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
    axes = _axes(x, axis)
    d = as_dtype(x.dtype)
    if d.kind == "float":
        reduce(_SUM[d], x, axes, y, _count(x, axes))
        return
    exact = DeviceArray.empty(y.memory, y.shape, float64.numpy)
    reduce(_SUM[float64], cast(x, float64), axes, exact, _count(x, axes))
    cast_into(exact, y)


def _prod(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
    d = as_dtype(x.dtype)
    if d.kind != "float":
        x, d = _as(cast(x, as_dtype(y.dtype)), uint64), uint64
    reduce(_PRODUCT[d], x, _axes(x, axis), y)


def _keys(x: DeviceArray, smallest: bool) -> tuple[DeviceArray, DType, int]:
    """The elements as what extremes compare, with the mask that makes the wanted ones largest."""
    d = as_dtype(x.dtype)
    if d.kind == "float":
        return x, d, int(smallest)
    signed = _SIGNED.get(d, d)
    every = (1 << 8 * d.itemsize) - 1
    mask = (0 if signed is d else 1 << (8 * d.itemsize - 1)) ^ (every if smallest else 0)
    return _as(x, signed), signed, mask


def _extreme(smallest: bool) -> Callable[[DeviceArray, Any, bool, DeviceArray], None]:
    def run(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
        keys, d, mask = _keys(x, smallest)
        reduce(_EXTREME[d], keys, _axes(x, axis), y, mask=mask)

    run.__name__ = "min" if smallest else "max"
    return run


def _where(smallest: bool) -> Callable[[DeviceArray, Any, bool, DeviceArray], None]:
    def run(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
        d = as_dtype(x.dtype)
        if d.kind != "float" and d not in (int32, int64, uint64):
            x = cast(x, int64 if d is uint32 else int32)
        if axis is None:  # positions count in C order
            x = dense(x)
            x = DeviceArray(x.memory, x.block, x.address, (x.size,), x.dtype)
        elif x.strides[axis % x.ndim] < 0:  # positions count along the axis, which would be turned
            x = dense(x)
        keys, d, mask = _keys(x, smallest)
        reduce(_WHERE[d], keys, _axes(x, axis), y, mask=mask)

    run.__name__ = "argmin" if smallest else "argmax"
    return run


def _truth(every: bool) -> Callable[[DeviceArray, Any, bool, DeviceArray], None]:
    def run(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
        d = as_dtype(x.dtype)
        bits = 8 * d.itemsize - (d.kind == "float")  # -0.0 is false
        view = _as(x, {1: uint8, 2: uint16, 4: uint32, 8: uint64}[d.itemsize])
        reduce(_TRUTH[d.itemsize], view, _axes(x, axis), y, -1.0 if every else 1.0, (1 << bits) - 1)

    run.__name__ = "all" if every else "any"
    return run


def _var(x: DeviceArray, axis: Any, correction: float, keepdims: bool, y: DeviceArray) -> None:
    axes = _axes(x, axis)
    reduce(_VARIANCE[as_dtype(x.dtype)], x, axes, y, max(0.0, _count(x, axes) - correction))


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    arrays = Cap(ANY.dtypes, ANY.integers)
    yield Kernel("sum", _sum, arrays)
    yield Kernel("mean", _mean, arrays)
    yield Kernel("prod", _prod, arrays)
    yield Kernel("max", _extreme(False), arrays)
    yield Kernel("min", _extreme(True), arrays)
    yield Kernel("argmax", _where(False), arrays)
    yield Kernel("argmin", _where(True), arrays)
    yield Kernel("any", _truth(False), arrays)
    yield Kernel("all", _truth(True), arrays)
    yield Kernel("var", _var, Cap(FLOATS))
