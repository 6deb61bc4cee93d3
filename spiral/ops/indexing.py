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
        return F.take_grad(g, indices, shape=x_spec.shape, axis=_axis(x_spec, axis)), None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(6), s.integers(-6, 6, 9), None
        yield s.normal(4, 5, 3), s.integers(0, 5, 7), 1
        yield s.normal(4, 5), s.integers(0, 5, 2, 3), -1
        yield s.normal(4, 5), s.integers(0, 5, 0), 0
        yield s.normal(3, 4, 5).transpose(0, 2, 1), s.integers(-5, 5, 2, 2), 1
        yield s.normal(9, 33), s.integers(0, 9, 4), 0
        yield s.normal(5, 4), np.asarray(s.integers(-5, 5, 3), np.int32), 0
        yield s.normal(4, 5), s.integers(-4, 4), 0


@op("take_grad(g, indices, *, shape: Shape, axis: int) -> x")
class TakeGrad:
    """Zeros of a shape with g added at positions of an axis; the gradient of `take`. Repeated positions add up."""

    internal = True

    @staticmethod
    def meta(g: Any, indices: Any, shape: tuple[int, ...], axis: int) -> Spec:
        return Spec(shape, g.dtype)

    @staticmethod
    def oracle(g: Any, indices: Any, shape: tuple[int, ...], axis: int) -> Any:
        _in_range("take_grad", indices, shape[axis])
        out = np.zeros(shape, g.dtype)
        np.add.at(out, (*(slice(None),) * axis, indices), g)
        return out

    @staticmethod
    def vjp(need: Any, g: Any, indices: Any, axis: int) -> Any:
        return F.take(g, indices, axis=axis), None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(9), s.integers(-6, 6, 9), (6,), 0
        yield s.normal(4, 7, 3), s.integers(0, 5, 7), (4, 5, 3), 1
        yield s.normal(4, 2, 3), s.integers(0, 5, 2, 3), (4, 5), 1
        yield s.normal(0, 5), s.integers(0, 5, 0), (4, 5), 0
        yield s.normal(70, 33).T, s.integers(-2, 2, 70), (33, 2), 1  # long runs of one position, a strided gradient
        yield s.normal(5), s.integers(-4, 4), (4, 5), 0


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
        return F.take_along_axis_grad(g, indices, shape=x_spec.shape, axis=axis % len(x_spec.shape)), None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), s.integers(-5, 5, 4, 5), -1
        yield s.normal(4, 5, 3), s.integers(0, 4, 2, 5, 3), 0
        yield s.normal(4, 5), s.integers(0, 5, 1, 2), 1
        yield s.normal(1, 5), s.integers(-5, 5, 3, 2), 1
        yield s.normal(5, 4).T, np.asarray(s.integers(-5, 5, 4, 1), np.int32), 1
        yield s.normal(4, 5), s.integers(0, 5, 4, 0), 1


@op("take_along_axis_grad(g, indices, *, shape: Shape, axis: int) -> x")
class TakeAlongAxisGrad:
    """Zeros of a shape with g added where `take_along_axis` took it from. Repeated positions add up."""

    internal = True

    @staticmethod
    def meta(g: Any, indices: Any, shape: tuple[int, ...], axis: int) -> Spec:
        return Spec(shape, g.dtype)

    @staticmethod
    def oracle(g: Any, indices: Any, shape: tuple[int, ...], axis: int) -> Any:
        _in_range("take_along_axis_grad", indices, shape[axis])
        out = np.zeros(shape, g.dtype)
        np.add.at(out, along(shape, indices, axis), g)
        return out

    @staticmethod
    def vjp(need: Any, g: Any, indices: Any, axis: int) -> Any:
        return F.take_along_axis(g, indices, axis=axis), None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), s.integers(-5, 5, 4, 5), (4, 5), 1
        yield s.normal(2, 5, 3), s.integers(0, 4, 2, 5, 3), (4, 5, 3), 0
        yield s.normal(4, 2), s.integers(0, 5, 1, 2), (4, 5), 1
        yield s.normal(3, 2), s.integers(-5, 5, 3, 2), (1, 5), 1
        yield s.normal(1, 4).T, np.asarray(s.integers(-5, 5, 4, 1), np.int32), (4, 5), 1
        yield s.normal(4, 0), s.integers(0, 5, 4, 0), (4, 5), 1


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
