"""Making tensors: `asarray`, `from_dlpack`, constants, ranges, grids."""

from __future__ import annotations

import array
import math
from typing import Any

import numpy as np

from spiral import dlpack
from spiral.abstract import valueless
from spiral.backend import Spec
from spiral.device import as_device, devices
from spiral.dispatch import shapes_only
from spiral.dtype import DEFAULT_FLOAT, DEFAULT_INT, DType, as_dtype
from spiral.errors import ArgumentError, DeviceError, DTypeError
from spiral.op import F
from spiral.placement import filled
from spiral.storage import empty as _empty
from spiral.tensor import Tensor, from_numpy
from spiral.tensor_core import TensorCore, make_key, wrap

Shape = int | tuple[int, ...]


def _shape(shape: Any) -> tuple[int, ...]:
    lengths = (shape,) if isinstance(shape, int) else tuple(int(d) for d in shape)
    if any(d < 0 for d in lengths):
        raise ArgumentError(f"shape: lengths must not be negative; received {lengths}.")
    return lengths


def _place(t: Tensor, device: Any) -> Tensor:
    return t if device is None else t.to(device)


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor from numbers, nested sequences, NumPy arrays, tensors, buffers, or anything with ``__dlpack__``.

    Args:
        obj: the values. Python floats give float32 and integers int64; arrays keep their dtype.
        dtype: a dtype or its name to convert to; None keeps it.
        device: where the tensor shall be; None for the CPU, or where a tensor is.
        copy: True always copies, False never does, None copies what is not a tensor already, so that
            a later change of a NumPy array or a buffer does not show in the tensor.

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
            t = F.astype(t, wanted)
        elif copy:
            t = F.copy(t)
        return _place(t, device)
    if isinstance(obj, np.ndarray):
        a = obj
    elif hasattr(obj, "__dlpack__") and not isinstance(obj, np.generic):
        if tuple(obj.__dlpack_device__())[0] != dlpack.CPU:
            return asarray(_from_device(obj, copy is not False), dtype=dtype, device=device)
        a = dlpack.read(obj, None)
    elif isinstance(obj, (memoryview, bytearray, array.array)):
        a = np.asarray(memoryview(obj))
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
        return np.asarray(obj)
    try:
        a = np.asarray(obj)
    except ValueError as error:
        raise ArgumentError(f"asarray: {error}") from None
    if a.dtype.kind == "c" and not a.imag.any() and not isinstance(obj, np.generic):
        a = a.real  # there are no complex dtypes, but a complex number on the real axis has a place
    if a.dtype == object or a.dtype.kind in "USMmc":
        raise DTypeError(f"asarray: expected numbers; received {a.dtype} from {type(obj).__name__}.")
    if isinstance(obj, np.generic):
        return a
    if wanted is not None and wanted.kind in ("int", "uint"):
        # told the dtype, NumPy refuses what does not fit; left alone it makes [0, 2**63] a float64
        try:
            return np.asarray(obj, wanted.numpy)
        except (OverflowError, ValueError) as error:
            raise ArgumentError(f"asarray: {wanted.name} does not hold every value: {error}.") from None
    if a.dtype == np.float64 and wanted is None:
        with np.errstate(over="ignore"):
            return a.astype(DEFAULT_FLOAT.numpy)
    return a


def _has_tensor(obj: Any) -> bool:
    return isinstance(obj, (list, tuple)) and any(isinstance(o, TensorCore) or _has_tensor(o) for o in obj)


def _plain(obj: Any) -> Any:
    if isinstance(obj, TensorCore):
        return obj._a
    return [_plain(o) for o in obj] if isinstance(obj, (list, tuple)) else obj


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of another library's array.

    Args:
        x: anything with ``__dlpack__`` and ``__dlpack_device__``.
        copy: True: memory of its own; False: an error where memory cannot be shared; None: shared where possible.

    Raises:
        DeviceError: the memory is out of reach.
        DTypeError: the element type is none of spiral's.
        BufferError: ``copy=False`` where memory cannot be shared.
    """
    if tuple(x.__dlpack_device__())[0] != dlpack.CPU:
        return _place(_from_device(x, copy), device)
    return _place(from_numpy(dlpack.read(x, copy), copy=False), device)


def _from_device(x: Any, copy: bool | None) -> Tensor:
    """A tensor over memory of a device that spiral works on too."""
    device = tuple(x.__dlpack_device__())
    for ours in devices():
        memory = ours.memory
        if not isinstance(memory, dlpack.Sharing):
            continue
        try:
            same = memory.dlpack_device() == device
        except BufferError:  # a stand-in for a device
            continue
        if same:
            buffer, writable = dlpack.read_from_device(x, memory, copy)
            t: Tensor = wrap(buffer, make_key(ours, as_dtype(buffer.dtype)))
            if not writable and copy is False:
                raise BufferError("from_dlpack: the memory must not be written to, as that of tensors may be.")
            return F.copy(t) if copy or not writable else t
    raise DeviceError(
        f"from_dlpack: expected memory of the CPU, device type {dlpack.CPU}, or of a device that `spiral doctor` "
        f"lists; received device {device}."
    )


def full(shape: Shape, fill_value: bool | int | float, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor filled with one value; its dtype follows the value's type unless given."""
    if dtype is None:
        dtype = bool if isinstance(fill_value, bool) else DEFAULT_INT if isinstance(fill_value, int) else DEFAULT_FLOAT
    if shapes_only():
        return valueless(_shape(shape), as_dtype(dtype))
    where, kind = as_device(device), as_dtype(dtype)
    if where.memory is not None and not where.memory.unified:
        one = _filled((), kind, fill_value)
        return filled(_shape(shape), float(one) if kind.is_floating else one.item(), make_key(where, kind))  # type: ignore[no-any-return]
    return _place(from_numpy(_filled(_shape(shape), kind, fill_value), copy=False), device)


def _filled(shape: tuple[int, ...], dtype: DType, value: bool | int | float) -> np.ndarray[Any, Any]:
    a = _empty(shape, dtype.numpy)
    with np.errstate(over="ignore"):  # 1e300 is inf in float32
        a.fill(value)
    return a


def zeros(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros, float32 unless a dtype is given."""
    return full(shape, 0, dtype=dtype or DEFAULT_FLOAT, device=device)


def ones(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones, float32 unless a dtype is given."""
    return full(shape, 1, dtype=dtype or DEFAULT_FLOAT, device=device)


def empty_(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Uninitialised values, float32 unless a dtype is given."""
    if shapes_only():
        return valueless(_shape(shape), as_dtype(dtype or DEFAULT_FLOAT))
    where, kind = as_device(device), as_dtype(dtype or DEFAULT_FLOAT)
    if where.memory is not None:
        return wrap(where.memory.empty(Spec(_shape(shape), kind)), make_key(where, kind))  # type: ignore[no-any-return]
    return from_numpy(_empty(_shape(shape), kind.numpy), copy=False)


def full_like(x: Tensor, /, fill_value: bool | int | float, *, dtype: Any = None, device: Any = None) -> Tensor:
    """One value in the shape of another tensor, on its device unless another is named."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype, device=device or x.device)


def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros in the shape of another tensor."""
    return full_like(x, 0, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones in the shape of another tensor."""
    return full_like(x, 1, dtype=dtype, device=device)


def empty_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Uninitialised values in the shape of another tensor."""
    return empty_(x.shape, dtype=dtype or x.dtype, device=device or x.device)


def _from_wide(a: np.ndarray[Any, Any], dtype: DType, device: Any) -> Tensor:
    """Values computed in float64, rounded to what was asked for."""
    if dtype.storage_only:
        a = a.astype(np.float32)
    with np.errstate(over="ignore"):
        return _place(from_numpy(a.astype(dtype.numpy, copy=False), copy=True), device)


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Numbers from start (0 when only one is given) up to, not including, stop."""
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ArgumentError("arange: step must not be 0.")
    whole = all(isinstance(v, int) for v in (start, stop, step))
    wanted = as_dtype(dtype) if dtype is not None else DEFAULT_INT if whole else DEFAULT_FLOAT
    if shapes_only():
        return valueless((max(0, math.ceil((stop - start) / step)),), wanted)
    if whole and wanted.kind in ("int", "uint"):
        return _place(from_numpy(np.arange(start, stop, step, dtype=wanted.numpy), copy=True), device)
    return _from_wide(np.arange(start, stop, step, dtype=np.float64), wanted, device)


def linspace(
    start: float, stop: float, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Tensor:
    """Evenly spaced numbers."""
    if num < 0:
        raise ArgumentError(f"linspace: num must be at least 0; received {num}.")
    if shapes_only():
        return valueless((num,), as_dtype(dtype or DEFAULT_FLOAT))
    a = np.linspace(start, stop, num, endpoint=endpoint, dtype=np.float64)
    return _from_wide(a, as_dtype(dtype or DEFAULT_FLOAT), device)


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones on the k-th diagonal, zeros elsewhere."""
    columns = n_rows if n_cols is None else n_cols
    if shapes_only():
        return valueless((n_rows, columns), as_dtype(dtype or DEFAULT_FLOAT))
    k = max(-n_rows - 1, min(k, columns + 1))  # NumPy overflows far outside
    return _from_wide(np.eye(n_rows, columns, k=k, dtype=np.float64), as_dtype(dtype or DEFAULT_FLOAT), device)
