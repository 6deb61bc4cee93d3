"""How a tensor's elements lie in memory: the layouts that every kernel must take or refuse."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.device import Device
from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype
from spiral.errors import ArgumentError
from spiral.tensor import Tensor
from spiral.tensor_core import make_key, wrap

LAYOUTS = ("sampled", "dense", "transposed", "gaps")


def arranged(a: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """The values of an array in another layout.

    Args:
        layout: ``sampled`` leaves it as it is; ``dense`` is C order; ``transposed`` is C order of the axes in
            reverse; ``gaps`` takes every second element of a larger array along each axis, the first axis
            backwards, with NaN (or 0) in between.

    Raises:
        ArgumentError: an unknown layout.
    """
    if layout == "sampled":
        return a
    if layout == "dense":
        return np.array(a, order="C", copy=True)
    if layout == "transposed":
        return np.array(a.T, order="C", copy=True).T
    if layout != "gaps":
        raise ArgumentError(f"layout: expected one of {', '.join(LAYOUTS)}; received {layout!r}.")
    if not a.ndim:
        return np.asarray(np.array([a, a])[1, ...])
    wide = np.zeros([2 * n + 1 for n in a.shape], a.dtype)
    if a.dtype.kind not in "iub":
        wide[...] = np.nan
    steps = [slice(1, 2 * n, 2) for n in a.shape]
    view = wide[tuple(steps)][::-1]
    view[...] = a
    return view


def with_strides(a: np.ndarray[Any, Any], device: Device) -> Tensor:
    """A tensor on a device, with the strides that an array has on the host: copying would make it dense."""
    spans = [(n - 1) * s for n, s in zip(a.shape, a.strides, strict=True)] if a.size else []
    low, high = sum(min(s, 0) for s in spans), sum(max(s, 0) for s in spans)
    raw = np.full(high - low + a.itemsize, 0xFF, np.uint8)  # NaN, in every floating type
    np.ndarray(a.shape, a.dtype, raw, -low, a.strides)[...] = a
    block = device.memory.from_host(raw)
    if isinstance(block, DeviceArray):
        buffer: Any = DeviceArray(block.memory, block.block, block.address - low, a.shape, a.dtype, a.strides)
    else:
        buffer = np.ndarray(a.shape, a.dtype, block, -low, a.strides)
    tensor: Tensor = wrap(buffer, make_key(device, as_dtype(a.dtype)))
    return tensor
