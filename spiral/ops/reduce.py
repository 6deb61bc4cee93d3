"""Reductions over axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import DEFAULT_FLOAT, DEFAULT_INT, bool_, uint64
from spiral.errors import ShapeError
from spiral.op import F, op
from spiral.ops.composite import constant
from spiral.ops.shapes import axes_of, like, need_float, reduced


def _spread(g: Any, x: Any, axis: Any, keepdims: bool) -> Any:
    """A reduced gradient with its axes put back as 1."""
    axes = axes_of("sum", axis, x.ndim)
    return g if keepdims else F.reshape(g, reduced(tuple(x.shape), axes, True))


class _Reduce:
    @staticmethod
    def samples(s: Any) -> Any:
        for axis, keepdims in ((None, False), (0, False), (-1, True), ((0, 2), False), (1, False)):
            yield s.normal(4, 5, 6), axis, keepdims
        yield s.normal(3, 1025), -1, False
        yield s.normal(300, 7), 0, False
        yield s.normal(6, 8).T, 0, True
        yield s.normal(3, 4, 33).transpose(2, 0, 1), (0, 2), False
        yield s.normal(4, 5, 18)[1:, ::-1, 1:], (0, 2), True
        yield s.normal(), None, False


@op("sum(x, *, axis: Axes = None, keepdims: bool = False) -> y")
class Sum(_Reduce):
    """Sum over axes; small integers and bool are summed as int64."""

    @staticmethod
    def meta(x: Any, axis: Any, keepdims: bool) -> Spec:
        shape = reduced(tuple(x.shape), axes_of("sum", axis, x.ndim), keepdims)
        d = x.dtype
        return Spec(shape, d if d.kind == "float" else uint64 if d.kind == "uint" else DEFAULT_INT)

    @staticmethod
    def oracle(x: Any, axis: Any, keepdims: bool) -> Any:
        return np.sum(x, axis=axes_of("sum", axis, x.ndim), keepdims=keepdims)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, axis: Any, keepdims: bool) -> Any:
        return (F.broadcast_to(_spread(g, x_spec, axis, keepdims), shape=x_spec.shape),)


def _mean(x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """NumPy's mean without its warning for no elements, whose mean is NaN."""
    total = np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype if x.dtype.kind == "f" else np.float64)
    return np.divide(total, total.dtype.type(math.prod(x.shape[a] for a in axes)))


@op("mean(x, *, axis: Axes = None, keepdims: bool = False) -> y")
class Mean(_Reduce):
    """Mean over axes."""

    @staticmethod
    def meta(x: Any, axis: Any, keepdims: bool) -> Spec:
        shape = reduced(tuple(x.shape), axes_of("mean", axis, x.ndim), keepdims)
        return Spec(shape, x.dtype if x.dtype.kind == "float" else DEFAULT_FLOAT)

    @staticmethod
    def oracle(x: Any, axis: Any, keepdims: bool) -> Any:
        return _mean(x, axes_of("mean", axis, x.ndim), keepdims)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, axis: Any, keepdims: bool) -> Any:
        g = _spread(g, x_spec, axis, keepdims)
        count = x_spec.size // max(1, g.size)
        return (F.broadcast_to(g * (1.0 / max(1, count)), shape=x_spec.shape),)


@op("prod(x, *, axis: Axes = None, keepdims: bool = False) -> y")
class Prod(Sum):
    """Product over axes."""

    @staticmethod
    def oracle(x: Any, axis: Any, keepdims: bool) -> Any:
        return np.prod(x, axis=axes_of("prod", axis, x.ndim), keepdims=keepdims)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, axis: Any, keepdims: bool) -> Any:
        # the product of the others, without dividing by the element itself: it may be 0
        axes = axes_of("prod", axis, x.ndim)
        order = (*(i for i in range(x.ndim) if i not in axes), *axes)
        kept = tuple(x.shape[i] for i in order[: x.ndim - len(axes)])
        rows = F.reshape(F.permute_dims(x, order), (*kept, math.prod(x.shape[i] for i in axes)))
        before = _before(rows)
        after = F.flip(_before(F.flip(rows, axis=-1)), axis=-1)
        others = F.reshape(before * after, tuple(x.shape[i] for i in order))
        back = tuple(sorted(range(x.ndim), key=lambda i: order[i]))
        return (_spread(g, x, axis, keepdims) * F.permute_dims(others, back),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield from _Reduce.samples(s)
        yield np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 4.0]]), 1, False
        yield np.array([[2.0, 0.0, 3.0], [0.5, 1.0, 4.0]]), None, False


def _before(x: Any) -> Any:
    """For each position of the last axis, the product of the elements before it."""
    n = x.shape[-1]
    if n == 0:
        return x
    one = F.broadcast_to(constant(np.ones((), x.dtype.numpy), x), (*x.shape[:-1], 1))
    shorter = F.getitem(x, index=(Ellipsis, slice(0, n - 1)))
    return F.concat([one, F.cumulative_prod(shorter, axis=-1)], axis=-1)


class _Extreme(_Reduce):
    @staticmethod
    def meta(x: Any, axis: Any, keepdims: bool) -> Spec:
        axes = axes_of("max", axis, x.ndim)
        if any(x.shape[a] == 0 for a in axes):
            raise ShapeError(f"max: an axis of length 0 has no maximum or minimum; received shape {tuple(x.shape)}.")
        return Spec(reduced(tuple(x.shape), axes, keepdims), x.dtype)

    @staticmethod
    def samples(s: Any) -> Any:
        yield from _Reduce.samples(s)
        x = s.normal(3, 70)
        x[0, 69], x[1, 3], x[2] = np.nan, np.inf, -np.inf
        yield x, 1, False
        yield x, 0, False

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any, axis: Any, keepdims: bool) -> Any:
        hit = F.astype(F.equal(x, _spread(y, x, axis, keepdims)), g.dtype)
        share = hit / F.sum(hit, axis=axis, keepdims=True)
        return (_spread(g, x, axis, keepdims) * share,)


@op("max(x, *, axis: Axes = None, keepdims: bool = False) -> y")
class Max(_Extreme):
    """Largest element; equal ones share the gradient, NaN wins."""

    @staticmethod
    def oracle(x: Any, axis: Any, keepdims: bool) -> Any:
        return np.max(x, axis=axes_of("max", axis, x.ndim), keepdims=keepdims)


@op("min(x, *, axis: Axes = None, keepdims: bool = False) -> y")
class Min(_Extreme):
    """Smallest element; equal ones share the gradient, NaN wins."""

    @staticmethod
    def oracle(x: Any, axis: Any, keepdims: bool) -> Any:
        return np.min(x, axis=axes_of("min", axis, x.ndim), keepdims=keepdims)


class _Truth(_Reduce):
    nondifferentiable = True

    @staticmethod
    def meta(x: Any, axis: Any, keepdims: bool) -> Spec:
        return Spec(reduced(tuple(x.shape), axes_of("any", axis, x.ndim), keepdims), bool_)


@op("any(x, *, axis: Axes = None, keepdims: bool = False) -> y")
class Any_(_Truth):
    """Whether any element is nonzero."""

    @staticmethod
    def oracle(x: Any, axis: Any, keepdims: bool) -> Any:
        return np.any(x, axis=axes_of("any", axis, x.ndim), keepdims=keepdims)


@op("all(x, *, axis: Axes = None, keepdims: bool = False) -> y")
class All(_Truth):
    """Whether all elements are nonzero."""

    @staticmethod
    def oracle(x: Any, axis: Any, keepdims: bool) -> Any:
        return np.all(x, axis=axes_of("all", axis, x.ndim), keepdims=keepdims)


class _Arg:
    nondifferentiable = True

    @staticmethod
    def meta(x: Any, axis: int | None, keepdims: bool) -> Spec:
        axes = axes_of("argmax", axis, x.ndim)
        if any(x.shape[a] == 0 for a in axes):
            raise ShapeError(f"argmax: an axis of length 0 has no position; received shape {tuple(x.shape)}.")
        return Spec(reduced(tuple(x.shape), axes, keepdims), DEFAULT_INT)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5, 6), None, False
        yield s.normal(4, 5, 6), 1, True
        yield s.normal(33, 5).T[:, ::-1], 1, False
        x = np.round(s.normal(4, 70))  # ties: the first counts
        x[1, 5], x[1, 69] = np.nan, np.nan
        yield x, 1, False
        yield x, 0, False
        yield x, None, False


@op("argmax(x, *, axis: int | None = None, keepdims: bool = False) -> y")
class ArgMax(_Arg):
    """Position of the first largest element."""

    @staticmethod
    def oracle(x: Any, axis: int | None, keepdims: bool) -> Any:
        return np.argmax(x, axis=axis, keepdims=keepdims)


@op("argmin(x, *, axis: int | None = None, keepdims: bool = False) -> y")
class ArgMin(_Arg):
    """Position of the first smallest element."""

    @staticmethod
    def oracle(x: Any, axis: int | None, keepdims: bool) -> Any:
        return np.argmin(x, axis=axis, keepdims=keepdims)


@op("var(x, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> y")
class Var:
    """Variance over axes, divided by n - correction."""

    @staticmethod
    def meta(x: Any, axis: Any, correction: float, keepdims: bool) -> Spec:
        need_float("var", x=x)
        return Spec(reduced(tuple(x.shape), axes_of("var", axis, x.ndim), keepdims), x.dtype)

    @staticmethod
    def oracle(x: Any, axis: Any, correction: float, keepdims: bool) -> Any:
        axes = axes_of("var", axis, x.ndim)
        d = x - _mean(x, axes, True)
        free = max(0.0, math.prod(x.shape[a] for a in axes) - correction)
        return np.divide(np.sum(d * d, axis=axes, keepdims=keepdims), x.dtype.type(free))

    @staticmethod
    def decompose(x: Any, axis: Any, correction: float, keepdims: bool) -> Any:
        d = x - F.mean(x, axis=axis, keepdims=True)
        total = F.sum(d * d, axis=axis, keepdims=keepdims)
        n = x.size // max(1, total.size)
        return total * (1.0 / (n - correction)) if n > correction else total * float("nan")

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, axis: Any, correction: float, keepdims: bool) -> Any:
        d = x - F.mean(x, axis=axis, keepdims=True)
        g = _spread(g, x, axis, keepdims)
        n = x.size // max(1, g.size)
        return (like(g * d * (2.0 / (n - correction)), x),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), None, 0.0, False
        yield s.normal(4, 5), 1, 1.0, True
        yield s.normal(2, 129, 3, shift=50.0), (0, 1), 0.0, False


class _Cumulative:
    @staticmethod
    def meta(x: Any, axis: int) -> Spec:
        axes_of("cumulative", axis, x.ndim)
        d = x.dtype
        return Spec(tuple(x.shape), d if d.kind == "float" else uint64 if d.kind == "uint" else DEFAULT_INT)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), 0
        yield s.normal(4, 5), -1
        yield s.normal(3, 0), -1
        yield s.normal(2, 33, 3), 1
        yield s.normal(65, 2).T, -1


@op("cumulative_sum(x, *, axis: int = -1) -> y")
class CumulativeSum(_Cumulative):
    """Running sum along an axis; small integers and bool are summed as int64."""

    @staticmethod
    def oracle(x: Any, axis: int) -> Any:
        return np.cumsum(x, axis=axis)

    @staticmethod
    def vjp(need: Any, g: Any, axis: int) -> Any:
        return (F.flip(F.cumulative_sum(F.flip(g, axis=axis), axis=axis), axis=axis),)


@op("cumulative_prod(x, *, axis: int = -1) -> y")
class CumulativeProd(_Cumulative):
    """Running product along an axis; small integers and bool are multiplied as int64."""

    @staticmethod
    def oracle(x: Any, axis: int) -> Any:
        return np.cumprod(x, axis=axis)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, axis: int) -> Any:
        # dy_i/dx_j is the product of x_1 … x_i without x_j: the product before j times a sum that grows
        # from the end. One step per element, so that zeros need no division.
        x, g = F.moveaxis(x, axis, -1), F.moveaxis(g, axis, -1)
        n = x.shape[-1]
        tail: list[Any] = []
        for j in reversed(range(n)):
            here = F.getitem(g, index=(Ellipsis, slice(j, j + 1)))
            if tail:
                here = here + F.getitem(x, index=(Ellipsis, slice(j + 1, j + 2))) * tail[-1]
            tail.append(here)
        grad = _before(x) * F.concat(tail[::-1], axis=-1) if n else g
        return (F.moveaxis(grad, -1, axis),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield from _Cumulative.samples(s)
        yield np.array([[2.0, 0.0, 3.0, 0.0, 1.5]]), 1
