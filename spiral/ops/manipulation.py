"""Reshaping, joining, splitting and indexing. Results may share memory; tensors are values, so nobody can see it."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.abstract import NoValues
from spiral.backend import Spec
from spiral.dtype import promote
from spiral.errors import ArgumentError, DTypeError, IndexingError, ShapeError
from spiral.op import F, op
from spiral.ops.shapes import axes_of, like


@op("reshape(x, *, shape: Shape) -> y")
class Reshape:
    """The same elements in another shape; one length may be -1."""

    view = True

    @staticmethod
    def meta(x: Any, shape: tuple[int, ...]) -> Spec:
        known = 1
        for d in shape:
            known *= d if d != -1 else 1
        ok = shape.count(-1) <= 1 and all(d >= -1 for d in shape)
        if ok and -1 in shape:
            ok = known > 0 and x.size % known == 0
            shape = tuple(x.size // known if d == -1 else d for d in shape) if ok else shape
        if not ok or (-1 not in shape and known != x.size and np.prod(shape, dtype=object) != x.size):
            raise ShapeError(f"reshape: {x.size} elements of shape {tuple(x.shape)} do not fill {shape}.")
        return Spec(shape, x.dtype)

    @staticmethod
    def oracle(x: Any, shape: tuple[int, ...]) -> Any:
        return x.reshape(shape)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any) -> Any:
        return (F.reshape(g, x_spec.shape),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 6), (3, -1)
        yield s.normal(4, 6).T, (2, 12)
        yield s.normal(1), ()


@op("permute_dims(x, *, axes: Shape) -> y")
class PermuteDims:
    """Axes in another order."""

    view = True

    @staticmethod
    def meta(x: Any, axes: tuple[int, ...]) -> Spec:
        if sorted(a % x.ndim if -x.ndim <= a < x.ndim else -1 for a in axes) != list(range(x.ndim)):
            raise ShapeError(f"permute_dims: axes must be a permutation of {tuple(range(x.ndim))}; received {axes}.")
        return Spec(tuple(x.shape[a] for a in axes), x.dtype)

    @staticmethod
    def oracle(x: Any, axes: tuple[int, ...]) -> Any:
        return x.transpose(axes)

    @staticmethod
    def vjp(need: Any, g: Any, axes: tuple[int, ...]) -> Any:
        n = len(axes)
        back = sorted(range(n), key=lambda i: axes[i] % n)
        return (F.permute_dims(g, tuple(back)),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5, 6), (2, 0, 1)


@op("broadcast_to(x, *, shape: Shape) -> y")
class BroadcastTo:
    """x repeated along axes of length 1 (and new leading ones), without copying."""

    view = True

    @staticmethod
    def meta(x: Any, shape: tuple[int, ...]) -> Spec:
        lead = len(shape) - x.ndim
        if lead < 0 or any(d not in (1, s) for d, s in zip(x.shape, shape[lead:], strict=True)):
            raise ShapeError(f"broadcast_to: {tuple(x.shape)} does not broadcast to {shape}.")
        return Spec(shape, x.dtype)

    @staticmethod
    def oracle(x: Any, shape: tuple[int, ...]) -> Any:
        return np.broadcast_to(x, shape)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any) -> Any:
        return (like(g, x_spec),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 1), (3, 4, 5)
        yield s.normal(), (2,)


@op("flip(x, *, axis: Axes = None) -> y")
class Flip:
    """Elements in reverse order along axes."""

    view = True

    @staticmethod
    def meta(x: Any, axis: Any) -> Spec:
        axes_of("flip", axis, x.ndim)
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, axis: Any) -> Any:
        return np.asarray(np.flip(x, axis))  # NumPy makes a scalar of a 0-d array

    @staticmethod
    def vjp(need: Any, g: Any, axis: Any) -> Any:
        return (F.flip(g, axis=axis),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), 0
        yield s.normal(4, 5), None


@op("roll(x, *, shift: Shift, axis: Axes = None) -> y")
class Roll:
    """Elements moved along axes (along the flattened tensor without one); those that leave come in at the other end."""

    @staticmethod
    def meta(x: Any, shift: Any, axis: Any) -> Spec:
        given = () if axis is None else (axis,) if isinstance(axis, int) else axis
        for a in given:
            axes_of("roll", a, x.ndim)
        if not isinstance(shift, int) and len(shift) != len(given):
            raise ArgumentError(f"roll: expected one shift per axis; received {shift} for axis {axis}.")
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, shift: Any, axis: Any) -> Any:
        Roll.meta(x, shift, axis)  # NumPy takes several shifts without axes
        return np.roll(x, shift, axis)

    @staticmethod
    def vjp(need: Any, g: Any, shift: Any, axis: Any) -> Any:
        return (F.roll(g, -shift if isinstance(shift, int) else tuple(-s for s in shift), axis=axis),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), 2, None
        yield s.normal(4, 5), (1, -7), (0, 1)
        yield s.normal(4, 0), 3, 0


class _Triangle:
    @staticmethod
    def within(x: Any, k: int) -> Any:
        """k where it still means something: NumPy overflows far outside, and makes a matrix of a vector."""
        _Triangle.meta(x, k)
        rows, columns = int(x.shape[-2]), int(x.shape[-1])
        return max(-rows - 1, min(k, columns + 1))

    @staticmethod
    def meta(x: Any, k: int) -> Spec:
        if x.ndim < 2:
            raise ShapeError(f"tril, triu: expected at least 2 axes; received shape {tuple(x.shape)}.")
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), 0
        yield s.normal(2, 5, 4), -2
        yield s.normal(3, 3), 1


@op("tril(x, *, k: int = 0) -> y")
class Tril(_Triangle):
    """The elements on and below the k-th diagonal, zeros above."""

    @staticmethod
    def oracle(x: Any, k: int) -> Any:
        return np.tril(x, _Triangle.within(x, k))

    @staticmethod
    def vjp(need: Any, g: Any, k: int) -> Any:
        return (F.tril(g, k=k),)


@op("triu(x, *, k: int = 0) -> y")
class Triu(_Triangle):
    """The elements on and above the k-th diagonal, zeros below."""

    @staticmethod
    def oracle(x: Any, k: int) -> Any:
        return np.triu(x, _Triangle.within(x, k))

    @staticmethod
    def vjp(need: Any, g: Any, k: int) -> Any:
        return (F.triu(g, k=k),)


@op("concat(*arrays, *, axis: int = 0) -> y")
class Concat:
    """Tensors joined along an axis."""

    @staticmethod
    def meta(arrays: Any, axis: int) -> Spec:
        if not arrays:
            raise ArgumentError("concat: expected at least one tensor; received none.")
        first = arrays[0]
        (a,) = axes_of("concat", axis, first.ndim)
        total, dtype = 0, first.dtype
        for t in arrays:
            if t.ndim != first.ndim or any(i != a and d != first.shape[i] for i, d in enumerate(t.shape)):
                raise ShapeError(
                    f"concat: shapes must agree except on axis {axis}; received {[tuple(t.shape) for t in arrays]}."
                )
            total += t.shape[a]
            dtype = promote(dtype, t.dtype)
        return Spec((*first.shape[:a], total, *first.shape[a + 1 :]), dtype)

    @staticmethod
    def oracle(arrays: Any, axis: int) -> Any:
        return np.concatenate(arrays, axis)

    @staticmethod
    def vjp(need: Any, g: Any, arrays_spec: Any, axis: int) -> Any:
        out, at, a = [], 0, axis % g.ndim
        for wanted, s in zip(need[0], arrays_spec, strict=True):
            n = s.shape[a]
            index = (slice(None),) * a + (slice(at, at + n),)
            out.append(like(F.getitem(g, index=index), s) if wanted else None)
            at += n
        return (out,)

    @staticmethod
    def samples(s: Any) -> Any:
        yield [s.normal(4, 5), s.normal(2, 5)], 0
        yield [s.normal(4, 5), s.normal(4, 1), s.normal(4, 0)], -1


@op("split(x, *, sections: Sections, axis: int = -1) -> *parts")
class Split:
    """x cut into equal parts along an axis; parts share memory with x."""

    view = True

    @staticmethod
    def meta(x: Any, sections: int, axis: int) -> tuple[Spec, ...]:
        (a,) = axes_of("split", axis, x.ndim)
        n = x.shape[a]
        if sections < 1 or n % sections:
            raise ShapeError(f"split: axis {axis} of length {n} does not divide into {sections} equal parts.")
        return (Spec((*x.shape[:a], n // sections, *x.shape[a + 1 :]), x.dtype),) * sections

    @staticmethod
    def oracle(x: Any, sections: int, axis: int) -> Any:
        a = axis % x.ndim
        n = x.shape[a] // sections
        return tuple([x[(slice(None),) * a + (slice(i * n, i * n + n),)] for i in range(sections)])

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, sections: int, axis: int) -> Any:
        shape = Split.meta(x_spec, sections, axis)[0].shape
        known = next(p for p in g if p is not None)
        return (F.concat([F.zeros_of(known, shape) if p is None else p for p in g], axis=axis),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 6), 3, -1
        yield s.normal(4, 6), 2, 0


@op("getitem(x, *, index: Index) -> y")
class GetItem:
    """x[index]: integers, slices, None, Ellipsis, integer arrays, boolean masks."""

    internal = True
    view = True

    @staticmethod
    def meta(x: Any, index: Any) -> Spec:
        return Spec(shape_of_index(tuple(x.shape), index), x.dtype)

    @staticmethod
    def oracle(x: Any, index: Any) -> Any:
        y = x[index]
        return y if isinstance(y, np.ndarray) else x[(*index, ...)]

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, index: Any) -> Any:
        return (F.scatter_index(g, shape=x_spec.shape, index=index),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), (slice(1, 3),)
        yield s.normal(4, 5), (2,)
        yield s.normal(4, 5), (np.array([0, 0, 3]),)
        yield s.normal(4, 5), (Ellipsis, None, slice(None, None, -2))


@op("scatter_index(g, *, shape: Shape, index: Index) -> x")
class ScatterIndex:
    """Zeros of a shape with g added at an index; the gradient of indexing. Repeated positions add up."""

    internal = True

    @staticmethod
    def meta(g: Any, shape: tuple[int, ...], index: Any) -> Spec:
        return Spec(shape, g.dtype)

    @staticmethod
    def oracle(g: Any, shape: tuple[int, ...], index: Any) -> Any:
        out = np.zeros(shape, g.dtype)
        if any(isinstance(i, np.ndarray) for i in index):
            np.add.at(out, index, g)
        else:
            out[index] = g
        return out

    @staticmethod
    def vjp(need: Any, g: Any, index: Any) -> Any:
        return (F.getitem(g, index=index),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(2, 5), (4, 5), (slice(1, 3),)
        yield s.normal(3, 5), (4, 5), (np.array([0, 0, 3]),)


@op("set_index(x, value, *, index: Index) -> y")
class SetIndex:
    """A copy of x with value at an index."""

    internal = True
    scalars = True

    @staticmethod
    def meta(x: Any, value: Any, index: Any) -> Spec:
        taken = shape_of_index(tuple(x.shape), index)
        _need_to_spread(tuple(getattr(value, "shape", ())), taken)
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, value: Any, index: Any) -> Any:
        out = x.copy()
        out[index] = value
        return out

    @staticmethod
    def vjp(need: Any, g: Any, value_spec: Any, index: Any) -> Any:
        gx = F.set_index(g, 0.0, index=index) if need[0] else None
        return gx, like(F.getitem(g, index=index), value_spec) if need[1] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), s.normal(5), (slice(1, 3),)
        yield s.normal(4, 5), 2.0, (1, 1)


def _need_to_spread(value: tuple[int, ...], taken: tuple[int, ...]) -> None:
    """NumPy's rule for assignments: as for broadcasting, but further leading axes of length 1 are dropped."""
    lead = max(len(value) - len(taken), 0)
    own, theirs = value[lead:], taken[len(taken) - len(value) + lead :]
    if any(n != 1 for n in value[:lead]) or any(n not in (1, m) for n, m in zip(own, theirs, strict=True)):
        raise ShapeError(
            f"item assignment: a value of shape {value} does not broadcast to {taken}, which the index takes."
        )


def shape_of_index(shape: tuple[int, ...], index: Any) -> tuple[int, ...]:
    """Shape of ``x[index]``, without touching data.

    Raises:
        IndexingError: the index does not fit; the message carries NumPy's reason.
    """
    for part in index:
        if isinstance(part, NoValues) and part.dtype == np.bool_:
            part.item()  # refuses: how many elements a mask takes depends on its values
    try:
        return tuple(np.broadcast_to(np.empty((), np.bool_), shape)[index].shape)
    except IndexError as error:
        raise IndexingError(f"index: {error} (shape {shape}).") from None
    except TypeError as error:
        raise DTypeError(f"index: {error}.") from None


@op("sort(x, *, axis: int = -1, descending: bool = False, stable: bool = True) -> y")
class Sort:
    """Elements in order along an axis; the gradient goes back the way each element came."""

    @staticmethod
    def meta(x: Any, axis: int, descending: bool, stable: bool) -> Spec:
        axes_of("sort", axis, x.ndim)
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, axis: int, descending: bool, stable: bool) -> Any:
        y = np.sort(x, axis=axis, stable=True)
        return np.flip(y, axis) if descending else y

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, axis: int, descending: bool) -> Any:
        back = F.argsort(F.argsort(x, axis=axis, descending=descending), axis=axis)
        return (F.take_along_axis(g, back, axis=axis),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), -1, False, True
        yield s.normal(4, 5), 0, True, True
        yield s.normal(3, 0), -1, False, True


@op("argsort(x, *, axis: int = -1, descending: bool = False, stable: bool = True) -> y")
class ArgSort:
    """Positions that put elements in order along an axis."""

    nondifferentiable = True

    @staticmethod
    def meta(x: Any, axis: int, descending: bool, stable: bool) -> Spec:
        from spiral.dtype import DEFAULT_INT

        axes_of("argsort", axis, x.ndim)
        return Spec(tuple(x.shape), DEFAULT_INT)

    @staticmethod
    def oracle(x: Any, axis: int, descending: bool, stable: bool) -> Any:
        if not descending:
            return np.argsort(x, axis=axis, stable=True)
        n = x.shape[axis]
        return np.flip(n - 1 - np.argsort(np.flip(x, axis), axis=axis, stable=True), axis)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), -1, False, True
        yield s.integers(0, 3, 4, 9), -1, True, True
