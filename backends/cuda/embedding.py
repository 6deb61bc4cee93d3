"""Gradients of what takes elements by position: rows summed by index, the same bits every time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, copy_into, dense, layout, layout_format
from spiral.backends.cuda.indexing import Strides, along, index_array, too_many_axes
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.sort import LONGEST, sort_pairs
from spiral.backends.cuda.units import laid_out, product
from spiral.device_array import DeviceArray, contiguous_strides
from spiral.dtype import FLOATS, as_dtype, float32, float64
from spiral.gpu.faults import faults
from spiral.gpu.positions import has_arrays, places

_SOURCE = Source("embedding.cu")
_INTEGERS = {np.dtype(np.int32): "int", np.dtype(np.int64): "spiral::i64"}
_KEY_NAMES = {np.dtype(np.uint32): "spiral::u32", np.dtype(np.uint64): "spiral::u64"}
_KEYS = {
    (index, key): _SOURCE.kernel(
        f"spiral::index_keys<{i}, {k}>", "P", "P", "q", "q", "q", "q", "Q", "P", layout_format(2)
    )
    for index, i in _INTEGERS.items() for key, k in _KEY_NAMES.items()
}  # fmt: skip
_SUM = {
    (d.numpy, key, n): _SOURCE.kernel(
        f"spiral::segment_sum<{NAMES[d]}, {k}, {n}>", "P", "P", "P", "P", "P", "q", "q", "q", "q", "Q", "i", "i",
        layout_format(2),
    )
    for d in FLOATS for key, k in _KEY_NAMES.items() for n in (1, 16 // d.itemsize)
}  # fmt: skip
_JOIN = {
    (d.numpy, key, n): _SOURCE.kernel(
        f"spiral::segment_join<{NAMES[d]}, {k}, {n}>", "P", "P", "P", "q", "q", "q", "Q", "i", "i", layout_format(2)
    )
    for d in FLOATS for key, k in _KEY_NAMES.items() for n in (1, 16 // d.itemsize)
}  # fmt: skip
_FLOAT = Cap(FLOATS, tuple(d for d in ANY.integers if d.kind in ("int", "uint")))
_CHUNK = 64  # rows that a thread sums at most, before pieces are joined


def _none(key: np.dtype[Any]) -> int:
    return int(np.iinfo(key).max)


def _key_type(values: int) -> np.dtype[Any]:
    return np.dtype(np.uint32 if values < _none(np.dtype(np.uint32)) else np.uint64)


def _keys(
    op: str, indices: DeviceArray, shape: tuple[int, ...], base: Strides, strides: Strides, n: int, stride: int,
    wrap: int, values: int,
) -> DeviceArray:  # fmt: skip
    """Keys (1, elements of shape) for ``segment_sum``: base offset plus index * stride, below ``values``."""
    gpu = indices.memory
    indices = index_array(indices)
    key = DeviceArray.empty(gpu, (1, product(shape)), _key_type(values))
    where = layout(shape, base, strides)
    if where is None:
        raise too_many_axes(op, indices)
    fault = faults(gpu).slot(op, -wrap, n)
    _KEYS[indices.dtype, key.dtype](
        gpu, blocks(key.size), (THREADS, 1, 1), indices.address, key.address, key.size, n, stride, wrap,
        _none(key.dtype), fault, *where,
    )  # fmt: skip
    return key


def _sum_by_key(
    g: DeviceArray, g_stride: int, key: DeviceArray, order: DeviceArray, out: DeviceArray, key_stride: int,
    shape: tuple[int, ...], g_strides: Strides, out_strides: Strides, out_address: int, grain: int,
) -> None:  # fmt: skip
    """out at key * key_stride += the rows of g, in the keys' order; a row has ``shape``, with strides in both."""
    gpu, m = out.memory, key.size
    laid = laid_out(
        g.itemsize, shape, g_strides, out_strides, moved=(0, 1), fixed=(g.address, out_address, g_stride, grain)
    )  # fmt: skip
    if laid is None or laid[0] != 16:  # 16 bytes at a time or one element
        where = layout(shape, g_strides, out_strides)
        if where is None:
            raise too_many_axes("scatter", out)
        lanes, rest = 1, product(shape)
    else:
        lanes, (_, rest, where) = 16 // g.itemsize, laid
    log_lanes = min(8, max(rest - 1, 0).bit_length())
    # short rows leave few threads: then each sums fewer of them
    chunk = _CHUNK if rest * -(-m // _CHUNK) >= 1 << 15 else 8
    chunks = -(-m // chunk)
    wide = float64 if as_dtype(g.dtype) is float64 else float32
    partial = DeviceArray.empty(gpu, (chunks, 2, rest, lanes), wide.numpy)
    grid = (-(-chunks // (THREADS >> log_lanes)), -(-rest // (1 << log_lanes)), 1)
    none = _none(key.dtype)
    kind = (g.dtype, key.dtype, lanes)
    _SUM[kind](
        gpu, grid, (THREADS, 1, 1), g.address, key.address, order.address, out_address, partial.address, m, rest,
        g_stride, key_stride, none, chunk, log_lanes, *where,
    )  # fmt: skip
    if chunks > 1:
        _JOIN[kind](
            gpu, grid, (THREADS, 1, 1), key.address, out_address, partial.address, m, rest, key_stride, none, chunk,
            log_lanes, *where,
        )  # fmt: skip


def _zero(out: DeviceArray) -> None:
    if out.size:
        out.memory.fill(out.address, 0, out.nbytes)


def _take_grad_into(
    op: str, g: DeviceArray, indices: DeviceArray, shape: tuple[int, ...], axis: int, wrap: bool, out: DeviceArray
) -> None:
    _zero(out)
    if not g.size:
        return
    n, inner = shape[axis], product(shape[axis + 1 :])
    m = indices.size
    flat = (indices.ndim and indices.shape) or (1,)
    none = (0,) * len(flat)
    key = _keys(op, indices, flat, none, indices.strides or (0,), n, 1, n if wrap else 0, n)
    key, order = sort_pairs(key)
    g = dense(g)
    rows, size = (product(shape[:axis]), inner), g.itemsize
    _sum_by_key(
        g, inner * size, key, order, out, inner * size, rows, (m * inner * size, size), (n * inner * size, size),
        out.address, inner * size,
    )  # fmt: skip


def _take_grad(g: DeviceArray, indices: DeviceArray, shape: tuple[int, ...], axis: int, out: DeviceArray) -> None:
    _take_grad_into("take_grad", g, indices, shape, axis, True, out)


def _embedding_grad(g: DeviceArray, indices: DeviceArray, rows: int, out: DeviceArray) -> None:
    _take_grad_into("embedding_grad", g, indices, out.shape, 0, False, out)


def _take_along_axis_grad(
    g: DeviceArray, indices: DeviceArray, shape: tuple[int, ...], axis: int, out: DeviceArray
) -> None:
    _zero(out)
    if not g.size:
        return
    a = axis % len(shape)
    _, xs, ins = along(out, indices, a)
    size, n = g.itemsize, shape[a]
    bases = tuple([s // size for s in xs])
    key = _keys("take_along_axis_grad", indices, g.shape, bases, ins, n, out.strides[a] // size, n, out.size)
    key, order = sort_pairs(key)
    _sum_by_key(dense(g), size, key, order, out, size, (1,), (0,), (0,), out.address, size)


def _scatter_index(g: DeviceArray, shape: tuple[int, ...], index: tuple[Any, ...], out: DeviceArray) -> None:
    _zero(out)
    if not g.size:
        return
    if not has_arrays(index):
        target = out[index]
        copy_into(g.broadcast_to(target.shape), target)
        return
    found = places(out, index)
    g = dense(g.broadcast_to(found.shape))
    offsets = found.offsets.reshape(-1)
    order = np.argsort(offsets, kind="stable")
    # only equality counts; negative offsets come first and are none of the keys' largest value
    key = DeviceArray.from_host(g.memory, offsets[order].astype(np.uint64))
    places_of = DeviceArray.from_host(g.memory, order.astype(np.uint32))
    size = g.itemsize
    strides = contiguous_strides(found.shape, size)
    lead, taken = len(found.before), found.offsets.ndim
    rest = (*found.before, *found.after)
    _sum_by_key(
        g, product(n for n, _ in found.after) * size, key, places_of, out, 1, tuple([n for n, _ in rest]),
        (*strides[:lead], *strides[lead + taken :]), tuple([s for _, s in rest]), found.view.address, found.grain,
    )  # fmt: skip


def _few(g: DeviceArray, indices: DeviceArray, *rest: Any) -> bool:
    return indices.size <= LONGEST and g.size <= LONGEST


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    text = "takes fewer than 2^31 elements"
    cap = Cap(_FLOAT.dtypes, _FLOAT.integers, where=_few, where_text=text)
    yield Kernel("embedding_grad", _embedding_grad, cap)
    yield Kernel("take_grad", _take_grad, cap)
    yield Kernel("take_along_axis_grad", _take_along_axis_grad, cap)
    yield Kernel("scatter_index", _scatter_index, Cap(FLOATS))
