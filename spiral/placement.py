"""A tensor's buffer from the host's memory to a device's and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.device import Device, by_code, meta
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, as_dtype
from spiral.op import F
from spiral.storage import copy_array
from spiral.tensor_core import DTYPE_BITS, DTYPE_MASK, make_key, wrap


def to_host(buffer: Any, device: Device) -> np.ndarray[Any, Any]:
    """The values of a buffer; an array of its own where the buffer is on a device."""
    return buffer if device.memory is None else device.memory.to_host(buffer)  # type: ignore[no-any-return]


def place(array: np.ndarray[Any, Any], device: Device) -> Any:
    """A NumPy array as a buffer of a device; itself on the CPU."""
    return array if device.memory is None else device.memory.from_host(array)


def place_ahead(array: np.ndarray[Any, Any], device: Device) -> Any:
    """A constant tensor with the values of a NumPy array; where a device can, it copies beside its other work."""
    memory = device.memory
    put = getattr(memory, "from_host_ahead", None)
    buffer = put(array) if put is not None else array.copy() if memory is None else memory.from_host(array)
    return wrap(buffer, make_key(device, as_dtype(array.dtype)))


def host_copy(t: Any) -> np.ndarray[Any, Any]:
    """A tensor's values as an array that may be its memory; waits for a device."""
    return np.asarray(to_host(t._a, t.device))


def copied(buffer: Any, device: Device) -> Any:
    """Memory of its own with a buffer's values, on the same device."""
    if device is meta:
        return buffer
    if isinstance(buffer, DeviceArray):
        if not buffer.contiguous:
            return device.memory.from_host(buffer.to_host())
        new = DeviceArray.empty(buffer.memory, buffer.shape, buffer.dtype)
        if buffer.size:
            buffer.memory.copy(new.address, buffer.address, buffer.nbytes)
        return new
    return copy_array(buffer) if device.memory is None else device.memory.from_host(buffer)


def is_own(buffer: Any) -> bool:
    """Whether a kernel may overwrite a buffer as one stretch of elements in C order."""
    if isinstance(buffer, DeviceArray):
        return buffer.contiguous
    return bool(buffer.flags.c_contiguous and buffer.flags.writeable)


def filled(shape: tuple[int, ...], value: float, key: int) -> Any:
    """A constant tensor of one value, where the device and dtype of a dispatch key say; made there, not copied."""
    device, dtype = by_code(key >> DTYPE_BITS), ALL[key & DTYPE_MASK]
    if device.memory is None or device.memory.unified:
        return wrap(place(np.full(shape, value, dtype.numpy), device), key)
    t = wrap(device.memory.empty(Spec(shape, dtype)), key)
    F.fill_(t, value=value)
    return t
