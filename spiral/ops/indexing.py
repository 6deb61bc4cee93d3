"""Elements by integer tensors along one axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import ArgumentError, DTypeError, IndexingError, ShapeError
from spiral.op import F, op
from spiral.ops.shapes import axes_of, broadcast


def _need_integers(name: str, indices: Any) -> None:
    if indices.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name}: indices must be integers; received {indices.dtype.name}.")


def _in_range(name: str, indices: Any, n: int) -> None:
    if indices.size and not (-n <= indices.min() and indices.max() < n):
        bad = indices.min() if indices.min() < -n else indices.max()
        raise IndexingError(f"{name}: index {int(bad)} is not in [{-n}, {n}).")


def _axis(x: Any, axis: int | None) -> int:
    if axis is None and x.ndim != 1:
        raise ArgumentError(f"take: axis is required for {x.ndim} axes; only vectors do without.")
    return axes_of("take", 0 if axis is None else axis, x.ndim)[0]


@op("take(x, indices, *, axis: int | None = None) -> y")
class Take:
    """Elements of an axis by position; negative positions count from the end. axis may be left out for vectors."""

    @staticmethod
    def meta(x: Any, indices: Any, axis: int | None) -> Spec:
        _need_integers("take", indices)
        a = _axis(x, axis)
        return Spec((*x.shape[:a], *indices.shape, *x.shape[a + 1 :]), x.dtype)

    @staticmethod
    def oracle(x: Any, indices: Any, axis: int | None) -> Any:
        a = _axis(x, axis)
        _in_range("take", indices, x.shape[a])
        return np.take(x, indices, axis=a)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, indices: Any, axis: int | None) -> Any:
        a = _axis(x_spec, axis)
        return F.scatter_index(g, shape=x_spec.shape, index=(*(slice(None),) * a, indices._a)), None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(6), s.integers(-6, 6, 9), None
        yield s.normal(4, 5, 3), s.integers(0, 5, 7), 1
        yield s.normal(4, 5), s.integers(0, 5, 2, 3), -1
        yield s.normal(4, 5), s.integers(0, 5, 0), 0


def _as_many_axes(x: Any, indices: Any) -> None:
    if x.ndim != indices.ndim:
        raise ShapeError(f"take_along_axis: x and indices need as many axes; received {x.shape}, {indices.shape}.")


@op("take_along_axis(x, indices, *, axis: int = -1) -> y")
class TakeAlongAxis:
    """y[..., i, ...] = x[..., indices[..., i, ...], ...]; the other axes of x and indices broadcast."""

    @staticmethod
    def meta(x: Any, indices: Any, axis: int) -> Spec:
        _need_integers("take_along_axis", indices)
        _as_many_axes(x, indices)
        (a,) = axes_of("take_along_axis", axis, x.ndim)
        one = Spec((*x.shape[:a], 1, *x.shape[a + 1 :]), x.dtype)
        return Spec(broadcast("take_along_axis", one, indices), x.dtype)

    @staticmethod
    def oracle(x: Any, indices: Any, axis: int) -> Any:
        _as_many_axes(x, indices)
        (a,) = axes_of("take_along_axis", axis, x.ndim)
        _in_range("take_along_axis", indices, x.shape[a])
        return x[along(x.shape, indices, axis)]

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, indices: Any, axis: int) -> Any:
        return F.scatter_index(g, shape=x_spec.shape, index=along(x_spec.shape, indices._a, axis)), None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), s.integers(-5, 5, 4, 5), -1
        yield s.normal(4, 5, 3), s.integers(0, 4, 2, 5, 3), 0
        yield s.normal(4, 5), s.integers(0, 5, 1, 2), 1


def along(shape: tuple[int, ...], indices: Any, axis: int) -> tuple[Any, ...]:
    """The index that takes ``indices`` along one axis and every position of the others."""
    a = axis % len(shape)
    out: list[Any] = []
    for i, n in enumerate(shape):
        if i == a:
            out.append(indices)
        else:
            out.append(np.arange(n).reshape((-1,) + (1,) * (len(shape) - 1 - i)))
    return tuple(out)
