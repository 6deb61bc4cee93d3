"""Where values are: positions, sorted insertion, the largest, distinct values."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import DEFAULT_INT, promote
from spiral.errors import ArgumentError, ShapeError, received
from spiral.op import F, op
from spiral.ops.shapes import axes_of


@op("nonzero(x) -> *indices")
class NonZero:
    """Positions of the elements that are not zero, one integer tensor per axis, in row-major order."""

    nondifferentiable = True
    dynamic = True

    @staticmethod
    def meta(x: Any) -> tuple[Spec, ...]:
        if x.ndim == 0:
            raise ShapeError("nonzero: expected at least one axis; received a tensor without axes.")
        axes: int = x.ndim
        return (Spec((x.size,), DEFAULT_INT),) * axes  # at most

    @staticmethod
    def oracle(x: Any) -> Any:
        return tuple(np.nonzero(x))

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.booleans(4, 5),)
        yield (s.integers(-1, 2, 9),)
        yield (s.normal(0, 3),)


@op("searchsorted(x1, x2, *, side: str = 'left') -> positions")
class SearchSorted:
    """Where each element of x2 goes into the sorted vector x1 so that it stays sorted."""

    nondifferentiable = True

    @staticmethod
    def meta(x1: Any, x2: Any, side: str) -> Spec:
        if x1.ndim != 1:
            raise ShapeError(f"searchsorted: x1 must be a vector; received shape {tuple(x1.shape)}.")
        if side not in ("left", "right"):
            raise ArgumentError(f"searchsorted: side must be 'left' or 'right'; received {side!r}.")
        promote(x1.dtype, x2.dtype)
        return Spec(tuple(x2.shape), DEFAULT_INT)

    @staticmethod
    def oracle(x1: Any, x2: Any, side: str) -> Any:
        if side not in ("left", "right"):
            raise ArgumentError(f"searchsorted: side must be 'left' or 'right'; received {side!r}.")
        return np.searchsorted(x1, x2, side="right" if side == "right" else "left")

    @staticmethod
    def samples(s: Any) -> Any:
        yield np.sort(s.normal(9)), s.normal(3, 4), "left"
        yield np.sort(s.integers(0, 5, 9)), s.integers(-1, 6, 8), "right"


@op("top_k(x, *, k: int, axis: int = -1, largest: bool = True) -> values, indices")
class TopK:
    """The k largest (or smallest) elements along an axis, in order, and where they are.

    Of equal elements the first comes first. NaN counts as the largest value, as in `sort`.
    """

    @staticmethod
    def meta(x: Any, k: int, axis: int, largest: bool) -> tuple[Spec, Spec]:
        a = TopK.check(x, k, axis)
        shape = (*x.shape[:a], k, *x.shape[a + 1 :])
        return Spec(shape, x.dtype), Spec(shape, DEFAULT_INT)

    @staticmethod
    def check(x: Any, k: int, axis: int) -> int:
        (a,) = axes_of("top_k", axis, x.ndim)
        if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k <= x.shape[a]:
            raise ArgumentError(
                f"top_k: k must be in [0, {x.shape[a]}], the length of axis {axis}; received {received(k)}."
            )
        return a

    @staticmethod
    def oracle(x: Any, k: int, axis: int, largest: bool) -> Any:
        TopK.check(x, k, axis)  # NumPy takes other numbers for k
        if largest:  # from behind, so that equal elements keep their order
            order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, stable=True), axis)
        else:
            order = np.argsort(x, axis, stable=True)
        indices = np.take(order, np.arange(k), axis)
        return np.take_along_axis(x, indices, axis), indices

    @staticmethod
    def decompose(x: Any, k: int, axis: int, largest: bool) -> Any:
        a = TopK.check(x, k, axis)
        order = F.argsort(x.detach(), axis=a, descending=largest)
        indices = F.getitem(order, index=(*(slice(None),) * a, slice(0, k)))
        return F.take_along_axis(x, indices, axis=a), indices

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, indices: Any, axis: int) -> Any:
        if g[0] is None:
            return (None,)
        return (F.take_along_axis_grad(g[0], indices, shape=x_spec.shape, axis=axis % len(x_spec.shape)),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 65), 5, -1, True
        yield s.normal(4, 9, 3), 4, 1, False
        yield s.normal(7, 5).T, 7, -1, True
        yield s.normal(3, 4), 0, 0, True
        yield s.normal(0, 4), 2, 1, True
        yield s.array([1.0, np.inf, 2.0, 1.0, 2.0, np.inf]), 5, 0, True
        yield s.array([np.inf, 1.0, 1.0, 0.0, -0.0]), 4, 0, False
        yield s.array([[np.nan, np.inf, 0.5, -np.inf], [1e-40, -1e-40, 0.0, np.nan]]), 3, 1, True
        yield s.array([[np.nan, np.inf, 0.5, -np.inf], [1e-40, -1e-40, 0.0, np.nan]]), 4, 1, False
        yield s.integers(-3, 3, 2, 129), 129, -1, True


@op("unique(x) -> values, indices, inverse, counts")
class Unique:
    """Sorted distinct values, where each occurs first, which one every element is, and how often it occurs.

    NaN values are distinct from each other, 0 and -0 are equal.
    """

    internal = True
    nondifferentiable = True
    dynamic = True

    @staticmethod
    def meta(x: Any) -> tuple[Spec, ...]:
        most = Spec((x.size,), DEFAULT_INT)
        return Spec((x.size,), x.dtype), most, Spec(tuple(x.shape), DEFAULT_INT), most

    @staticmethod
    def oracle(x: Any) -> Any:
        values, indices, inverse, counts = np.unique(x, True, True, True, equal_nan=False)
        return values, indices, inverse.reshape(x.shape), counts

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.integers(0, 4, 5, 3),)
        yield (s.array([0.5, -0.5, 0.5, np.nan, np.nan, np.inf]),)
        yield (s.normal(0),)
