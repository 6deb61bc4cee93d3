"""Functions made of ops: no kernel of their own, gradients through the ops they call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spiral.dtype import DType
from spiral.errors import ArgumentError, ShapeError
from spiral.op import F
from spiral.ops.shapes import axes_of
from spiral.tensor_core import TensorCore, make_key, wrap


def expand_dims(x: Any, /, *, axis: int = 0) -> Any:
    """x with a new axis of length 1 at ``axis``."""
    (a,) = axes_of("expand_dims", axis, x.ndim + 1)
    return F.reshape(x, (*x.shape[:a], 1, *x.shape[a:]))


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


def geglu(a: Any, b: Any, *, approximate: str = "none") -> Any:
    """gelu(a) * b (Shazeer 2020)."""
    return F.gelu(a, approximate=approximate) * b


def constant(array: Any, like: Any) -> Any:
    """A NumPy array as a constant on the device of ``like``."""
    from spiral.dtype import as_dtype

    array = np.asarray(array)
    return wrap(array, make_key(like.device, as_dtype(array.dtype)))


def zeros_of(like: TensorCore, shape: tuple[int, ...]) -> Any:
    """Zeros with the dtype and device of ``like``."""
    return wrap(np.zeros(shape, like.dtype.numpy), like._key)


def one_hot(indices: Any, classes: int, dtype: DType) -> Any:
    """(…, classes): 1 at the index; rows whose index is outside are 0."""
    return F.astype(F.equal(expand_dims(indices, axis=-1), constant(np.arange(classes), indices)), dtype)


def matrix_transpose(x: Any, /) -> Any:
    """The last two axes exchanged."""
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose: expected at least 2 axes; received shape {x.shape}.")
    return F.permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def std(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Standard deviation over axes."""
    return F.sqrt(F.var(x, axis=axis, correction=correction, keepdims=keepdims))


def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    """x limited to [min, max]; None means no limit."""
    if min is not None:
        x = F.maximum(x, min)
    return x if max is None else F.minimum(x, max)
