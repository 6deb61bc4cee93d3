"""Gradients of what takes elements by position: rows summed by index, the same bits every time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import LIMIT, NAMES, copy_into, dense, grid, wide_of
from spiral.backends.triton.gemm import wide_name, wide_type
from spiral.backends.triton.indexing import AXES, Strides, along, elements, index_array, too_many_axes
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.sort import sort_keys
from spiral.device_array import DeviceArray, contiguous_strides
from spiral.dtype import FLOATS
from spiral.gpu.axes import collapsed
from spiral.gpu.faults import faults
from spiral.gpu.positions import has_arrays, places
from spiral.kernels.triton import embedding as source

_BLOCK = 1024
_CHUNK = 64  # rows that are summed at most, before pieces are joined
_NARROW, _WIDE = (128, 4), (8, 128)  # positions and elements of their rows that a program has
_FLOAT = tuple(d for d in ANY.integers if d.kind in ("int", "uint"))


def _integers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


_LENGTHS = tuple(f"n{i}" for i in range(1, AXES))
_KEYS = {
    index: TritonKernel(
        source.index_keys,
        {"index": f"*{name}", "key": "*i64", "fault": "*i64", "count": "i32"}
        | _integers(*_LENGTHS, *(f"{a}{i}" for a in "bi" for i in range(AXES)), "n", "stride", "wrap"),
        {"BLOCK": _BLOCK},
        aligned=False,
    )
    for index, name in ((np.dtype(np.int32), "i32"), (np.dtype(np.int64), "i64"))
}
_SUM = {
    (d.numpy, tile, flat): TritonKernel(
        source.segment_sum,
        {"g": f"*{NAMES[d]}", "key": "*i64", "out": f"*{NAMES[d]}", "partial": f"*{wide_name(d)}"}
        | _integers("m", "rest", "n1", "n2", "g0", "g1", "g2", "o0", "o1", "o2", "g_step", "out_step"),
        {"WIDE": wide_type(d), "CHUNK": _CHUNK, "R": tile[0], "C": tile[1], "FLAT": flat},
        aligned=flat,
        divisible=("rest", "g_step", "out_step") if flat else (),
    )
    for d in FLOATS for tile, flat in ((_NARROW, False), (_WIDE, False), (_WIDE, True))
}  # fmt: skip
_JOIN = {
    (d.numpy, tile): TritonKernel(
        source.segment_join,
        {"key": "*i64", "out": f"*{NAMES[d]}", "partial": f"*{wide_name(d)}"}
        | _integers("m", "rest", "n1", "n2", "o0", "o1", "o2", "out_step"),
        {"WIDE": wide_type(d), "CHUNK": _CHUNK, "R": tile[0], "C": tile[1]},
        aligned=False,
    )
    for d in FLOATS for tile in (_NARROW, _WIDE)
}  # fmt: skip


def _keys(
    op: str, indices: DeviceArray, shape: tuple[int, ...], base: Strides, strides: Strides, n: int, stride: int,
    wrap: int,
) -> DeviceArray:  # fmt: skip
    """Sorted keys (1, elements of shape) for ``segment_sum``: places are a base offset plus index * stride.

    Args:
        base: strides of the base offsets over ``shape``.
        strides: of the indices over ``shape``, in elements.
    """
    gpu = indices.memory
    axes = collapsed(shape, base, strides)
    if len(axes) > AXES:
        raise too_many_axes(op, indices)
    axes = [[1, 0, 0]] * (AXES - len(axes)) + axes
    key = DeviceArray.empty(gpu, (1, math.prod(shape)), np.dtype(np.int64))
    _KEYS[indices.dtype](
        gpu, grid(key.size, _BLOCK), indices.address, key.address, faults(gpu).slot(op, -wrap, n), key.size,
        *[a[0] for a in axes[1:]], *[a[1] for a in axes], *[a[2] for a in axes], n, stride, wrap,
    )  # fmt: skip
    return sort_keys(key)


def _sum_by_key(
    op: str, g: DeviceArray, g_step: int, key: DeviceArray, out: DeviceArray, out_step: int, shape: tuple[int, ...],
    g_strides: Strides, out_strides: Strides, out_address: int,
) -> None:  # fmt: skip
    """out at place * out_step = the sum of the rows of g that go there; a row has ``shape``; all counts in elements."""
    gpu, m, rest = out.memory, key.size, math.prod(shape)
    axes = collapsed(shape, g_strides, out_strides)
    if len(axes) > 3:
        raise too_many_axes(op, out)
    flat = len(axes) == 1 and axes[0][1] == axes[0][2] == 1
    axes = [[1, 0, 0]] * (3 - len(axes)) + axes
    tile = _WIDE if rest > 16 else _NARROW
    partial = DeviceArray.empty(gpu, (-(-m // _CHUNK), 2, rest), wide_of(g).numpy)
    columns = -(-rest // tile[1])
    lengths, gs, outs = ([a[k] for a in axes] for k in range(3))
    _SUM[g.dtype, tile, flat and tile is _WIDE](
        gpu, (-(-m // tile[0]), columns, 1), g.address, key.address, out_address, partial.address, m, rest,
        *lengths[1:], *gs, *outs, g_step, out_step,
    )  # fmt: skip
    if m > _CHUNK:
        _JOIN[g.dtype, tile](
            gpu, (-(-m // (_CHUNK * tile[0])), columns, 1), key.address, out_address, partial.address, m, rest,
            *lengths[1:], *outs, out_step,
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
    n, inner, outer = shape[axis], math.prod(shape[axis + 1 :]), math.prod(shape[:axis])
    indices = index_array(indices)
    flat = indices.shape or (1,)
    steps = elements(indices.strides, indices.itemsize) or (0,)
    key = _keys(op, indices, flat, (0,) * len(flat), steps, n, 1, n if wrap else 0)
    m = indices.size
    _sum_by_key(op, dense(g), inner, key, out, inner, (outer, inner), (m * inner, 1), (n * inner, 1), out.address)


def _take_grad(g: DeviceArray, indices: DeviceArray, shape: tuple[int, ...], axis: int, out: DeviceArray) -> None:
    _take_grad_into("take_grad", g, indices, shape, axis % len(shape), True, out)


def _embedding_grad(g: DeviceArray, indices: DeviceArray, rows: int, out: DeviceArray) -> None:
    _take_grad_into("embedding_grad", g, indices, out.shape, 0, False, out)


def _take_along_axis_grad(
    g: DeviceArray, indices: DeviceArray, shape: tuple[int, ...], axis: int, out: DeviceArray
) -> None:
    add_along("take_along_axis_grad", g, indices, axis % len(shape), True, out)


def add_along(op: str, g: DeviceArray, indices: DeviceArray, a: int, wrap: bool, out: DeviceArray) -> None:
    """out (dense) = zeros with g added at positions of axis a, as `take_along_axis` would take it from there."""
    _zero(out)
    if not g.size:
        return
    indices = index_array(indices)
    _, bases, ins = along(out, indices, a)
    n = out.shape[a]
    key = _keys(op, indices, g.shape, bases, ins, n, out.strides[a] // out.itemsize, n if wrap else 0)
    _sum_by_key(op, dense(g), 1, key, out, 1, (1,), (0,), (0,), out.address)


def _scatter_index(g: DeviceArray, shape: tuple[int, ...], index: tuple[Any, ...], out: DeviceArray) -> None:
    _zero(out)
    if not g.size:
        return
    if not has_arrays(index):
        target = out[index]
        copy_into(g.broadcast_to(target.shape), target)
        return
    found = places(out, index)
    size = g.itemsize
    g = dense(g.broadcast_to(found.shape))
    offsets = found.offsets.reshape(-1) // size
    order = np.argsort(offsets, kind="stable")
    key = DeviceArray.from_host(g.memory, (offsets[order] << 32) | order)
    strides = elements(contiguous_strides(found.shape, size), size)
    lead, taken = len(found.before), found.offsets.ndim
    rest = (*found.before, *found.after)
    _sum_by_key(
        "scatter_index", g, math.prod(n for n, _ in found.after), key, out, 1, tuple([n for n, _ in rest]),
        (*strides[:lead], *strides[lead + taken :]), elements(tuple([s for _, s in rest]), size), found.view.address,
    )  # fmt: skip


def _few(g: DeviceArray, indices: DeviceArray, *rest: Any) -> bool:
    sizes = [math.prod(r) for r in rest if isinstance(r, tuple)]
    return max(indices.size, g.size, *sizes, 0) < LIMIT


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS, _FLOAT, where=_few, where_text="takes fewer than 2**30 elements")
    yield Kernel("embedding_grad", _embedding_grad, cap)
    yield Kernel("take_grad", _take_grad, cap)
    yield Kernel("take_along_axis_grad", _take_along_axis_grad, cap)
    text = "takes fewer than 2**30 elements"
    yield Kernel(
        "scatter_index", _scatter_index,
        Cap(FLOATS, where=lambda g, shape, index: math.prod(shape) < LIMIT, where_text=text),
    )  # fmt: skip
