"""Reductions over axes, and running sums and products.

Arrays are reduced as they lie where that leaves at most 3 kept and 2 reduced stretches of axes, one of which is
consecutive in memory; others are brought into order first. Few long rows or columns are cut into segments, whose
results are reduced once more.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import triton.language as tl

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import LIMIT, NAMES, cast, dense
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.pointwise import number_of
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, FLOATS, DType, as_dtype, bool_, float32, float64, int8, int32, int64, uint64
from spiral.gpu.axes import collapsed
from spiral.kernels.triton import reduce as source

PROGRAMS = 1056
"""As many as keep a large GPU busy: 8 on each of 132 multiprocessors. The same on every device, so that results are."""

_SHORT, _LONG = (16, 64), (1, 2048)
_NARROW, _BROAD = (32, 32), (8, 128)
_SEARCHED = (1, 1024)
_WIDE = {
    d: (float64 if d is float64 else float32) if d.kind == "float" else int64 for d in (*FLOATS, int8, int32, int64)
}
_INTEGERS = {bool_: int8, int8: int8, int32: int32, int64: int64, uint64: int64}
"""As what integers are reduced; others are cast to int64."""
_TYPES = {float32: tl.float32, float64: tl.float64, int64: tl.int64}
_OUT = {d.numpy: source.OUT.index(d.name) for d in FLOATS}
_OUT |= {d.numpy: source.OUT.index(f"int{8 * d.itemsize}") for d in ALL if d.kind != "float"}


class Reducer(NamedTuple):
    """The kernels for arrays of one dtype.

    Attributes:
        rows: (K, R) -> kernel.
        columns: (R, C) -> kernel.
        wide: what states are.
    """

    rows: dict[tuple[int, int], TritonKernel]
    columns: dict[tuple[int, int], TritonKernel]
    wide: DType


def _numbers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


def _reducer(dtype: DType) -> Reducer:
    wide = _WIDE[dtype]
    w = NAMES[wide]
    head = {"x": f"*{NAMES[dtype]}", "centre": f"*{w}", "y": "*i8", "op": "i32", "flip": "i64", "flip_back": "i64"}
    head |= {"none": w, "divisor": w, "out": "i32"}
    rows = head | _numbers("kept", "m", "n", "m_per", "n_per", "segments_n", "n1", "n2", "s0", "s1", "s2", "sm")
    columns = head | _numbers(
        "columns", "tiles", "m", "n", "m_per", "n_per", "segments_n", "n1", "n2", "s0", "s1", "s2", "sm", "sn"
    )
    strides = ("s0", "s1", "s2", "sm")
    return Reducer(
        {
            (k, r): TritonKernel(
                source.reduce_rows, rows, {"WIDE": _TYPES[wide], "K": k, "R": r}, divisible=(*strides, "n_per")
            )
            for k, r in (_SHORT, _LONG)
        },
        {
            (r, c): TritonKernel(
                source.reduce_columns, columns, {"WIDE": _TYPES[wide], "R": r, "C": c}, divisible=(*strides, "sn")
            )
            for r, c in (_NARROW, _BROAD)
        },
        wide,
    )


_REDUCERS = {d: _reducer(d) for d in _WIDE}


# ---------------------------------------------------------------- how an array lies
class Layout(NamedTuple):
    """An array as kernels see it; lengths and strides in elements.

    Attributes:
        rows: the n elements of a stretch are consecutive, else the last kept axis is.
        offset: of the first element, where reduced axes run backwards.
        kept: lengths and strides of the kept axes.
        m, n: how many stretches, and elements of each.
        sm, sn: their strides.
    """

    rows: bool
    offset: int
    kept: tuple[tuple[int, int], ...]
    m: int
    n: int
    sm: int
    sn: int


@functools.lru_cache(2048)
def _layout(shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...], ordered: bool) -> Layout | None:
    """How to reduce an array as it lies, or None; ``ordered``: positions along the reduced axis count."""
    kept = [a for a in range(len(shape)) if a not in axes]
    keep = collapsed(tuple(shape[a] for a in kept), tuple(strides[a] for a in kept))
    order = sorted(axes, key=lambda a: -abs(strides[a]))
    backwards = [a for a in order if strides[a] < 0 and shape[a] > 1]
    if backwards and ordered:
        return None
    offset = sum((shape[a] - 1) * strides[a] for a in backwards)
    gone = collapsed(tuple(shape[a] for a in order), tuple(abs(strides[a]) for a in order))
    if len(gone) > (1 if ordered else 2):
        return None
    if sum((n - 1) * abs(s) for n, s in keep + gone) >= 2 * LIMIT:
        return None
    (m, sm), (n, sn) = ([(1, 0)] * (2 - len(gone)) + [(g[0], g[1]) for g in gone])[:2]
    places = tuple((k[0], k[1]) for k in keep)
    if gone and sn == 1 and len(keep) <= 3 and (m == 1 or n >= 32):
        return Layout(True, offset, places, m, n, sm, sn)
    if keep and keep[-1][1] == 1 and len(keep) <= 4:
        return Layout(False, offset, places, m, n, sm, sn)
    return None


def _in_order(x: DeviceArray, axes: tuple[int, ...], kept: int) -> tuple[DeviceArray, Layout]:
    """A dense array with the reduced axes last, and its layout."""
    x = dense(x.transpose((*[a for a in range(x.ndim) if a not in axes], *axes)))
    n = math.prod(x.shape[x.ndim - len(axes) :])
    return x, Layout(True, 0, ((kept, n),), 1, n, 0, 1)


def _three(axes: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Up to 3 axes as ``place3`` takes them."""
    padded = ((1, 0),) * (3 - len(axes)) + axes
    return (padded[1][0], padded[2][0], padded[0][1], padded[1][1], padded[2][1])


# ---------------------------------------------------------------- reductions
def _none(op: int, wide: DType) -> Any:
    """What leaves a state as it is."""
    if op == source.MAXIMUM:
        return -math.inf if wide.kind == "float" else -(2**63)
    return int(op == source.PRODUCT) if wide.kind == "int" else float(op == source.PRODUCT)


def reduce(
    op: int,
    x: DeviceArray,
    axes: tuple[int, ...],
    y: DeviceArray,
    divisor: float = 1,
    flip: int = 0,
    centre: Any = None,
) -> None:
    """Reduces x over axes into y.

    Args:
        op: an operation of ``kernels/triton/reduce.py``.
        x: of a dtype that has kernels; any strides.
        axes: which to reduce, none negative.
        y: dense, with the elements of the axes that remain in their order; the axes of length 1 that keepdims
            leaves make no difference. Of a dtype that states may be stored in.
        divisor: of floating sums.
        flip: see the kernels.
        centre: dense, of the wide dtype, as y.
    """
    if y.size:
        _reduce(op, x, axes, y, divisor, flip, flip, centre)


def _reduce(
    op: int, x: DeviceArray, axes: tuple[int, ...], y: DeviceArray, divisor: float, flip: int, back: int, centre: Any
) -> None:
    kept = y.size
    reducer = _REDUCERS[as_dtype(x.dtype)]
    if x.size >= 2 * LIMIT:
        _cut(op, reducer, x, axes, y, divisor, flip, back, centre)
        return
    if not x.size:
        where = Layout(True, 0, ((kept, 0),), 1, 0, 0, 1)
    else:
        found = _layout(x.shape, tuple([s // x.itemsize for s in x.strides]), axes, False)
        if found is None:
            x, where = _in_order(x, axes, kept)
        else:
            where = found
    _launch(op, reducer, x, where, y, divisor, flip, back, centre)


def _cut(
    op: int, reducer: Reducer, x: DeviceArray, axes: tuple[int, ...], y: DeviceArray, divisor: float, flip: int,
    back: int, centre: Any,
) -> None:  # fmt: skip
    """Reduces more elements than kernels count, in two halves."""
    kept = [a for a in range(x.ndim) if a not in axes]
    axis = next((a for a in kept if x.shape[a] > 1), None)
    if axis is not None:
        shape = tuple(x.shape[a] for a in kept)
        places = [None if t is None else DeviceArray(t.memory, t.block, t.address, shape, t.dtype) for t in (y, centre)]
    else:
        axis = max(axes, key=lambda a: x.shape[a])
        states = DeviceArray.empty(y.memory, (2, 1), reducer.wide.numpy)
    middle = x.shape[axis] // 2
    for i, part in enumerate((slice(None, middle), slice(middle, None))):
        half = x[(*(slice(None),) * axis, part)]
        if axis in axes:
            _reduce(op, half, axes, states[i], 1, flip, 0, centre)
        else:
            at = (*(slice(None),) * kept.index(axis), part)
            a, b = [None if t is None else t[at] for t in places]
            assert a is not None
            _reduce(op, half, axes, a, divisor, flip, back, b)
    if axis in axes:
        _join(op, states, y, divisor, back)


def _launch(
    op: int, reducer: Reducer, x: DeviceArray, where: Layout, y: DeviceArray, divisor: float, flip: int, back: int,
    centre: Any,
) -> None:  # fmt: skip
    kept, m, n = y.size, where.m, where.n
    columns = tiles = 0
    if where.rows:
        side = _LONG if n > 256 else _SHORT
        kernel, step, least = reducer.rows[side], side[1], 4
        programs = -(-kept // side[0])
    else:
        columns = where.kept[-1][0]
        side = _BROAD if columns > 32 else _NARROW
        kernel, step, least = reducer.columns[side], side[0], 8
        tiles = -(-columns // side[1])
        programs = kept // columns * tiles
    m_per, blocks = m, max(1, -(-n // step))
    per = blocks
    if 2 * programs < PROGRAMS:
        if m > 1:
            m_per = -(-m // min(m, PROGRAMS // programs))
        else:
            per = -(-blocks // max(1, min(blocks // least, PROGRAMS // programs)))
    segments_n = -(-blocks // per)
    segments = segments_n * -(-m // m_per)
    gpu, wide = y.memory, reducer.wide
    to, out = y, _OUT[y.dtype]
    last = segments == 1
    if not last:
        to = DeviceArray.empty(gpu, (segments, kept), wide.numpy)
        out = _OUT[wide.numpy]
    head = (
        x.address + where.offset * x.itemsize, 0 if centre is None else centre.address, to.address, op, flip,
        back if last else 0, _none(op, wide), number_of(divisor if last else 1, NAMES[wide]), out,
    )  # fmt: skip
    cuts = m, n, m_per, per * step, segments_n
    if where.rows:
        kernel(gpu, (programs, segments, 1), *head, kept, *cuts, *_three(where.kept), where.sm)
    else:
        steps = where.sm, where.sn
        kernel(gpu, (programs, segments, 1), *head, columns, tiles, *cuts, *_three(where.kept[:-1]), *steps)
    if not last:
        _join(op, to, y, divisor, back)


def _join(op: int, states: DeviceArray, y: DeviceArray, divisor: float, back: int) -> None:
    """Reduces states (count, kept), which are flipped already, into y."""
    count, kept = states.shape
    where = Layout(False, 0, ((kept, 1),), 1, count, 0, kept) if kept > 1 else Layout(True, 0, (), 1, count, 0, 1)
    op = source.SUM if op == source.SQUARES else op
    _launch(op, _REDUCERS[as_dtype(states.dtype)], states, where, y, divisor, 0, back, None)


# ---------------------------------------------------------------- where extremes are
_WHERE_ROWS: dict[np.dtype[Any], dict[tuple[int, int], TritonKernel]] = {}
_WHERE_COLUMNS: dict[np.dtype[Any], TritonKernel] = {}
for _d in (*FLOATS, int64):
    _w = _WIDE[_d]
    _rows = {"x": f"*{NAMES[_d]}", "positions": "*i64", "values": f"*{NAMES[_w]}", "y": "*i64", "flip": "i64"}
    _rows |= {"none": NAMES[_w]} | _numbers("partial", "joining", "kept", "n", "n_per", "n1", "n2", "s0", "s1", "s2")
    _columns = {"x": f"*{NAMES[_d]}", "y": "*i64", "flip": "i64", "none": NAMES[_w]}
    _columns |= _numbers("columns", "tiles", "n", "n1", "n2", "s0", "s1", "s2", "sn")
    _WHERE_ROWS[_d.numpy] = {
        (k, r): TritonKernel(source.where_rows, _rows, {"WIDE": _TYPES[_w], "K": k, "R": r})
        for k, r in (_SHORT, _SEARCHED)
    }
    _WHERE_COLUMNS[_d.numpy] = TritonKernel(source.where_columns, _columns, {"WIDE": _TYPES[_w], "R": 16, "C": 64})


def _place(x: DeviceArray, axis: int, y: DeviceArray, flip: int) -> None:
    """Positions of the largest elements along an axis; x has any strides."""
    found = _layout(x.shape, tuple([s // x.itemsize for s in x.strides]), (axis,), True)
    kept = y.size
    if found is not None and not found.rows and kept < 32 * PROGRAMS and found.n > 4096:
        found = None  # too few columns for a program each
    if found is None:
        x, found = _in_order(x, (axis,), kept)
    none = _none(source.MAXIMUM, _WIDE[as_dtype(x.dtype)])
    start = x.address
    if found.rows:
        _place_rows(x, start, 0, found, y, flip, none)
        return
    columns = found.kept[-1][0]
    tiles = -(-columns // 64)
    _WHERE_COLUMNS[x.dtype](
        y.memory, (kept // columns * tiles, 1, 1), start, y.address, flip, none, columns, tiles, found.n,
        *_three(found.kept[:-1]), found.sn,
    )  # fmt: skip


def _place_rows(
    x: DeviceArray, values: int, positions: int, where: Layout, y: DeviceArray, flip: int, none: Any
) -> None:
    gpu, kept, n = y.memory, y.size, where.n
    side = _SEARCHED if n > 256 else _SHORT
    programs, blocks = -(-kept // side[0]), -(-n // side[1])
    per = blocks
    if 2 * programs < PROGRAMS:
        per = -(-blocks // max(1, min(blocks // 4, PROGRAMS // programs)))
    segments = -(-blocks // per)
    wide = _WIDE[as_dtype(x.dtype)]
    to, best = y, 0
    states = None
    if segments > 1:
        to = DeviceArray.empty(gpu, (kept, segments), int64.numpy)
        states = DeviceArray.empty(gpu, (kept, segments), wide.numpy)
        best = states.address
    _WHERE_ROWS[x.dtype][side](
        gpu, (programs, segments, 1), values, positions, best, to.address, flip, none, int(segments > 1),
        int(positions != 0), kept, n, per * side[1], *_three(where.kept),
    )  # fmt: skip
    if states is not None:
        joined = Layout(True, 0, ((kept, segments),), 1, segments, 0, 1)
        _place_rows(states, states.address, to.address, joined, y, 0, none)


# ---------------------------------------------------------------- running sums and products
_SCAN_ROWS: dict[np.dtype[Any], TritonKernel] = {}
_SCAN_COLUMNS: dict[np.dtype[Any], TritonKernel] = {}
for _d in (*FLOATS, int64):
    _w = _WIDE[_d]
    _array = f"*{NAMES[_d]}"
    _SCAN_ROWS[_d.numpy] = TritonKernel(
        source.cumulative_rows,
        {"x": _array, "carries": f"*{NAMES[_w]}", "y": _array, "op": "i32", "none": NAMES[_w]} | _numbers("n", "n_per"),
        {"WIDE": _TYPES[_w], "R": 1024},
        divisible=("n",),
    )
    _SCAN_COLUMNS[_d.numpy] = TritonKernel(
        source.cumulative_columns,
        {"x": _array, "y": _array, "op": "i32", "none": NAMES[_w]} | _numbers("n", "columns", "tiles"),
        {"WIDE": _TYPES[_w], "R": 8, "C": 128},
        divisible=("columns",),
    )


def _scan(op: int, x: DeviceArray, axis: int, y: DeviceArray) -> None:
    """Running sums or products of x, dense, into y, of one dtype."""
    gpu, n = y.memory, y.shape[axis]
    rows, columns = math.prod(y.shape[:axis]), math.prod(y.shape[axis + 1 :])
    wide = _WIDE[as_dtype(x.dtype)]
    none = _none(op, wide)
    if columns > 1:
        tiles = -(-columns // 128)
        grid = (rows * tiles, 1, 1)
        _SCAN_COLUMNS[x.dtype](gpu, grid, x.address, y.address, op, none, n, columns, tiles)
        return
    blocks = -(-n // 1024)
    segments = min(blocks // 8, PROGRAMS // rows) if 2 * rows < PROGRAMS else 1
    carries = None
    n_per = n
    if segments > 1:  # sums of segments, running sums of these, then each segment from there
        n_per = -(-blocks // segments) * 1024
        segments = -(-n // n_per)
        count = segments - 1
        sums, carries = [DeviceArray.empty(gpu, (rows, count), wide.numpy) for _ in range(2)]
        strides = (n * x.itemsize, n_per * x.itemsize, x.itemsize)
        reduce(op, DeviceArray(gpu, x.block, x.address, (rows, count, n_per), x.dtype, strides), (2,), sums)
        _scan(op, sums, 1, carries)
    _SCAN_ROWS[x.dtype](
        gpu, (rows, -(-n // n_per), 1), x.address, 0 if carries is None else carries.address, y.address, op, none, n,
        n_per,
    )  # fmt: skip


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


def _elements(x: DeviceArray) -> DeviceArray:
    """An array as one that has kernels."""
    d = as_dtype(x.dtype)
    if d.kind == "float":
        return x
    as_it_lies = _INTEGERS.get(d)
    return cast(x, int64) if as_it_lies is None else _as(x, as_it_lies)


def _sum(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
    reduce(source.SUM, _elements(x), _axes(x, axis), y)


def _prod(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
    reduce(source.PRODUCT, _elements(x), _axes(x, axis), y)


def _mean(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
    axes = _axes(x, axis)
    x = x if as_dtype(x.dtype).kind == "float" else cast(x, float64)
    reduce(source.SUM, x, axes, y, _count(x, axes))


def _flip(x: DeviceArray, smallest: bool) -> int:
    """What makes the wanted elements the largest."""
    d = as_dtype(x.dtype)
    if d.kind == "float":
        return int(smallest)
    if d is uint64:  # whose bits are compared as int64
        return 2**63 - 1 if smallest else -(2**63)
    return -1 if smallest else 0


def _extreme(smallest: bool) -> Callable[[DeviceArray, Any, bool, DeviceArray], None]:
    def run(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
        reduce(source.MAXIMUM, _elements(x), _axes(x, axis), y, flip=_flip(x, smallest))

    run.__name__ = "min" if smallest else "max"
    return run


def _where(smallest: bool) -> Callable[[DeviceArray, Any, bool, DeviceArray], None]:
    def run(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
        flip = _flip(x, smallest)
        d = as_dtype(x.dtype)
        if d.kind != "float":
            x = _as(x, int64) if d is uint64 else cast(x, int64)
        if axis is None:  # positions count in C order
            x = dense(x)
            x, axis = DeviceArray(x.memory, x.block, x.address, (x.size,), x.dtype), 0
        if y.size:
            _place(x, axis % x.ndim, y, flip)

    run.__name__ = "argmin" if smallest else "argmax"
    return run


def _truth(every: bool) -> Callable[[DeviceArray, Any, bool, DeviceArray], None]:
    def run(x: DeviceArray, axis: Any, keepdims: bool, y: DeviceArray) -> None:
        reduce(source.ANY, _elements(x), _axes(x, axis), y, flip=int(every))

    run.__name__ = "all" if every else "any"
    return run


def _var(x: DeviceArray, axis: Any, correction: float, keepdims: bool, y: DeviceArray) -> None:
    axes = _axes(x, axis)
    count = _count(x, axes)
    centre = DeviceArray.empty(y.memory, y.shape, _WIDE[as_dtype(x.dtype)].numpy)
    reduce(source.SUM, x, axes, centre, count)
    reduce(source.SQUARES, x, axes, y, max(0.0, count - correction), centre=centre)


def _cumulative(op: int) -> Callable[[DeviceArray, int, DeviceArray], None]:
    def run(x: DeviceArray, axis: int, y: DeviceArray) -> None:
        if not y.size:
            return
        d = as_dtype(x.dtype)
        if d.kind != "float":
            x, y = _as(cast(x, as_dtype(y.dtype)), int64), _as(y, int64)
        _scan(op, dense(x), axis % y.ndim, y)

    run.__name__ = "cumulative_prod" if op else "cumulative_sum"
    return run


def _countable(x: DeviceArray, *_: Any) -> bool:
    return x.size < 2 * LIMIT


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    arrays = Cap(ANY.dtypes, ANY.integers)
    small = Cap(ANY.dtypes, ANY.integers, where=_countable, where_text="takes less than 2**31 elements")
    yield Kernel("sum", _sum, arrays)
    yield Kernel("mean", _mean, arrays)
    yield Kernel("prod", _prod, arrays)
    yield Kernel("max", _extreme(False), arrays)
    yield Kernel("min", _extreme(True), arrays)
    yield Kernel("argmax", _where(False), small)
    yield Kernel("argmin", _where(True), small)
    yield Kernel("any", _truth(False), arrays)
    yield Kernel("all", _truth(True), arrays)
    yield Kernel("var", _var, Cap(FLOATS))
    yield Kernel("cumulative_sum", _cumulative(source.SUM), small)
    yield Kernel("cumulative_prod", _cumulative(source.PRODUCT), small)
