"""Ops that take or set elements by position, and triangles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import AXES, BITS, THREADS, blocks, cast, copy_into, dense, layout_format
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.units import UNITS, laid_out, product
from spiral.device_array import DeviceArray, contiguous_strides
from spiral.dtype import as_dtype, int64
from spiral.errors import KernelError
from spiral.gpu.faults import faults
from spiral.gpu.positions import has_arrays, places

_SOURCE = Source("indexing.cu")
_INDEX = {np.dtype(np.int32): "int", np.dtype(np.int64): "spiral::i64"}
_GATHER = {
    (unit, index): _SOURCE.kernel(
        f"spiral::gather<{v}, {i}>", "P", "P", "P", "q", "q", "q", "q", "P", layout_format(2)
    )
    for unit, v in UNITS.items() for index, i in _INDEX.items()
}  # fmt: skip
_SCATTER = {
    (unit, index): _SOURCE.kernel(
        f"spiral::scatter<{v}, {i}>", "P", "P", "P", "q", "q", "q", "q", "P", layout_format(3)
    )
    for unit, v in UNITS.items() for index, i in _INDEX.items()
}  # fmt: skip
_TRIANGLE = {
    (size, upper): _SOURCE.kernel(f"spiral::triangle<{v}, {str(upper).lower()}>", "P", "P", "q", "q", "q", "q")
    for size, v in BITS.items() for upper in (False, True)
}  # fmt: skip
_BLOCK = (THREADS, 1, 1)
_ARRAYS = Cap(ANY.dtypes, ANY.integers)


def index_array(indices: DeviceArray) -> DeviceArray:
    """Indices as kernels take them: 32-bit or 64-bit integers."""
    return indices if indices.dtype in _INDEX else cast(indices, int64)


Strides = tuple[int, ...]


def too_many_axes(op: str, x: DeviceArray) -> KernelError:
    """What is raised where more than 8 axes remain that do not lie in one stretch, also of dense arrays."""
    return KernelError(f"{op}: more than 8 axes that do not merge; received {x.shape} with strides {x.strides}.")


def gather(
    shape: tuple[int, ...], x: tuple[int, Strides], index: tuple[int, Strides, np.dtype[Any]], y: DeviceArray, n: int,
    stride: int, wrap: int, fault: int, grain: int,
) -> bool:  # fmt: skip
    """Launches ``gather`` (kernels/cuda/indexing.cu) over the elements of y in a shape of as many.

    Args:
        x: address, and strides over ``shape`` in bytes.
        index: address, strides over ``shape``, dtype.
        n, stride, wrap, fault: as the kernel takes them.
        grain: what divides the bytes that indices go to.

    Returns:
        False where the layout has too many axes; nothing was launched.
    """
    address, strides, kind = index
    dense_strides = contiguous_strides(shape, y.itemsize)
    laid = laid_out(
        y.itemsize, shape, x[1], strides, dense_strides, moved=(0, 2), fixed=(x[0], y.address, grain)
    )  # fmt: skip
    if laid is None:
        return False
    unit, count, values = laid
    values = values[:-AXES]  # y lies in the order of the axes
    run = _GATHER[unit, kind]
    run(y.memory, blocks(count), _BLOCK, x[0], address, y.address, count, n, stride, wrap, fault, *values)
    return True


# ---------------------------------------------------------------- take
def take_into(op: str, x: DeviceArray, indices: DeviceArray, axis: int, y: DeviceArray, wrap: bool = True) -> None:
    """y = x at positions of an axis; negative ones count from the end where ``wrap``, else they are out of range."""
    if not y.size:
        return
    indices = index_array(indices)
    n, stride = x.shape[axis], x.strides[axis]
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    xs = (*x.strides[:axis], *(0,) * indices.ndim, *x.strides[axis + 1 :])
    ins = (*(0,) * axis, *indices.strides, *(0,) * (x.ndim - axis - 1))
    fault = faults(y.memory).slot(op, -n if wrap else 0, n)
    index = (indices.address, ins, indices.dtype)
    if gather(shape, (x.address, xs), index, y, n, stride, n if wrap else 0, fault, stride):
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
    return shape, one.broadcast_to(shape).strides, indices.broadcast_to(shape).strides


def _take_along_axis(x: DeviceArray, indices: DeviceArray, axis: int, y: DeviceArray) -> None:
    if not y.size:
        return
    indices = index_array(indices)
    a = axis % x.ndim
    n, stride = x.shape[a], x.strides[a]
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
    return has_arrays(rest[-1])


def _getitem(x: DeviceArray, index: tuple[Any, ...], y: DeviceArray) -> None:
    if not y.size:
        return
    found = places(x, index)
    offsets = DeviceArray.from_host(y.memory, found.offsets)
    at = (offsets.address, found.offset_strides, offsets.dtype)
    if not gather(found.shape, (found.view.address, found.strides), at, y, 0, 1, 0, 0, found.grain):
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
    if not product(found.shape):
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
    offsets = DeviceArray.from_host(y.memory, found.offsets)
    laid = laid_out(
        y.itemsize, found.shape, value.strides, found.offset_strides, found.strides, moved=(0, 2),
        fixed=(value.address, found.view.address, found.grain),
    )  # fmt: skip
    if laid is None:
        raise too_many_axes("set_index", x)
    unit, count, values = laid
    _SCATTER[unit, offsets.dtype](
        y.memory, blocks(count), _BLOCK, value.address, offsets.address, found.view.address, count, 0, 1, 0, 0, *values
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


# ---------------------------------------------------------------- triangles
def _triangle(x: DeviceArray, k: int, y: DeviceArray, upper: bool) -> None:
    if not y.size:
        return
    x = dense(x)
    if x.address % 16:
        fresh = DeviceArray.empty(x.memory, x.shape, x.dtype)
        copy_into(x, fresh)
        x = fresh
    rows, columns = x.shape[-2:]
    k = max(-rows - 1, min(k, columns + 1))
    grid = blocks(x.nbytes, 16 * THREADS)
    _TRIANGLE[x.itemsize, upper](y.memory, grid, _BLOCK, x.address, y.address, x.size, rows, columns, k)


def _tril(x: DeviceArray, k: int, y: DeviceArray) -> None:
    _triangle(x, k, y, False)


def _triu(x: DeviceArray, k: int, y: DeviceArray) -> None:
    _triangle(x, k, y, True)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("take", _take, _ARRAYS)
    yield Kernel("embedding", _embedding, _ARRAYS)
    yield Kernel("take_along_axis", _take_along_axis, _ARRAYS)
    yield Kernel(
        "getitem", _getitem,
        Cap(ANY.dtypes, ANY.integers, where=_with_arrays, where_text="takes arrays and masks; else it is a view"),
    )  # fmt: skip
    yield Kernel("set_index", _set_index, ANY)
    yield Kernel("tril", _tril, _ARRAYS)
    yield Kernel("triu", _triu, _ARRAYS)
