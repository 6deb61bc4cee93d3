"""Functions of the array API standard that take more arguments than the op of the same name.

Inside spiral the ops themselves are called (``F.sum``); these are what users see (``spiral.sum``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spiral.device import as_device
from spiral.dtype import DType, as_dtype
from spiral.errors import ArgumentError
from spiral.op import F
from spiral.ops.composite import constant
from spiral.ops.shapes import axes_of, need_array

__all__ = ["astype", "concat", "cumulative_prod", "cumulative_sum", "prod", "reshape", "searchsorted", "sum", "top_k"]


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """x cast to another dtype; float to integer truncates, gradients flow through.

    Args:
        copy: whether the result has memory of its own also where x has this dtype already.
        device: where the result lives; None: where x does.
    """
    need_array("astype", x=x)
    dtype = as_dtype(dtype)
    y = F.astype(x, dtype) if dtype is not x.dtype else F.copy(x) if copy else x
    return y if device is None else y.to(as_device(device))


def reshape(x: Any, /, shape: int | tuple[int, ...], *, copy: bool | None = None) -> Any:
    """The same elements in another shape; one length may be -1.

    Args:
        copy: True: memory of its own; False: an error where memory cannot be shared; None: as it comes.

    Raises:
        ShapeError: the number of elements differs.
        ArgumentError: ``copy=False`` where a copy is needed.
    """
    need_array("reshape", x=x)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    y = F.reshape(x, shape)
    if copy is True:
        return F.copy(y)
    if copy is False and not np.shares_memory(x._a, y._a) and x.size:
        raise ArgumentError(f"reshape: {x.shape} with these strides to {shape} needs a copy, and copy=False.")
    return y


def concat(arrays: Sequence[Any], /, *, axis: int | None = 0) -> Any:
    """Tensors joined along an axis; with ``axis=None`` all are flattened first."""
    if axis is None:
        return F.concat([F.reshape(x, (x.size,)) for x in arrays], axis=0)
    return F.concat(list(arrays), axis=axis)


def _cast(name: str, x: Any, dtype: Any) -> Any:
    need_array(name, x=x)
    wanted = None if dtype is None else as_dtype(dtype)
    return x if wanted is None or wanted is x.dtype else F.astype(x, wanted)


def _narrow(y: Any, dtype: DType | None) -> Any:
    """Small integers are accumulated as 64-bit ones; their low bits are the same."""
    return y if dtype is None or y.dtype is dtype else F.astype(y, dtype)


def sum(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Sum over axes.

    Args:
        dtype: what elements are cast to before they are summed; None: integers and bool to 64 bits.
    """
    if dtype is None:
        return F.sum(x, axis=axis, keepdims=keepdims)
    return _narrow(F.sum(_cast("sum", x, dtype), axis=axis, keepdims=keepdims), as_dtype(dtype))


def prod(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Product over axes.

    Args:
        dtype: what elements are cast to before they are multiplied; None: integers and bool to 64 bits.
    """
    if dtype is None:
        return F.prod(x, axis=axis, keepdims=keepdims)
    return _narrow(F.prod(_cast("prod", x, dtype), axis=axis, keepdims=keepdims), as_dtype(dtype))


def _cumulative(name: str, start: int, x: Any, axis: int | None, dtype: Any, include_initial: bool) -> Any:
    x = _cast(name, x, dtype)
    if axis is None:
        if x.ndim != 1:
            raise ArgumentError(f"{name}: axis is required for {x.ndim} axes; only vectors do without.")
        axis = 0
    (a,) = axes_of(name, axis, x.ndim)
    y = _narrow(getattr(F, name)(x, axis=a), None if dtype is None else as_dtype(dtype))
    if include_initial:
        first = constant(np.full((*x.shape[:a], 1, *x.shape[a + 1 :]), start, y.dtype.numpy), x)
        y = F.concat([first, y], axis=a)
    return y


def cumulative_sum(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """Running sum along an axis.

    Args:
        axis: may be left out for vectors.
        dtype: what elements are cast to first; None: integers and bool to 64 bits.
        include_initial: put a 0 in front, which makes the axis longer by one.
    """
    return _cumulative("cumulative_sum", 0, x, axis, dtype, include_initial)


def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """Running product along an axis; arguments as for `cumulative_sum`, a 1 in front."""
    return _cumulative("cumulative_prod", 1, x, axis, dtype, include_initial)


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Any:
    """Where each element of x2 goes into the sorted vector x1 so that it stays sorted.

    Args:
        side: before (``"left"``) or behind (``"right"``) equal elements.
        sorter: positions that sort x1, where it is not sorted itself.
    """
    return F.searchsorted(x1 if sorter is None else F.take(x1, sorter, axis=0), x2, side=side)


def top_k(x: Any, k: int, /, *, axis: int = -1, largest: bool = True) -> tuple[Any, Any]:
    """The k largest (or smallest) elements along an axis, in order, and where they are.

    Of equal elements the first comes first, and NaN counts as the largest value, as in `sort`.

    Args:
        x: at least one axis.
        k: how many, at most the length of the axis.
        axis: along which.
        largest: whether the largest are wanted, in falling order; else the smallest, rising.

    Returns:
        Values, through which gradients flow, and integer indices; both have length k along the axis.

    Raises:
        ArgumentError: k or axis is out of range.

    Example:
        >>> import spiral as sp
        >>> values, indices = sp.top_k(sp.asarray([3.0, 9.0, 4.0, 9.0]), 3)
        >>> values.tolist(), indices.tolist()
        ([9.0, 9.0, 4.0], [1, 3, 2])
    """
    need_array("top_k", x=x)
    values, indices = F.top_k(x, k=k, axis=axis, largest=largest)
    return values, indices.detach()
