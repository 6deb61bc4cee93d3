"""Sorting along an axis, and insertion points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import LIMIT, cast, copy_into, dense, grid
from spiral.backends.triton.indexing import gather
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import DType, as_dtype, float32, float64, int64, promote, uint64
from spiral.kernels.triton import sort as source
from spiral.kernels.triton.copy import CODES

_BLOCK = 1024
_TILES = ((64, 2), (512, 4))  # keys, warps: the first that holds a row, else the last
_INT64 = np.dtype(np.int64)
_KEYS = {
    floating: TritonKernel(
        source.order_keys,
        {"x": "*i8", "order": "*i64", "key": "*i64"}
        | dict.fromkeys(("count", "n", "code", "digit", "descending"), "i32"),
        {"FLOATING": floating, "BLOCK": _BLOCK},
    )
    for floating in (False, True)
}
_TILE = {
    n: TritonKernel(
        source.sort_tile, {"key": "*i64", "n": "i32", "tiles": "i32"}, {"N": n}, aligned=False, num_warps=warps
    )
    for n, warps in _TILES
}
_MERGE = TritonKernel(
    source.merge_runs,
    {"key": "*i64", "to": "*i64"} | dict.fromkeys(("count", "n", "width", "steps"), "i32"),
    {"BLOCK": _BLOCK},
)
_FROM = TritonKernel(
    source.came_from,
    {"key": "*i64", "order": "*i64", "y": "*i64"} | dict.fromkeys(("count", "n", "kept", "through"), "i32"),
    {"BLOCK": _BLOCK},
)
_SEARCH = {
    d.numpy: TritonKernel(
        source.search,
        {"x": f"*{name}", "v": f"*{name}", "y": "*i64"} | dict.fromkeys(("n", "count", "steps", "right"), "i32"),
        {"IS_FLOAT": d.kind == "float", "BLOCK": 256},
        aligned=False,
    )
    for d, name in ((float32, "fp32"), (float64, "fp64"), (int64, "i64"), (uint64, "u64"))
}


def sort_keys(key: DeviceArray) -> DeviceArray:
    """The rows of key (rows, n), int64 and all different, in order; key is overwritten."""
    rows, n = key.shape
    if n < 2 or not rows:
        return key
    gpu = key.memory
    width = _TILES[n > _TILES[0][0]][0]
    tiles = -(-n // width)
    _TILE[width](gpu, (rows * tiles, 1, 1), key.address, n, tiles)
    spare = DeviceArray.empty(gpu, key.shape, key.dtype) if width < n else key
    while width < n:
        _MERGE(gpu, grid(key.size, _BLOCK), key.address, spare.address, key.size, n, width, width.bit_length() + 1)
        key, spare, width = spare, key, 2 * width
    return key


def order_of(x: DeviceArray, kept: int, descending: bool) -> DeviceArray:
    """Where the first elements in order of each row of x (rows, n), dense, are: (rows, kept) int64."""
    (rows, n), gpu, d = x.shape, x.memory, as_dtype(x.dtype)
    key = DeviceArray.empty(gpu, x.shape, _INT64)
    order: DeviceArray | None = None
    for digit in (1, 2) if d.itemsize == 8 else (0,):
        _KEYS[d.kind == "float"](
            gpu, grid(x.size, _BLOCK), x.address, 0 if order is None else order.address, key.address, x.size, n,
            CODES.index(d.name), digit, int(descending),
        )  # fmt: skip
        key = sort_keys(key)
        last = digit != 1
        y = DeviceArray.empty(gpu, (rows, kept if last else n), _INT64)
        through = 0 if order is None else order.address
        _FROM(
            gpu, grid(y.size, _BLOCK), key.address, through, y.address, y.size, n, y.shape[1], int(order is not None)
        )  # fmt: skip
        order = y
    assert order is not None
    return order


def _sorted(
    x: DeviceArray, axis: int, kept: int, descending: bool, y: DeviceArray | None, position: DeviceArray | None
) -> None:
    """The first ``kept`` elements along an axis in order, and where they were; what is given is written."""
    outs = [o for o in (y, position) if o is not None]
    if not outs[0].size:
        return
    a = axis % x.ndim
    order = (*(i for i in range(x.ndim) if i != a), a)
    moved = dense(x.transpose(order))
    n = moved.shape[-1]
    flat = moved.reshape_view((-1, n))
    assert flat is not None  # it is dense
    first = order_of(flat, kept, descending)
    shape = (*moved.shape[:-1], kept)
    if position is not None:
        found = first.reshape_view(shape)
        assert found is not None
        copy_into(found, position.transpose(order))
    if y is not None:
        values = DeviceArray.empty(y.memory, first.shape, y.dtype)
        index = (first.address, (kept, 1), _INT64)
        done = gather(first.shape, (flat.address, (n, 0)), index, values, n, 1, 0, None, 1)
        assert done  # two axes
        found = values.reshape_view(shape)
        assert found is not None
        copy_into(found, y.transpose(order))


def _sort(x: DeviceArray, axis: int, descending: bool, stable: bool, y: DeviceArray) -> None:
    _sorted(x, axis, x.shape[axis], descending, y, None)


def _argsort(x: DeviceArray, axis: int, descending: bool, stable: bool, y: DeviceArray) -> None:
    _sorted(x, axis, x.shape[axis], descending, None, y)


def _top_k(x: DeviceArray, k: int, axis: int, largest: bool, values: DeviceArray, indices: DeviceArray) -> None:
    _sorted(x, axis, k, largest, values, indices)


def _few(x: DeviceArray, *rest: Any) -> bool:
    return x.size < LIMIT


def _common(a: DType, b: DType) -> DType:
    """What the host compares in: an integer with a floating number as double."""
    return float64 if (a.kind == "float") != (b.kind == "float") and a.kind != "bool" != b.kind else promote(a, b)


def _searchsorted(x1: DeviceArray, x2: DeviceArray, side: str, positions: DeviceArray) -> None:
    if not positions.size:
        return
    kind = _common(as_dtype(x1.dtype), as_dtype(x2.dtype))
    if kind.kind == "float":
        kind = float64 if kind is float64 else float32
    elif kind is not uint64:
        kind = int64
    x1, x2 = dense(cast(x1, kind)), dense(cast(x2, kind))
    steps = math.ceil(math.log2(x1.size + 1)) + 1
    _SEARCH[kind.numpy](
        positions.memory, grid(x2.size, 256), x1.address, x2.address, positions.address, x1.size, x2.size, steps,
        int(side == "right"),
    )  # fmt: skip


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(ANY.dtypes, ANY.integers, where=_few, where_text="takes fewer than 2**30 elements")
    yield Kernel("sort", _sort, cap)
    yield Kernel("argsort", _argsort, cap)
    yield Kernel("top_k", _top_k, cap)
    yield Kernel("searchsorted", _searchsorted, replace(cap, where=lambda x1, x2, side: max(x1.size, x2.size) < LIMIT))
