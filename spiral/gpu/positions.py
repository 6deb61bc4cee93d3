"""Indices of the host's arrays (``x[index]``) as byte offsets into a device array."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from spiral.device_array import DeviceArray, contiguous_strides
from spiral.errors import IndexingError


def has_arrays(index: tuple[Any, ...]) -> bool:
    """Whether an index has integer arrays or masks, so that the result is no view."""
    return any(isinstance(i, (np.ndarray, bool, np.bool_, list)) for i in index)


class Places(NamedTuple):
    """Which elements of an array an index with arrays takes.

    The result's axes are ``before``, those of the index arrays' broadcast shape, and ``after``.
    """

    view: DeviceArray  # where offsets count from
    offsets: np.ndarray[Any, Any]  # bytes, one per element of the index arrays' broadcast shape
    before: tuple[tuple[int, int], ...]  # (length, stride) of the axes that slices leave
    after: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return (*(n for n, _ in self.before), *self.offsets.shape, *(n for n, _ in self.after))

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the view over the result, 0 along the index arrays' axes."""
        return (*(s for _, s in self.before), *(0,) * self.offsets.ndim, *(s for _, s in self.after))

    @property
    def offset_strides(self) -> tuple[int, ...]:
        """Strides of the offsets over the result."""
        dense = contiguous_strides(self.offsets.shape, 8)
        return (*(0,) * len(self.before), *dense, *(0,) * len(self.after))

    @property
    def grain(self) -> int:
        """The largest number of bytes that divides every offset; 0 where all are 0."""
        return int(np.gcd.reduce(self.offsets, axis=None)) if self.offsets.size else 0


def places(x: DeviceArray, index: tuple[Any, ...]) -> Places:
    """NumPy's rules for slices, integers, integer arrays and masks in one index.

    Raises:
        IndexingError: a position is out of range.
    """
    parts = _expanded(x.ndim, index)
    arrays: list[np.ndarray[Any, Any]] = []
    basic: list[Any] = []
    at: list[int] = []  # the view's axes that arrays index
    for i, part in enumerate(parts):
        if part is None or isinstance(part, slice):
            basic.append(part)
            continue
        if isinstance(part, (bool, np.bool_)):  # an axis of its own that is taken once or not at all
            basic.append(None)
            part = np.zeros(1 if part else 0, np.int64)
        else:
            basic.append(slice(None))
        arrays.append(np.asarray(part))
        at.append(i)
    view = x[tuple(basic)]
    offsets = np.zeros(np.broadcast_shapes(*(a.shape for a in arrays)), np.int64)
    for a, axis in zip(arrays, at, strict=True):
        n = view.shape[axis]
        positions = a.astype(np.int64)
        if positions.size and not (-n <= positions.min() and positions.max() < n):
            bad = positions[(positions < -n) | (positions >= n)].flat[0]
            raise IndexingError(f"index: {int(bad)} is not in [{-n}, {n}).")
        offsets = offsets + np.where(positions < 0, positions + n, positions) * view.strides[axis]
    together = at == list(range(at[0], at[0] + len(at)))
    first = at[0] if together else 0
    left = [(view.shape[i], view.strides[i]) for i in range(view.ndim) if i not in at]
    return Places(view, offsets, tuple(left[:first]), tuple(left[first:]))


def _expanded(ndim: int, index: tuple[Any, ...]) -> list[Any]:
    """One part per axis: None, slice, integer, integer array, or a mask without axes."""
    parts: list[Any] = []
    used = 0
    gap = -1
    for part in index:
        if part is Ellipsis:
            gap = len(parts)
            continue
        if isinstance(part, list):
            part = np.asarray(part, np.int64) if not part else np.asarray(part)
        if isinstance(part, np.ndarray) and part.dtype == np.bool_ and part.ndim:
            parts += part.nonzero()
            used += part.ndim
            continue
        if isinstance(part, np.ndarray) and part.dtype == np.bool_:
            part = bool(part)
        parts.append(part)
        used += part is not None and not isinstance(part, (bool, np.bool_))
    rest = [slice(None)] * (ndim - used)
    return [*parts, *rest] if gap < 0 else [*parts[:gap], *rest, *parts[gap:]]
