"""Functions that only move elements, made of reshape, permute_dims, broadcast_to, concat and indexing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spiral.dtype import promote
from spiral.errors import ArgumentError, DTypeError, IndexingError, ShapeError
from spiral.op import F
from spiral.ops.composite import constant
from spiral.ops.shapes import axes_of, broadcast
from spiral.placement import to_host
from spiral.tensor_core import TensorCore

__all__ = [
    "broadcast_arrays",
    "expand_dims",
    "matrix_transpose",
    "meshgrid",
    "moveaxis",
    "repeat",
    "squeeze",
    "stack",
    "tile",
    "unstack",
]


def expand_dims(x: Any, /, *, axis: int = 0) -> Any:
    """x with a new axis of length 1 at ``axis``.

    Raises:
        IndexingError: the axis is out of range (the standard asks for an IndexError here).
    """
    n = x.ndim + 1
    if not -n <= axis < n:
        raise IndexingError(f"expand_dims: axis must be in [{-n}, {n - 1}] for {x.ndim} axes; received {axis!r}.")
    axis %= n
    return F.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def squeeze(x: Any, /, axis: int | tuple[int, ...]) -> Any:
    """x without the given axes, which must have length 1."""
    axes = axes_of("squeeze", axis, x.ndim)
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} must have length 1; received shape {x.shape}.")
    return F.reshape(x, tuple(d for i, d in enumerate(x.shape) if i not in axes))


def stack(arrays: Sequence[Any], /, *, axis: int = 0) -> Any:
    """Tensors of one shape joined along a new axis."""
    if not arrays:
        raise ArgumentError("stack: expected at least one tensor; received none.")
    for t in arrays:
        if t.shape != arrays[0].shape:
            raise ShapeError(f"stack: all shapes must be equal; received {[t.shape for t in arrays]}.")
    return F.concat([expand_dims(t, axis=axis) for t in arrays], axis=axis)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The slices of x along an axis, without that axis."""
    if x.ndim == 0:
        raise ShapeError("unstack: expected at least one axis; received a tensor without axes.")
    (a,) = axes_of("unstack", axis, x.ndim)
    return tuple([F.getitem(x, index=(*(slice(None),) * a, i)) for i in range(x.shape[a])])


def matrix_transpose(x: Any, /) -> Any:
    """The last two axes exchanged."""
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose: expected at least 2 axes; received shape {x.shape}.")
    return F.permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def moveaxis(x: Any, source: int | tuple[int, ...], destination: int | tuple[int, ...], /) -> Any:
    """x with the axes ``source`` at the places ``destination``; the others keep their order."""
    start = (source,) if isinstance(source, int) else tuple(source)
    end = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(start) != len(end):
        raise ArgumentError(f"moveaxis: as many destinations as sources are needed; received {source}, {destination}.")
    axes_of("moveaxis", start, x.ndim)
    axes_of("moveaxis", end, x.ndim)
    start = tuple(a % x.ndim for a in start)
    order = [i for i in range(x.ndim) if i not in start]
    for place, a in sorted(zip((e % x.ndim for e in end), start, strict=True)):
        order.insert(place, a)
    return F.permute_dims(x, tuple(order))


def broadcast_arrays(*arrays: Any) -> list[Any]:
    """The tensors with their common shape, without copying."""
    if not arrays:
        return []
    shape = broadcast("broadcast_arrays", *arrays)
    return [F.broadcast_to(x, shape) for x in arrays]


def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Any]:
    """Coordinate tensors of a grid over vectors; with ``"xy"`` the first vector runs along the second axis."""
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid: indexing must be 'xy' or 'ij'; received {indexing!r}.")
    n = len(arrays)
    for x in arrays:
        if x.ndim > 1:
            raise ShapeError(f"meshgrid: expected vectors; received shape {x.shape}.")
        promote(arrays[0].dtype, x.dtype)
    axes = list(range(n))
    if indexing == "xy" and n > 1:
        axes[:2] = [1, 0]
    shape = [1] * n
    for a, x in zip(axes, arrays, strict=True):
        shape[a] = x.size
    rows = [F.reshape(x, (*(1,) * a, x.size, *(1,) * (n - 1 - a))) for a, x in zip(axes, arrays, strict=True)]
    return [F.broadcast_to(x, tuple(shape)) for x in rows]


def tile(x: Any, repetitions: tuple[int, ...], /) -> Any:
    """x repeated as a whole along each axis; missing repetitions or axes are 1."""
    times = tuple(repetitions)
    if any(not isinstance(r, int) or r < 0 for r in times):
        raise ArgumentError(f"tile: repetitions must be integers of at least 0; received {repetitions}.")
    n = max(len(times), x.ndim)
    times = (1,) * (n - len(times)) + times
    shape = (1,) * (n - x.ndim) + x.shape
    spread = F.broadcast_to(
        F.reshape(x, tuple(d for length in shape for d in (1, length))),
        tuple(d for r, length in zip(times, shape, strict=True) for d in (r, length)),
    )
    return F.reshape(spread, tuple(r * length for r, length in zip(times, shape, strict=True)))


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Any:
    """Each element repeated, along an axis or (without one) of the flattened tensor.

    Args:
        repeats: one number, or an integer tensor with one number per element of the axis; its values are waited for.
    """
    if axis is None:
        x, axis = F.reshape(x, (x.size,)), 0
    (a,) = axes_of("repeat", axis, x.ndim)
    n = x.shape[a]
    if isinstance(repeats, TensorCore):
        repeats = to_host(repeats._a, repeats.device)  # the result's shape depends on them
    counts = repeats if isinstance(repeats, int) else np.asarray(repeats)
    if isinstance(counts, np.ndarray):
        if counts.dtype.kind not in "iu":
            raise DTypeError(f"repeat: repeats must be integers; received {counts.dtype}.")
        if counts.shape not in ((), (1,), (n,)):
            raise ShapeError(f"repeat: repeats must be one number or {n}, one per element; received {counts.shape}.")
    if np.any(np.asarray(counts) < 0):
        raise ArgumentError(f"repeat: repeats must not be negative; received {repeats}.")
    places = np.repeat(np.arange(n), np.broadcast_to(counts, (n,)))
    return F.take(x, constant(places, x), axis=a)
