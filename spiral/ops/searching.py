"""Where values are: positions, sorted insertion, distinct values. Shapes of results depend on the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import DEFAULT_INT, promote
from spiral.errors import ArgumentError, ShapeError
from spiral.op import op


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
