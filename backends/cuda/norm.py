"""Normalisation over the last axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, dense
from spiral.backends.cuda.launching import Source
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS

_NORM = Source("norm.cu")
_RMS = {d.numpy: _NORM.kernel(f"spiral::rms_norm<{NAMES[d]}>", "P", "P", "P", "P", "i", "d") for d in FLOATS}
_FLOAT = Cap(FLOATS)


def _rms_norm(x: DeviceArray, weight: Any, eps: float, y: DeviceArray, rstd: DeviceArray) -> None:
    if not x.size:
        return
    x = dense(x)
    w = 0 if weight is None else dense(weight).address
    n = x.shape[-1]
    _RMS[x.dtype](y.memory, (x.size // n, 1, 1), (THREADS, 1, 1), x.address, w, y.address, rstd.address, n, eps)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("rms_norm", _rms_norm, _FLOAT)
