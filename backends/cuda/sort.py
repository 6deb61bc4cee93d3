"""Sorting along an axis, and insertion points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, cast, cast_into, copy_into, dense
from spiral.backends.cuda.indexing import gather
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.units import product
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, DType, as_dtype, float64, promote

_SOURCE = Source("sort.cu")
_TILES = ((64, 4), (256, 8))  # threads and elements a thread: rows up to 256, and up to 2048 or tiles of longer ones
_TILE = {
    (d.numpy, threads): _SOURCE.kernel(
        f"spiral::sort_tile<{NAMES[d]}, {threads}, {items}>", "P", "P", "P", "P", "P", "q", "q", "q", "q", "i"
    )
    for d in ALL for threads, items in _TILES
}  # fmt: skip
_MERGE = {
    size: _SOURCE.kernel(f"spiral::merge_runs<{key}, 256, 8>", "P", "P", "P", "P", "q", "q", "q")
    for size, key in ((4, "spiral::u32"), (8, "spiral::u64"))
}
_SEARCH = {d.numpy: _SOURCE.kernel(f"spiral::search<{NAMES[d]}>", "P", "P", "P", "q", "q", "i") for d in ALL}
_ARRAYS = Cap(ANY.dtypes, ANY.integers)
LONGEST = 2**31 - 1
LARGE = 2048
_FEW = 256  # of so many a tile of 2048 leaves out the most

_UINT32, _UINT64 = np.dtype(np.uint32), np.dtype(np.uint64)


def _key_type(x: np.dtype[Any]) -> np.dtype[Any]:
    return _UINT64 if x.itemsize == 8 else _UINT32


def sort_pairs(x: DeviceArray, descending: bool = False) -> tuple[DeviceArray, DeviceArray]:
    """Keys of the rows of x (rows, n) in order, and the position in its row (uint32) that each came from."""
    rows, n = x.shape
    gpu = x.memory
    key, order = DeviceArray.empty(gpu, x.shape, _key_type(x.dtype)), DeviceArray.empty(gpu, x.shape, _UINT32)
    if not x.size:
        return key, order
    threads, items = _TILES[n > 256]
    width = threads * items
    tiles = -(-n // width)
    grid = (rows * tiles, 1, 1)
    _TILE[x.dtype, threads](
        gpu,
        grid,
        (threads, 1, 1),
        x.address,
        0,
        0,
        key.address,
        order.address,
        n,
        threads * items,
        tiles,
        n,
        int(descending),
    )
    width = threads * items
    if width < n:
        spare = DeviceArray.empty(gpu, x.shape, key.dtype), DeviceArray.empty(gpu, x.shape, _UINT32)
        merge = _MERGE[key.itemsize]
        while width < n:
            to_key, to_order = spare
            merge(gpu, grid, (256, 1, 1), key.address, order.address, to_key.address, to_order.address, n, tiles, width)
            spare, (key, order) = (key, order), spare
            width *= 2
    return key, order


def _first_of_tiles(x: DeviceArray, kept: int, descending: bool) -> DeviceArray:
    """Where the first elements in order of each row are (uint32): those of each tile, then the first of these."""
    rows, n = x.shape
    gpu = x.memory
    order: DeviceArray | None = None  # where in the row each candidate is
    threads, items = _TILES[1]
    while True:
        tiles = -(-n // (threads * items))
        shape = (rows, tiles * kept)
        key, place = DeviceArray.empty(gpu, shape, _key_type(x.dtype)), DeviceArray.empty(gpu, shape, _UINT32)
        _TILE[x.dtype, threads](
            gpu, (rows * tiles, 1, 1), (threads, 1, 1), x.address, 0, 0, key.address, place.address, n, kept, tiles,
            tiles * kept, int(descending),
        )  # fmt: skip
        if order is not None:
            candidates = DeviceArray.empty(gpu, shape, _UINT32)
            index = (place.address, place.strides, np.dtype(np.int32))
            done = gather(shape, (order.address, (order.strides[0], 0)), index, candidates, n, 4, 0, 0, 4)
            assert done  # two axes
            place = candidates
        if tiles == 1:
            return place
        order, x, n, descending = place, key, tiles * kept, False  # keys are in order already


def _sort_rows(
    x: DeviceArray, kept: int, descending: bool, y: DeviceArray | None, position: DeviceArray | None
) -> None:
    """Sorts the rows of x (rows, n), dense; the first of each are written to y and position, (rows, kept) and dense."""
    rows, n = x.shape
    gpu = x.memory
    if n <= LARGE:
        threads = _TILES[n > 256][0]
        _TILE[x.dtype, threads](
            gpu, (rows, 1, 1), (threads, 1, 1), x.address, y.address if y else 0, position.address if position else 0,
            0, 0, n, kept, 1, 0, int(descending),
        )  # fmt: skip
        return
    if kept <= _FEW:
        first = _first_of_tiles(x, kept, descending)
    else:
        _, order = sort_pairs(x, descending)
        first = order[:, :kept]
    if position is not None:
        cast_into(first, position)
    if y is not None:
        index = (first.address, first.strides, np.dtype(np.int32))  # below 2^31
        done = gather(first.shape, (x.address, (x.strides[0], 0)), index, y, n, x.itemsize, 0, 0, x.itemsize)
        assert done  # two axes


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
    rows = product(moved.shape[:-1])
    flat = moved.reshape_view((rows, moved.shape[-1]))
    assert flat is not None  # it is dense
    if product(x.shape[a + 1 :]) == 1:  # the results' elements lie as the rows do
        targets = outs
    else:
        shape = (*moved.shape[:-1], kept)
        targets = [DeviceArray.empty(o.memory, shape, o.dtype) for o in outs]
    _sort_rows(
        flat, kept, descending, targets[0] if y is not None else None, targets[-1] if position is not None else None
    )
    for target, out in zip(targets, outs, strict=True):
        if target is not out:
            copy_into(target, out.transpose(order))


def _sort(x: DeviceArray, axis: int, descending: bool, stable: bool, y: DeviceArray) -> None:
    _sorted(x, axis, x.shape[axis], descending, y, None)


def _argsort(x: DeviceArray, axis: int, descending: bool, stable: bool, y: DeviceArray) -> None:
    _sorted(x, axis, x.shape[axis], descending, None, y)


def _top_k(x: DeviceArray, k: int, axis: int, largest: bool, values: DeviceArray, indices: DeviceArray) -> None:
    _sorted(x, axis, k, largest, values, indices)


def _length(x: DeviceArray, axis: int, *rest: Any) -> bool:
    return x.shape[axis] <= LONGEST


def _length_of_top(x: DeviceArray, k: int, axis: int, largest: bool) -> bool:
    return x.shape[axis] <= LONGEST


def _common(a: DType, b: DType) -> DType:
    """What the host compares in: an integer with a floating number as double."""
    return float64 if (a.kind == "float") != (b.kind == "float") and a.kind != "bool" != b.kind else promote(a, b)


def _searchsorted(x1: DeviceArray, x2: DeviceArray, side: str, positions: DeviceArray) -> None:
    if not positions.size:
        return
    kind = _common(as_dtype(x1.dtype), as_dtype(x2.dtype))
    x1, x2 = dense(cast(x1, kind)), dense(cast(x2, kind))
    _SEARCH[x1.dtype](
        positions.memory, blocks(x2.size), (THREADS, 1, 1), x1.address, x2.address, positions.address, x1.size, x2.size,
        int(side == "right"),
    )  # fmt: skip


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(ANY.dtypes, ANY.integers, where=_length, where_text="takes fewer than 2^31 elements along the axis")
    yield Kernel("sort", _sort, cap)
    yield Kernel("argsort", _argsort, cap)
    yield Kernel("top_k", _top_k, replace(cap, where=_length_of_top))
    yield Kernel("searchsorted", _searchsorted, _ARRAYS)
