"""Functions made of ops: no kernel of their own, gradients through the ops they call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from spiral.dtype import DType, bool_
from spiral.errors import ArgumentError, DTypeError, ShapeError
from spiral.op import F
from spiral.ops.shapes import axes_of, need_array
from spiral.placement import filled, place
from spiral.tensor_core import TensorCore, make_key, wrap

__all__ = [
    "clip",
    "conj",
    "count_nonzero",
    "diff",
    "imag",
    "real",
    "std",
    "tensordot",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
    "vecdot",
]


def constant(array: Any, like: Any) -> Any:
    """A NumPy array as a constant on the device of ``like``."""
    from spiral.dtype import as_dtype

    array = np.asarray(array)
    return wrap(place(array, like.device), make_key(like.device, as_dtype(array.dtype)))


def zeros_of(like: TensorCore, shape: tuple[int, ...]) -> Any:
    """Zeros with the dtype and device of ``like``."""
    return filled(shape, 0, like._key)


def one_hot(indices: Any, classes: int, dtype: DType) -> Any:
    """(…, classes): 1 at the index; rows whose index is outside are 0."""
    return F.astype(F.equal(F.expand_dims(indices, axis=-1), constant(np.arange(classes), indices)), dtype)


# ---------------------------------------------------------------- numbers
def std(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Standard deviation over axes."""
    return F.sqrt(F.var(x, axis=axis, correction=correction, keepdims=keepdims))


def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    """x limited to [min, max], in the dtype of x; None means no limit, and a NaN limit gives NaN."""
    need_array("clip", x=x)
    dtype = x.dtype
    for bound in (min, max):
        if isinstance(bound, TensorCore) and (bound.dtype.kind == "float") != (dtype.kind == "float"):
            raise DTypeError(f"clip: limits of {dtype.name} must be of its kind; received {bound.dtype.name}.")
    if min is not None:
        x = F.maximum(x, min)
    if max is not None:
        x = F.minimum(x, max)
    return x if x.dtype is dtype else F.astype(x, dtype)


def count_nonzero(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """How many elements are not zero, over axes."""
    need_array("count_nonzero", x=x)
    return F.sum(x if x.dtype is bool_ else F.astype(x, bool_), axis=axis, keepdims=keepdims)


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    """The n-th difference of neighbours along an axis, after joining ``prepend`` and ``append`` to its ends."""
    need_array("diff", x=x)
    (a,) = axes_of("diff", axis, x.ndim)
    if n < 0:
        raise ArgumentError(f"diff: n must be at least 0; received {n}.")
    if n == 0:
        return x
    parts = [t for t in (prepend, x, append) if t is not None]
    if len(parts) > 1:
        x = F.concat(parts, axis=a)
    lead = (slice(None),) * a
    for _ in range(n):
        later, earlier = F.getitem(x, index=(*lead, slice(1, None))), F.getitem(x, index=(*lead, slice(None, -1)))
        x = F.not_equal(later, earlier) if x.dtype is bool_ else later - earlier
    return x


def real(x: Any, /) -> Any:
    """The real part: x itself, since there are no complex dtypes."""
    need_array("real", x=x)
    return x


def imag(x: Any, /) -> Any:
    """The imaginary part: zeros, since there are no complex dtypes."""
    need_array("imag", x=x)
    return zeros_of(x, x.shape)


def conj(x: Any, /) -> Any:
    """The complex conjugate: x itself, since there are no complex dtypes."""
    need_array("conj", x=x)
    return x


# ---------------------------------------------------------------- products
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """Sum of products along an axis; the other axes broadcast.

    Args:
        axis: counted from the end where the numbers of axes differ.
    """
    need_array("vecdot", x1=x1, x2=x2)
    a, b = (F.moveaxis(x, axes_of("vecdot", axis, x.ndim)[0], -1) for x in (x1, x2))
    if a.shape[-1] != b.shape[-1]:
        raise ShapeError(f"vecdot: axis {axis} must have one length; received shapes {x1.shape} and {x2.shape}.")
    product = F.matmul(F.expand_dims(a, axis=-2), F.expand_dims(b, axis=-1))
    return F.squeeze(product, (-2, -1))


def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Any:
    """Sum of products over pairs of axes, which do not broadcast.

    Args:
        axes: how many axes (the last of x1 with the first of x2), or two sequences of axes.
    """
    need_array("tensordot", x1=x1, x2=x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(x1.ndim, x2.ndim):
            raise ArgumentError(f"tensordot: axes must be in [0, {min(x1.ndim, x2.ndim)}]; received {axes}.")
        left, right = tuple(range(x1.ndim - axes, x1.ndim)), tuple(range(axes))
    else:
        left, right = (tuple(side) for side in axes)
        axes_of("tensordot", left, x1.ndim)
        axes_of("tensordot", right, x2.ndim)
        left, right = tuple(a % x1.ndim for a in left), tuple(a % x2.ndim for a in right)
    if [x1.shape[a] for a in left] != [x2.shape[a] for a in right]:
        raise ShapeError(f"tensordot: axes {left} of {x1.shape} and {right} of {x2.shape} must have the same lengths.")
    rows = tuple(i for i in range(x1.ndim) if i not in left)
    columns = tuple(i for i in range(x2.ndim) if i not in right)
    inner = int(np.prod([x1.shape[a] for a in left], dtype=np.int64))
    height = int(np.prod([x1.shape[i] for i in rows], dtype=np.int64))
    width = int(np.prod([x2.shape[i] for i in columns], dtype=np.int64))
    a = F.reshape(F.permute_dims(x1, rows + left), (height, inner))
    b = F.reshape(F.permute_dims(x2, right + columns), (inner, width))
    return F.reshape(F.matmul(a, b), (*(x1.shape[i] for i in rows), *(x2.shape[i] for i in columns)))


# ---------------------------------------------------------------- sets
class UniqueAll(NamedTuple):
    """Result of `unique_all`."""

    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    """Result of `unique_counts`."""

    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    """Result of `unique_inverse`."""

    values: Any
    inverse_indices: Any


def unique_all(x: Any, /) -> UniqueAll:
    """Sorted distinct values, their first positions, which one each element is, and how often each occurs."""
    return UniqueAll(*F.unique(x))


def unique_counts(x: Any, /) -> UniqueCounts:
    """Sorted distinct values and how often each occurs."""
    values, _, _, counts = F.unique(x)
    return UniqueCounts(values, counts)


def unique_inverse(x: Any, /) -> UniqueInverse:
    """Sorted distinct values and, for each element, which one it is."""
    values, _, inverse, _ = F.unique(x)
    return UniqueInverse(values, inverse)


def unique_values(x: Any, /) -> Any:
    """Sorted distinct values."""
    return F.unique(x)[0]
