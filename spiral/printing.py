"""How tensors print."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.abstract import NoValues
from spiral.device_array import DeviceArray


def tensor_repr(t: Any) -> str:
    """Values with four digits, then what is not obvious from them: dtype, device, gradient.

    Example:
        >>> import spiral as sp
        >>> sp.asarray([1.0, 2.5])
        Tensor([1. , 2.5])
    """
    a = t._a
    if isinstance(a, DeviceArray):
        a = a.to_host()
    if isinstance(a, NoValues):
        return f"Tensor(shape={t.shape}, dtype={t.dtype.name}, without values)"
    if t.dtype.storage_only:
        a = a.astype(np.float32)
    head = "Tensor("
    with np.printoptions(precision=4, threshold=200, edgeitems=3, suppress=False):
        body = np.array2string(np.asarray(a), separator=", ", prefix=head)
    notes = []
    if 0 in t.shape:
        notes.append(f"shape={t.shape}")
    if t.dtype.name not in ("float32", "int64", "bool"):
        notes.append(f"dtype={t.dtype.name}")
    if t.device.type != "cpu":
        notes.append(f"device={t.device}")
    if t._node is not None:
        op = getattr(t._node, "op", None)
        notes.append("requires_grad=True" if op is None else f"from={op.name}")
    return head + ", ".join([body, *notes]) + ")"
