"""Making tensors: `asarray`, constants, ranges, grids."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.dtype import DEFAULT_FLOAT, DEFAULT_INT, DType, as_dtype
from spiral.errors import ArgumentError, DTypeError
from spiral.storage import empty
from spiral.tensor import Tensor, from_numpy
from spiral.tensor_core import TensorCore

Shape = int | tuple[int, ...]


def _shape(shape: Any) -> tuple[int, ...]:
    lengths = (shape,) if isinstance(shape, int) else tuple(int(d) for d in shape)
    if any(d < 0 for d in lengths):
        raise ArgumentError(f"shape: lengths must not be negative; received {lengths}.")
    return lengths


def _place(t: Tensor, device: Any) -> Tensor:
    return t if device is None else t.to(device)


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor from numbers, nested sequences, NumPy arrays, tensors, or anything with ``__dlpack__``.

    Args:
        obj: the values. Python floats give float32 and integers int64; arrays keep their dtype.
        dtype: a dtype or its name to convert to; None keeps it.
        device: where the tensor shall be; None for the CPU, or where a tensor is.
        copy: True always copies, False never does, None copies what is not a tensor already, so that
            a later change of a NumPy array does not show in the tensor.

    Returns:
        A tensor in the shape of ``obj``.

    Raises:
        DTypeError: the values have no spiral dtype.
        ArgumentError: ``copy=False`` where a copy is needed, or rows of unequal length.

    Example:
        >>> asarray([[1, 2], [3, 4]]).dtype
        spiral.int64
        >>> asarray([1, 2], dtype="bfloat16")
        Tensor([1., 2.], dtype=bfloat16)
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(obj, TensorCore):
        t: Any = obj
        if wanted is not None and wanted is not t.dtype:
            if copy is False:
                raise ArgumentError(f"asarray: {t.dtype.name} to {wanted.name} needs a copy, and copy=False.")
            t = t.astype(wanted)
        elif copy:
            t = from_numpy(t._a, copy=True)
        return _place(t, device)
    if isinstance(obj, np.ndarray):
        a = obj
    elif hasattr(obj, "__dlpack__") and not isinstance(obj, np.generic):
        a = np.from_dlpack(obj)
    else:
        if copy is False:
            raise ArgumentError(f"asarray: {type(obj).__name__} needs a copy, and copy=False.")
        a = _from_python(obj, wanted)
    if wanted is not None and a.dtype != wanted.numpy:
        if copy is False:
            raise ArgumentError(f"asarray: {a.dtype} to {wanted.name} needs a copy, and copy=False.")
        if wanted.storage_only and a.dtype != np.float32:
            a = a.astype(np.float32)
        a = a.astype(wanted.numpy)
    return _place(from_numpy(a, copy=copy is not False), device)


def _from_python(obj: Any, wanted: DType | None) -> np.ndarray[Any, Any]:
    if _has_tensor(obj):
        obj = _plain(obj)
    try:
        a = np.asarray(obj)
    except ValueError as error:
        raise ArgumentError(f"asarray: {error}") from None
    if a.dtype == object or a.dtype.kind in "USMmc":
        raise DTypeError(f"asarray: expected numbers; received {a.dtype} from {type(obj).__name__}.")
    if isinstance(obj, np.generic):
        return a
    if a.dtype == np.float64 and wanted is None:
        return a.astype(DEFAULT_FLOAT.numpy)
    if a.size == 0 and a.dtype == np.float64 and wanted is None:
        return a.astype(DEFAULT_FLOAT.numpy)
    return a


def _has_tensor(obj: Any) -> bool:
    return isinstance(obj, (list, tuple)) and any(isinstance(o, TensorCore) or _has_tensor(o) for o in obj)


def _plain(obj: Any) -> Any:
    if isinstance(obj, TensorCore):
        return obj._a
    return [_plain(o) for o in obj] if isinstance(obj, (list, tuple)) else obj


def full(shape: Shape, fill_value: bool | int | float, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor filled with one value; its dtype follows the value's type unless given."""
    if dtype is None:
        dtype = bool if isinstance(fill_value, bool) else DEFAULT_INT if isinstance(fill_value, int) else DEFAULT_FLOAT
    a = empty(_shape(shape), as_dtype(dtype).numpy)
    a.fill(fill_value)
    return _place(from_numpy(a, copy=False), device)


def zeros(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros, float32 unless a dtype is given."""
    return full(shape, 0, dtype=dtype or DEFAULT_FLOAT, device=device)


def ones(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones, float32 unless a dtype is given."""
    return full(shape, 1, dtype=dtype or DEFAULT_FLOAT, device=device)


def empty_(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Uninitialised values, float32 unless a dtype is given."""
    return _place(from_numpy(empty(_shape(shape), as_dtype(dtype or DEFAULT_FLOAT).numpy), copy=False), device)


def full_like(x: Tensor, /, fill_value: bool | int | float, *, dtype: Any = None, device: Any = None) -> Tensor:
    """One value in the shape of another tensor."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros in the shape of another tensor."""
    return full_like(x, 0, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones in the shape of another tensor."""
    return full_like(x, 1, dtype=dtype, device=device)


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Numbers from start (0 when only one is given) up to, not including, stop."""
    if stop is None:
        start, stop = 0, start
    if dtype is None:
        dtype = DEFAULT_INT if all(isinstance(v, int) for v in (start, stop, step)) else DEFAULT_FLOAT
    return _place(from_numpy(np.arange(start, stop, step, dtype=as_dtype(dtype).numpy), copy=True), device)


def linspace(
    start: float, stop: float, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Tensor:
    """Evenly spaced numbers."""
    a = np.linspace(start, stop, num, endpoint=endpoint, dtype=as_dtype(dtype or DEFAULT_FLOAT).numpy)
    return _place(from_numpy(a, copy=True), device)


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones on a diagonal."""
    a = np.eye(n_rows, n_cols, k=k, dtype=as_dtype(dtype or DEFAULT_FLOAT).numpy)
    return _place(from_numpy(a, copy=True), device)
