"""Ops that take or set elements by position."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import BITS, LIMIT, cast, copy_into, dense, grid
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype, int64
from spiral.errors import KernelError
from spiral.gpu.axes import collapsed
from spiral.gpu.faults import faults
from spiral.gpu.positions import has_arrays, places
from spiral.kernels.triton import indexing as source

Strides = tuple[int, ...]
AXES = 5
_BLOCK = 1024
_INDEX = {np.dtype(np.int32): "*i32", np.dtype(np.int64): "*i64"}


def _numbers(*letters: str) -> dict[str, str]:
    names = [f"n{i}" for i in range(1, AXES)] + [f"{a}{i}" for a in letters for i in range(AXES)]
    return dict.fromkeys(names, "i32")


_GATHER = {
    (size, index): TritonKernel(
        source.gather,
        {"x": f"*{bits}", "index": pointer, "y": f"*{bits}", "fault": "*i64", "count": "i32", "runs": "i32"}
        | _numbers("x", "i") | dict.fromkeys(("n", "stride", "wrap", "checked"), "i32"),
        {"BLOCK": _BLOCK, "V": 16 // size},
    )
    for size, bits in BITS.items() for index, pointer in _INDEX.items()
}  # fmt: skip
_SCATTER = {
    size: TritonKernel(
        source.scatter,
        {"x": f"*{bits}", "index": "*i64", "y": f"*{bits}", "count": "i32", "runs": "i32"} | _numbers("x", "i", "y"),
        {"BLOCK": _BLOCK, "V": 16 // size},
    )
    for size, bits in BITS.items()
}


def index_array(indices: DeviceArray) -> DeviceArray:
    """Indices as kernels take them: 32-bit or 64-bit integers, whose strides are numbers of elements."""
    indices = indices if indices.dtype in _INDEX else cast(indices, int64)
    return dense(indices) if any(s % indices.itemsize for s in indices.strides) else indices


def too_many_axes(op: str, x: DeviceArray) -> KernelError:
    """What is raised where more axes remain, also of dense arrays, than kernels take, or longer strides."""
    return KernelError(
        f"{op}: takes {AXES} axes that do not merge and offsets below 2**30; received {x.shape} with strides "
        f"{x.strides}."
    )


def elements(strides: Strides, itemsize: int) -> Strides:
    """Strides in bytes as numbers of elements."""
    return tuple([s // itemsize for s in strides])


@functools.lru_cache(4096)
def placed(
    most: int, itemsize: int, shape: tuple[int, ...], moved: tuple[int, ...], divides: int, *strides: Strides
) -> tuple[int, ...] | None:
    """The values that tell a kernel where elements lie, or None where that needs more than ``most`` axes.

    Args:
        most: axes that the kernel has.
        itemsize: bytes of an element.
        shape: lengths.
        moved: which operands hold the elements; the others (indices) stay where they are along the last axis.
        divides: what all other offsets of the operands that are moved divide by.
        *strides: elements per axis, for each operand.

    Returns:
        Whether the last axis is cut into runs of 16 bytes, lengths but the first, then strides in elements or runs.
    """
    axes = collapsed(shape, *strides)
    if len(axes) > most or any(sum((a[0] - 1) * abs(a[k + 1]) for a in axes) >= LIMIT for k in range(len(strides))):
        return None
    axes = [[1] + [0] * len(strides)] * (most - len(axes)) + axes
    v = 16 // itemsize
    last = axes[-1]
    runs = (
        last[0] % v == 0
        and divides % v == 0
        and all(last[k + 1] == (1 if k in moved else 0) for k in range(len(strides)))
        and all(a[k + 1] % v == 0 for a in axes[:-1] for k in moved)
    )
    if runs:
        axes = [[a[0], *[s // v if k in moved else s for k, s in enumerate(a[1:])]] for a in axes[:-1]]
        axes.append([last[0] // v, *last[1:]])
    values = [int(runs), *[a[0] for a in axes[1:]]]
    for k in range(len(strides)):
        values += [a[k + 1] for a in axes]
    return tuple(values)


def gather(
    shape: tuple[int, ...], x: tuple[int, Strides], index: tuple[int, Strides, np.dtype[Any]], y: DeviceArray, n: int,
    stride: int, wrap: int, fault: int | None, grain: int,
) -> bool:  # fmt: skip
    """Launches ``gather`` (kernels/triton/indexing.py) over the elements of y in a shape of as many.

    Args:
        x: address, and strides over ``shape`` in elements.
        index: address, strides over ``shape`` in elements, dtype.
        n, stride, wrap, fault: as the kernel takes them; without fault the host has checked the indices.
        grain: what divides the elements that indices go to.

    Returns:
        False where the layout has too many axes; nothing was launched.
    """
    size = y.itemsize
    where = placed(AXES, size, shape, (0,), grain, x[1], index[1])
    if where is None:
        return False
    step = stride * size // 16 if where[0] else stride
    _GATHER[size, index[2]](
        y.memory, grid(y.size, _BLOCK), x[0], index[0], y.address, fault or 0, y.size, *where, n, step, wrap,
        int(fault is None),
    )  # fmt: skip
    return True


# ---------------------------------------------------------------- take
def take_into(op: str, x: DeviceArray, indices: DeviceArray, axis: int, y: DeviceArray, wrap: bool = True) -> None:
    """y = x at positions of an axis; negative ones count from the end where ``wrap``, else they are out of range."""
    if not y.size:
        return
    indices = index_array(indices)
    x = dense(x) if any(s % x.itemsize for s in x.strides) else x
    n, strides = x.shape[axis], elements(x.strides, x.itemsize)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    xs = (*strides[:axis], *(0,) * indices.ndim, *strides[axis + 1 :])
    ins = (*(0,) * axis, *elements(indices.strides, indices.itemsize), *(0,) * (x.ndim - axis - 1))
    fault = faults(y.memory).slot(op, -n if wrap else 0, n)
    index = (indices.address, ins, indices.dtype)
    if gather(shape, (x.address, xs), index, y, n, strides[axis], n if wrap else 0, fault, strides[axis]):
        return
    if x.contiguous and indices.contiguous:
        raise too_many_axes(op, x)
    take_into(op, dense(x), dense(indices), axis, y, wrap)


def _take(x: DeviceArray, indices: DeviceArray, axis: int | None, y: DeviceArray) -> None:
    take_into("take", x, indices, (axis or 0) % x.ndim, y)


def _embedding(weight: DeviceArray, indices: DeviceArray, y: DeviceArray) -> None:
    take_into("embedding", weight, indices, 0, y, wrap=False)


def along(x: DeviceArray, indices: DeviceArray, a: int) -> tuple[tuple[int, ...], Strides, Strides]:
    """Shape of the result of `take_along_axis`, and the strides of x (0 along the axis) and of indices over it."""
    shape = tuple([indices.shape[i] if i == a or n == 1 else n for i, n in enumerate(x.shape)])
    one = DeviceArray(x.memory, x.block, x.address, (*x.shape[:a], 1, *x.shape[a + 1 :]), x.dtype, x.strides)
    wide = indices.broadcast_to(shape)
    return shape, elements(one.broadcast_to(shape).strides, x.itemsize), elements(wide.strides, indices.itemsize)


def _take_along_axis(x: DeviceArray, indices: DeviceArray, axis: int, y: DeviceArray) -> None:
    if not y.size:
        return
    indices = index_array(indices)
    x = dense(x) if any(s % x.itemsize for s in x.strides) else x
    a = axis % x.ndim
    n, stride = x.shape[a], x.strides[a] // x.itemsize
    shape, xs, ins = along(x, indices, a)
    fault = faults(y.memory).slot("take_along_axis", -n, n)
    if gather(shape, (x.address, xs), (indices.address, ins, indices.dtype), y, n, stride, n, fault, stride):
        return
    wide, all_indices = x.broadcast_to((*shape[:a], n, *shape[a + 1 :])), indices.broadcast_to(shape)
    if wide.contiguous and all_indices.contiguous:
        raise too_many_axes("take_along_axis", x)
    _take_along_axis(dense(wide), dense(all_indices), axis, y)


# ---------------------------------------------------------------- arrays of the host
def _with_arrays(x: Any, *rest: Any) -> bool:
    return x.size < LIMIT and has_arrays(rest[-1])


def _getitem(x: DeviceArray, index: tuple[Any, ...], y: DeviceArray) -> None:
    if not y.size:
        return
    size = x.itemsize
    x = dense(x) if any(s % size for s in x.strides) else x
    found = places(x, index)
    offsets = DeviceArray.from_host(y.memory, found.offsets // size)
    at = (offsets.address, elements(found.offset_strides, 8), offsets.dtype)
    start = (found.view.address, elements(found.strides, size))
    if not gather(found.shape, start, at, y, 0, 1, 0, None, found.grain // size):
        if x.contiguous:
            raise too_many_axes("getitem", x)
        _getitem(dense(x), index, y)


def _set_index(x: DeviceArray, value: Any, index: tuple[Any, ...], y: DeviceArray) -> None:
    copy_into(x, y)
    kind = as_dtype(y.dtype)
    if not isinstance(value, DeviceArray):
        number = np.asarray(value, np.float32 if kind.storage_only else y.dtype)
        value = DeviceArray.from_host(y.memory, number.astype(y.dtype))
    value = cast(value, kind)
    if not has_arrays(index):
        target = y[index]
        copy_into(_spread(value, target.shape), target)
        return
    found = places(y, index)
    if 0 in found.shape:
        return
    value = _spread(value, found.shape)
    last = _last_of_each(found.offsets.reshape(-1))
    if last is not None:  # where a position is named twice, the last value stays
        lead, tail = found.shape[: len(found.before)], found.shape[len(found.before) + found.offsets.ndim :]
        rows = dense(value).reshape_view((*lead, found.offsets.size, *tail))
        assert rows is not None  # it is dense
        value = DeviceArray.empty(y.memory, (*lead, last.size, *tail), y.dtype)
        take_into("set_index", rows, DeviceArray.from_host(y.memory, last), len(lead), value)
        found = found._replace(offsets=found.offsets.reshape(-1)[last])
    size = y.itemsize
    value = dense(value) if any(s % size for s in value.strides) else value
    offsets = DeviceArray.from_host(y.memory, found.offsets // size)
    where = placed(
        AXES, size, found.shape, (0, 2), found.grain // size, elements(value.strides, size),
        elements(found.offset_strides, 8), elements(found.strides, size),
    )  # fmt: skip
    if where is None:
        raise too_many_axes("set_index", x)
    _SCATTER[size](
        y.memory, grid(value.size, _BLOCK), value.address, offsets.address, found.view.address, value.size, *where
    )


def _spread(value: DeviceArray, shape: tuple[int, ...]) -> DeviceArray:
    """The value of an assignment broadcast to what it is assigned to; it may have more axes of length 1."""
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = value[0]
    return value.broadcast_to(shape)


def _last_of_each(offsets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Where each distinct offset stands last, or None where none stands twice."""
    _, first_from_behind = np.unique(offsets[::-1], return_index=True)
    if first_from_behind.size == offsets.size:
        return None
    return np.sort(offsets.size - 1 - first_from_behind).astype(np.int64)


# ---------------------------------------------------------------- what is taken
def _fits(x: DeviceArray, indices: DeviceArray, axis: int | None = 0) -> bool:
    a = (axis or 0) % max(1, x.ndim)
    n = max(1, x.shape[a])
    return n < 2**31 and x.size // n * indices.size < LIMIT and (a == 0 or x.size < LIMIT)


def _few(x: DeviceArray, indices: DeviceArray, axis: int) -> bool:
    return x.size < LIMIT and x.size // max(1, x.shape[axis]) * indices.size < LIMIT


TEXT = "takes fewer than 2**30 elements"


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    takes = Cap(ANY.dtypes, ANY.integers, where=_fits, where_text=TEXT)
    yield Kernel("take", _take, takes)
    yield Kernel("embedding", _embedding, takes)
    yield Kernel("take_along_axis", _take_along_axis, Cap(ANY.dtypes, ANY.integers, where=_few, where_text=TEXT))
    text = "takes arrays and masks, and fewer than 2**30 elements; else it is a view"
    yield Kernel("getitem", _getitem, Cap(ANY.dtypes, ANY.integers, where=_with_arrays, where_text=text))
    small = Cap(ANY.dtypes, ANY.integers, scalars=True, where=lambda x, *rest: x.size < LIMIT, where_text=TEXT)
    yield Kernel("set_index", _set_index, small)
