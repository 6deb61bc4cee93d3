"""Ops that move or cast elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import cast, cast_into, copy_into, dense
from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype

_ARRAYS = Cap(ANY.dtypes, ANY.integers)


def _reshape(x: DeviceArray, shape: tuple[int, ...]) -> Any:
    return dense(x).reshape_view(shape)


def _copy(x: DeviceArray, y: DeviceArray) -> None:
    copy_into(x, y)


def _astype(x: DeviceArray, dtype: Any, y: DeviceArray) -> None:
    cast_into(x, y)


def _overwrite(x: DeviceArray, source: DeviceArray) -> None:
    copy_into(cast(source, as_dtype(x.dtype)).broadcast_to(x.shape), x)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("reshape", _reshape, _ARRAYS, allocates=True)
    yield Kernel("copy", _copy, _ARRAYS)
    yield Kernel("identity", _copy, _ARRAYS)
    yield Kernel("positive", _copy, _ARRAYS)
    yield Kernel("astype", _astype, _ARRAYS)
    yield Kernel("copy_", _overwrite, _ARRAYS)
