"""Products of groups of rows, each with a matrix of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import cast, dense
from spiral.backends.cuda.gemm import MATRIX, STRIDED, strided, transposed
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.products import FINDING_TILES, MMA_TILES, Kind, products
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, float32, float64, int32

_GROUPED = Source("grouped.cu")
_ROWS = Kind("GroupRows", STRIDED.format + "P3i4x")
_WEIGHT = Kind("GroupMatrix", STRIDED.format + "P3i4x")
_RESULT = Kind("GroupResult", "PP4i")
_SPAN = Kind("GroupSpan", STRIDED.format + "P")
_WAYS = tuple(itertools.product((True, False), repeat=2))
_EXACT = (float32, float64)


def _all_ways(d: DType, a: Kind, b: Kind, y: Kind) -> dict[tuple[DType, bool, bool], Any]:
    if d in MMA_TILES:
        return {(d, i, j): products(_GROUPED, d, a, b, y, i, j, FINDING_TILES) for i, j in _WAYS}
    both = products(_GROUPED, d, a, b, y, tiles=FINDING_TILES)  # the exact tiles have no ways of their own
    return {(d, i, j): both for i, j in _WAYS}


_FORWARD = {way: p for d in FLOATS for way, p in _all_ways(d, _ROWS, _WEIGHT, _RESULT).items()}
_GRAD = {way: p for d in FLOATS for way, p in _all_ways(d, _SPAN, _SPAN, MATRIX).items()}


def _at_any_row(x: DeviceArray, rows_are_k: bool) -> tuple[bool, tuple[Any, ...]]:
    """`strided` for a matrix whose rows (or k) a group begins anywhere: pieces along them would not be aligned."""
    along_k, values = strided(x, (), ())
    if along_k == rows_are_k:
        pieces = 5
        values = (*values[:pieces], 0, *values[pieces + 1 :])
    return along_k, values


def _grouped_matmul(x: DeviceArray, weight: DeviceArray, sizes: DeviceArray, y: DeviceArray) -> None:
    if not y.size:
        return
    d = as_dtype(y.dtype)
    x, w, sizes = cast(x, d), transposed(cast(weight, d)), dense(cast(sizes, int32))
    (total, k), (groups, n, _) = x.shape, w.shape
    a_along_k, a = _at_any_row(x, rows_are_k=False)
    b_along_k, b = strided(w, (max(1, groups),), w.strides[:1])
    family = _FORWARD[d, a_along_k, b_along_k]
    tile = family.tile(y.memory, total, n, 1)
    count = -(-total // tile.m) + groups + 1
    of_groups = (sizes.address, groups, total, tile.m)
    to = (y.address, sizes.address, groups, total, tile.m, n)
    family.launch(y.memory, tile, tile.m, n, k, count, (*a, *of_groups), (*b, *of_groups), to, splits=1)


def _grouped_matmul_grad(g: DeviceArray, x: DeviceArray, sizes: DeviceArray, dw: DeviceArray) -> None:
    if not dw.size:
        return
    d = as_dtype(dw.dtype)
    g, x, sizes = transposed(cast(g, d)), transposed(cast(x, d)), dense(cast(sizes, int32))
    groups, k, n = dw.shape
    a_along_k, a = _at_any_row(x, rows_are_k=True)
    b_along_k, b = _at_any_row(g, rows_are_k=True)
    family = _GRAD[d, a_along_k, b_along_k]
    to = (dw.address, 0, k, n, 0)
    family(dw.memory, k, n, x.shape[1], groups, (*a, sizes.address), (*b, sizes.address), to, splits=1)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    integers = tuple(d for d in ANY.integers if d.name != "bool")
    for name, fn in (("grouped_matmul", _grouped_matmul), ("grouped_matmul_grad", _grouped_matmul_grad)):
        yield Kernel(name, fn, Cap(_EXACT, integers=integers))
        yield Kernel(name, fn, Cap(FLOATS, integers=integers, cc=(80, 999)))
